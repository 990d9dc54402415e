"""The airline desk: its rules, its tools, and what each tool does to the database.

The tools do what they are told wherever that makes sense; whether it was allowed is a matter of the rules, and shows in
the final database. They refuse only what has no meaning (a flight that does not exist, no seat left).
"""

from __future__ import annotations

from typing import Any

from turnwise_envs.tools.desk.airline_cases import FARES, HUMAN, RULES, TODAY, scenario
from turnwise_envs.tools.desk.database import Database, append, put, row, show
from turnwise_envs.tools.desk.env import DeskEnvironment, DeskTasks, spec_of
from turnwise_envs.tools.desk.scenario import Desk, Topic, closing_tools, tool
from turnwise_envs.tools_api import Toolbox, ToolMistake
from turnwise_envs.types import JsonObject

POLICY = f"""You serve customers of Larkwing Airways. Today is {TODAY}. Rules:
R1. First ask for the customer number and the date of birth, and compare them with the profile. If they do not match, \
change nothing and tell nothing; refuse under R1.
R2. Serve customers only for bookings of their own; for bookings of others refuse under R2.
R3. Flex and business bookings can be moved to another flight of the same route; saver bookings cannot: refuse under R3. \
The customer pays or gets back the difference of the fares; tell them how much it is.
R4. A booking can be cancelled if it is a business fare, or was booked yesterday or today, or the airline cancelled the \
flight, or it has insurance and the customer is ill. The price paid is refunded; tell them how much. Otherwise refuse \
under R4.
R5. Bags: saver includes none, flex one, business two; gold members have one more. Each further bag costs 40 euros; \
tell them the cost of what they have to pay for in all.
R6. Vouchers are given for a cancelled flight (100 euros) or one delayed by more than three hours (50 euros), to gold \
members and for flex and business fares only. Otherwise refuse under R6.
Before you move, cancel or book anything, change bags or send a voucher, say what you would do, naming the booking (or, for a \
new booking, the flight), and wait for the customer's agreement. When a rule forbids a request, log it with `refuse` and tell the \
customer that you cannot do it. What none of the tools is for (lost luggage, complaints, groups) is for a human: use \
`transfer_to_human`, which ends the conversation."""


TEXT: JsonObject = {"type": "string"}
COUNT: JsonObject = {"type": "integer", "minimum": 0, "maximum": 20}
FARE: JsonObject = {"type": "string", "enum": list(FARES)}

BOX = Toolbox(
    [
        tool("get_customer", "Profile of a customer, with the numbers of their bookings.", customer=TEXT),
        tool("get_booking", "A booking, and its flight.", booking=TEXT),
        tool(
            "search_flights",
            "Flights of a route on a date (YYYY-MM-DD), with fares in euros and seats left.",
            origin=TEXT,
            destination=TEXT,
            date=TEXT,
        ),
        tool("move_booking", "Move a booking to another flight, in the same fare.", booking=TEXT, flight=TEXT),
        tool("cancel_booking", "Cancel a booking and refund the price paid.", booking=TEXT),
        tool(
            "set_bags",
            "Set the number of checked bags of a booking, and how many of them have to be paid for.",
            booking=TEXT,
            bags=COUNT,
            paid_bags=COUNT,
        ),
        tool("book_flight", "Book a seat for a customer.", customer=TEXT, flight=TEXT, fare=FARE),
        tool(
            "send_voucher",
            "Send a voucher for a booking; amount in euros.",
            booking=TEXT,
            amount={"type": "integer", "minimum": 1, "maximum": 1_000},
        ),
        *closing_tools(RULES, HUMAN),
    ],
    max_calls=8,
)

TOPICS = {
    "customer": Topic(("customer number", "customer id", "customer"), "your customer number"),
    "birth": Topic(("date of birth", "birth", "birthday", "born"), "your date of birth"),
    "booking": Topic(("booking number", "booking", "reservation"), "the number of your booking"),
    "route": Topic(("from where", "where", "route", "destination", "city", "cities"), "from where to where you fly"),
    "date": Topic(("date", "day", "when"), "the date"),
    "time": Topic(("time", "morning", "evening", "which flight", "preference", "prefer"), "which flight you prefer"),
    "fare": Topic(("fare", "class", "saver", "flex", "business"), "which fare you would like"),
    "reason": Topic(("reason", "why", "ill", "illness"), "the reason"),
    "bags": Topic(("bag", "bags", "luggage", "suitcase", "suitcases"), "how many bags you will have"),
}


