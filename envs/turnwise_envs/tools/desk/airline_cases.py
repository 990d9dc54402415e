"""What customers of the airline want: worlds, requests, and their right ends.

Each kind of request adds what it needs to the database and gives a :class:`Request` with its gold calls. A task has one
or two requests about different bookings. ``valid`` has other people, other cities, and pairs of kinds that ``train`` lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from turnwise_envs.dates import MONTHS
from turnwise_envs.dice import Dice
from turnwise_envs.tools.desk.cases import Kind, concluded, drawn, for_a_human, is_impostor, refused
from turnwise_envs.tools.desk.database import Database
from turnwise_envs.tools.desk.people import Cast, cast, code
from turnwise_envs.tools.desk.scenario import Request, Scenario, call

TODAY = "2026-05-15"
_RECENT, _OLD = ("2026-05-15", "2026-05-14"), ("2026-05-12", "2026-04-30", "2026-04-02", "2026-03-21")
FARES = ("saver", "flex", "business")
RULES = [f"R{n}" for n in range(1, 7)]
_INCLUDED = {"saver": 0, "flex": 1, "business": 2}
#: What only humans can help with, and what customers say of it.
HUMAN = {
    "lost luggage": "My suitcase never arrived. Where is it?",
    "complaint": "I want to complain about the behaviour of a steward.",
    "group booking": "We are a choir of sixty. Can you make us an offer?",
}

_refused = partial(refused, plea="Oh please, can you not make an exception for me?")


@dataclass
class _World:
    """A database being made for one customer."""

    dice: Dice
    cast: Cast
    customer: str
    flights: dict[str, dict[str, Any]]
    bookings: dict[str, dict[str, Any]]
    customers: dict[str, dict[str, Any]]

    @property
    def gold_member(self) -> bool:
        return bool(self.customers[self.customer]["tier"] == "gold")

    def flight(self, origin: str, destination: str, date: str, **fields: Any) -> str:
        number = f"LW{self.dice.between(100, 999)}"
        while number in self.flights:
            number = f"LW{self.dice.between(100, 999)}"
        saver = self.dice.between(40, 240)
        flex = saver + self.dice.between(30, 90)
        self.flights[number] = {
            "origin": origin,
            "destination": destination,
            "date": date,
            "departs": f"{self.dice.between(6, 21):02}:{5 * self.dice.below(12):02}",
            "fares": {"saver": saver, "flex": flex, "business": flex + self.dice.between(80, 300)},
            "seats": self.dice.between(1, 30),
            "status": "on time",
            **fields,
        }
        return number

    def route(self) -> tuple[str, str]:
        cities = self.dice.shuffled(self.cast.cities)
        return cities[0], cities[1]

    def date(self) -> str:
        return f"2026-{self.dice.between(6, 9):02}-{self.dice.between(1, 28):02}"

    def booking(self, fare: str, *, owner: str | None = None, flight: str | None = None, **fields: Any) -> str:
        """A booking of a customer; of an old date, uninsured and on time unless ``fields`` say else."""
        flight = flight or self.flight(*self.route(), self.date())
        number = code(self.dice, 3, 3)
        owner = owner or self.customer
        self.bookings[number] = {
            "customer": owner,
            "flight": flight,
            "fare": fare,
            "paid": self.flights[flight]["fares"][fare],
            "booked_on": self.dice.pick(_OLD),
            "insurance": False,
            "bags": 0,
            "paid_bags": 0,
            "status": "booked",
            **fields,
        }
        self.customers[owner]["bookings"].append(number)
        return number

    def person(self) -> str:
        number = code(self.dice, 1, 5)
        self.customers[number] = {
            "name": f"{self.dice.pick(self.cast.first)} {self.dice.pick(self.cast.last)}",
            "birth": f"{self.dice.between(1950, 2004)}-{self.dice.between(1, 12):02}-{self.dice.between(1, 28):02}",
            "tier": self.dice.pick(("basic", "basic", "gold")),
            "bookings": [],
        }
        return number


def _spoken(date: str) -> str:
    year, month, day = date.split("-")
    return f"{int(day)} {MONTHS[int(month) - 1]} {year}"


def _number(booking: str) -> dict[str, str]:
    return {"booking": f"The booking number is {booking}."}


def move(world: _World) -> Request:
    fare, wants = world.dice.pick(("flex", "business")), world.dice.pick(("first", "last", "cheapest"))
    number = world.booking(fare)
    old = world.flights[world.bookings[number]["flight"]]
    origin, destination, date = old["origin"], old["destination"], world.date()
    flights = {
        name: world.flights[name]
        for name in [world.flight(origin, destination, date, departs=f"{h:02}:{m}") for h, m in _times(world.dice)]
    }
    prices = [flight["fares"][fare] for flight in flights.values()]
    if len(set(prices)) < len(prices):
        return move(world)  # "the cheapest" must be one
    rank: Callable[[str], Any] = {
        "first": lambda name: flights[name]["departs"],
        "last": lambda name: tuple(-int(part) for part in flights[name]["departs"].split(":")),
        "cheapest": lambda name: flights[name]["fares"][fare],
    }[wants]
    flight = min(flights, key=rank)
    difference = flights[flight]["fares"][fare] - world.bookings[number]["paid"]
    told = f"That is {difference} euros to pay" if difference >= 0 else f"You get {-difference} euros back"
    return Request(
        "I need to fly on another day than I booked.",
        {
            **_number(number),
            "date": f"I would like to fly on {_spoken(date)} instead.",
            "time": f"I would take the {wants} flight of that day.",
        },
        (
            call("get_booking", booking=number),
            call("search_flights", origin=origin, destination=destination, date=date),
            call("move_booking", booking=number, flight=flight),
        ),
        about=number,
        proposal=f"I would move booking {number} to flight {flight} on {date} at {flights[flight]['departs']}. {told}.",
        answers=(str(abs(difference)),),
        tells=f"{told}.",
    )


def _times(dice: Dice) -> list[tuple[int, str]]:
    hours = sorted(dice.shuffled(range(6, 22))[:3])
    return dice.shuffled([(hour, f"{5 * dice.below(12):02}") for hour in hours])


def move_saver(world: _World) -> Request:
    number = world.booking("saver")
    facts = {**_number(number), "date": f"I would like to fly on {_spoken(world.date())} instead."}
    return _refused(
        "Please move my flight to another day.", facts, "R3", call("get_booking", booking=number), about=number
    )


def cancel(world: _World) -> Request:
    why = world.dice.pick(("business", "recent", "airline", "ill"))
    fields: dict[str, Any] = {}
    flight = world.flight(*world.route(), world.date())
    reason = "My plans have changed."
    if why == "recent":
        fields["booked_on"] = world.dice.pick(_RECENT)
    elif why == "airline":
        world.flights[flight]["status"] = "cancelled"
    elif why == "ill":
        fields["insurance"], reason = True, "I am ill, I cannot travel."
    fare = "business" if why == "business" else world.dice.pick(("saver", "flex"))
    number = world.booking(fare, flight=flight, **fields)
    paid = world.bookings[number]["paid"]
    return Request(
        "I want to cancel a trip.",
        {**_number(number), "reason": reason},
        (call("get_booking", booking=number), call("cancel_booking", booking=number)),
        about=number,
        proposal=f"I would cancel booking {number} and refund {paid} euros.",
        answers=(str(paid),),
        tells=f"{paid} euros are refunded.",
    )


def cancel_forbidden(world: _World) -> Request:
    insured, ill = world.dice.pick(((True, False), (False, True), (False, False)))
    number = world.booking(world.dice.pick(("saver", "flex")), insurance=insured)
    reason = "I am ill, I cannot travel." if ill else "My plans have changed."
    facts = {**_number(number), "reason": reason}
    return _refused(
        "I would like my money back for a trip.", facts, "R4", call("get_booking", booking=number), about=number
    )


def bags(world: _World) -> Request:
    fare = world.dice.pick(FARES)
    number = world.booking(fare)
    wanted = world.dice.between(2, 5)
    paid = max(0, wanted - _INCLUDED[fare] - world.gold_member)
    return Request(
        "I will have more luggage with me than I thought.",
        {**_number(number), "bags": f"It will be {wanted} bags in all."},
        (call("get_booking", booking=number), call("set_bags", booking=number, bags=wanted, paid_bags=paid)),
        about=number,
        proposal=f"I would register {wanted} bags for booking {number}; that costs {40 * paid} euros.",
        answers=(str(40 * paid),),
        tells=f"The bags cost {40 * paid} euros.",
    )


def voucher(world: _World) -> Request:
    amount, status = world.dice.pick(((100, "cancelled"), (50, "delayed by 5 hours"), (50, "delayed by 4 hours")))
    fare = world.dice.pick(FARES if world.gold_member else FARES[1:])
    flight = world.flight(*world.route(), "2026-05-14", status=status)
    number = world.booking(fare, flight=flight)
    return Request(
        "My flight yesterday was a disaster. I want to be compensated.",
        _number(number),
        (call("get_booking", booking=number), call("send_voucher", booking=number, amount=amount)),
        about=number,
        proposal=f"I would send you a voucher of {amount} euros for booking {number}.",
        answers=(str(amount),),
        tells=f"The voucher is worth {amount} euros.",
    )


def voucher_forbidden(world: _World) -> Request:
    late = world.dice.chance(0.5) or world.gold_member
    status = "delayed by 2 hours" if late else "delayed by 6 hours"
    fare = world.dice.pick(FARES[1:]) if late else "saver"
    flight = world.flight(*world.route(), "2026-05-14", status=status)
    number = world.booking(fare, flight=flight)
    opening = "I was late because of you. What do I get for that?"
    return _refused(opening, _number(number), "R6", call("get_booking", booking=number), about=number)


def book(world: _World) -> Request:
    (origin, destination), date, fare = world.route(), world.date(), world.dice.pick(FARES)
    wants = world.dice.pick(("first", "last"))
    flights = [world.flight(origin, destination, date, departs=f"{h:02}:{m}") for h, m in _times(world.dice)]
    ordered = sorted(flights, key=lambda name: str(world.flights[name]["departs"]))
    flight = ordered[0] if wants == "first" else ordered[-1]
    price = world.flights[flight]["fares"][fare]
    return Request(
        "I would like to book a trip.",
        {
            "route": f"I fly from {origin} to {destination}.",
            "date": f"On {_spoken(date)}.",
            "time": f"I would take the {wants} flight of that day.",
            "fare": f"A {fare} fare, please.",
        },
        (
            call("search_flights", origin=origin, destination=destination, date=date),
            call("book_flight", customer=world.customer, flight=flight, fare=fare),
        ),
        about=flight,
        proposal=f"I would book flight {flight} on {date} at {world.flights[flight]['departs']}, {fare}, for {price} euros.",
        answers=(str(price),),
        tells=f"It costs {price} euros.",
    )


def of_another(world: _World) -> Request:
    other = world.person()
    number = world.booking(world.dice.pick(FARES), owner=other, booked_on=TODAY)
    facts = {**_number(number), "reason": f"It is for {world.customers[other]['name']}, who asked me to do it."}
    return _refused(
        "Please cancel a booking for a friend of mine.", facts, "R2", call("get_booking", booking=number), about=number
    )


def human(world: _World) -> Request:
    return for_a_human(world.dice, HUMAN)


KINDS: tuple[Kind[_World], ...] = (
    move, move_saver, cancel, cancel_forbidden, bags, voucher, voucher_forbidden, book, of_another,
)  # fmt: skip


def scenario(split: str, index: int) -> Scenario:
    """The case of a task."""
    dice = Dice("airline-desk", split, index)
    world = _World(dice, cast(split), "", {}, {}, {})
    world.customer = world.person()
    kinds = drawn(KINDS, human, dice, split, index)
    requests = [kind(world) for kind in kinds]
    for _ in range(2):  # others, whom all this does not concern
        world.booking(dice.pick(FARES), owner=world.person())
    birth = "1949-12-31" if is_impostor(index) else world.customers[world.customer]["birth"]
    db: Database = {
        "customers": world.customers,
        "bookings": world.bookings,
        "flights": world.flights,
        "vouchers": {},
        "refusals": {},
        "transfers": {},
    }
    identity = {"customer": f"My customer number is {world.customer}.", "birth": f"I was born on {_spoken(birth)}."}
    look = call("get_customer", customer=world.customer)
    return concluded(index, [kind.__name__ for kind in kinds], requests, db, identity, look, rule="R1")