def run(db: Database, name: str, arguments: JsonObject) -> tuple[Database, str]:
    """Run one tool. Raises ToolMistake."""
    match name:
        case "get_customer":
            return db, show(row(db, "customers", arguments["customer"]))
        case "get_booking":
            booking = row(db, "bookings", arguments["booking"])
            return db, show({**booking, "flight": {"number": booking["flight"], **db["flights"][booking["flight"]]}})
        case "search_flights":
            asked = [arguments[part].strip().lower() for part in ("origin", "destination", "date")]
            found = {
                number: flight
                for number, flight in db["flights"].items()
                if [flight[part].lower() for part in ("origin", "destination", "date")] == asked
            }
            return db, show(found) if found else "No flights of that route on that date."
        case "move_booking":
            return _move(db, arguments["booking"], arguments["flight"])
        case "cancel_booking":
            booking = _live(db, arguments["booking"])
            after = put(db, "bookings", arguments["booking"], status="cancelled", refunded=booking["paid"])
            return _seat(after, booking["flight"], +1), f"Cancelled. {booking['paid']} euros are refunded."
        case "set_bags":
            if arguments["paid_bags"] > arguments["bags"]:
                raise ToolMistake("More paid bags than bags.")
            _live(db, arguments["booking"])
            after = put(db, "bookings", arguments["booking"], bags=arguments["bags"], paid_bags=arguments["paid_bags"])
            return after, f"Done. {40 * arguments['paid_bags']} euros are charged for bags."
        case "book_flight":
            return _book(db, arguments["customer"], arguments["flight"], arguments["fare"])
        case "send_voucher":
            _live(db, arguments["booking"])
            return append(db, "vouchers", **arguments), "The voucher is on its way."
        case "refuse":
            return append(db, "refusals", **arguments), "Logged."
        case _:
            return append(db, "transfers", **arguments), "A human takes over."


def _move(db: Database, number: str, flight: str) -> tuple[Database, str]:
    booking, to = _live(db, number), row(db, "flights", flight)
    now = db["flights"][booking["flight"]]
    if (now["origin"], now["destination"]) != (to["origin"], to["destination"]):
        raise ToolMistake("That flight has another route.")
    _check_seat(to)
    price = to["fares"][booking["fare"]]
    difference = price - booking["paid"]
    after = _seat(_seat(db, booking["flight"], +1), flight, -1)
    after = put(after, "bookings", number, flight=flight, paid=price)
    told = f"{difference} euros to pay" if difference >= 0 else f"{-difference} euros back"
    return after, f"Moved to {flight}: {told}."


def _book(db: Database, customer: str, flight: str, fare: str) -> tuple[Database, str]:
    owner, to = row(db, "customers", customer), row(db, "flights", flight)
    _check_seat(to)
    number = f"{flight}-{len(db['bookings']) + 1}"
    after = put(
        _seat(db, flight, -1),
        "bookings",
        number,
        customer=customer,
        flight=flight,
        fare=fare,
        paid=to["fares"][fare],
        booked_on=TODAY,
        insurance=False,
        bags=0,
        paid_bags=0,
        status="booked",
    )
    after = put(after, "customers", customer, bookings=[*owner["bookings"], number])
    return after, f"Booked as {number} for {to['fares'][fare]} euros."


def _live(db: Database, number: str) -> Any:
    booking = row(db, "bookings", number)
    if booking["status"] == "cancelled":
        raise ToolMistake("That booking is cancelled already.")
    return booking


def _check_seat(flight: Any) -> None:
    if flight["seats"] == 0 or flight["status"] == "cancelled":
        raise ToolMistake("There is no seat on that flight.")


def _seat(db: Database, flight: str, change: int) -> Database:
    return put(db, "flights", flight, seats=db["flights"][flight]["seats"] + change)


AIRLINE = Desk(
    id="airline-desk",
    description="An airline's service desk: bookings, rules and a scripted customer, in the manner of tau-bench.",
    policy=POLICY,
    box=BOX,
    run=run,
    writes=frozenset({"move_booking", "cancel_booking", "set_bags", "book_flight", "send_voucher"}),
    topics=TOPICS,
    scenario=scenario,
    splits={"train": 5_000, "valid": 500},
)


class AirlineDesk(DeskEnvironment):
    """A conversation with a customer of Larkwing Airways."""

    desk = AIRLINE
    spec = spec_of(AIRLINE)
    tasks = DeskTasks(spec, AIRLINE)
