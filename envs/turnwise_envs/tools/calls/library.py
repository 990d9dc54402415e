"""Functions, and how people ask for them.

A request is a function's opening words and a phrase for each parameter: *Book a table* *at Luigi's* *for 4 people*. So a
phrase can be left out, where an optional parameter is not used or a required one is to be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from turnwise_envs.dice import Dice
from turnwise_envs.types import JsonObject, ToolSpec


class Word(NamedTuple):
    """A value, how people say it, and other spellings that are as good."""

    value: Any
    said: str
    also: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Parameter:
    """``phrase`` has a ``{}`` for the value. ``asks`` are words by which a question for it is known.

    An optional one has a default, which is also the value of a call that leaves it out.
    """

    name: str
    schema: JsonObject
    words: tuple[Word, ...]
    phrase: str
    asks: tuple[str, ...]
    optional: bool = False
    default: Any = None


@dataclass(frozen=True, eq=False)
class Function:
    """A function: what it is for, what it is called, and the opening words of a request for it."""

    domain: str
    name: str
    description: str
    opening: str
    parameters: tuple[Parameter, ...]

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(
            name=self.name,
            description=self.description,
            parameters={
                "type": "object",
                "properties": {one.name: one.schema for one in self.parameters},
                "required": [one.name for one in self.parameters if not one.optional],
                "additionalProperties": False,
            },
        )


def choice(*values: str | Word) -> tuple[Word, ...]:
    return tuple(value if isinstance(value, Word) else Word(value, value) for value in values)


def numbers(*values: float) -> tuple[Word, ...]:
    return tuple(Word(value, f"{value}") for value in values)


CITIES = choice(
    Word("New York", "New York", ("New York City", "NYC")), "Berlin", "Lagos", "Lima", "Osaka", "Toronto",
    Word("Munich", "Munich", ("München",)), Word("Rome", "Rome", ("Roma",)), "Nairobi", "Seoul",
)  # fmt: skip
DATES = tuple(
    Word(f"2026-{month:02}-{day:02}", f"{name} {day}, 2026")
    for month, name, day in ((6, "June", 3), (6, "June", 21), (7, "July", 9), (8, "August", 14), (9, "September", 30))
)
TIMES = tuple(
    Word(f"{hour:02}:{minute:02}", f"{(hour - 1) % 12 + 1}:{minute:02} {'am' if hour < 12 else 'pm'}")
    for hour, minute in ((7, 30), (9, 15), (12, 0), (18, 45), (20, 30))
)
PEOPLE = choice("Anna Berg", "Tom Okafor", "Li Wei", "Sofia Reyes", "Max Adler")
CURRENCIES = choice(
    Word("EUR", "euros"), Word("USD", "US dollars"), Word("JPY", "Japanese yen"), Word("CHF", "Swiss francs")
)


def text(name: str, words: tuple[Word, ...], phrase: str, asks: str, about: str) -> Parameter:
    return Parameter(name, {"type": "string", "description": about}, words, phrase, tuple(asks.split()))


def amount(name: str, words: tuple[Word, ...], phrase: str, asks: str, about: str, kind: str = "integer") -> Parameter:
    return Parameter(name, {"type": kind, "description": about}, words, phrase, tuple(asks.split()))


def one_of(name: str, words: tuple[Word, ...], phrase: str, asks: str, default: str | None = None) -> Parameter:
    schema: JsonObject = {"type": "string", "enum": [word.value for word in words]}
    if default is not None:
        schema["default"] = default
    return Parameter(name, schema, words, phrase, tuple(asks.split()), default is not None, default)


def flag(name: str, phrase: str, about: str) -> Parameter:
    schema: JsonObject = {"type": "boolean", "description": about, "default": False}
    return Parameter(name, schema, (Word(True, ""),), phrase, (), True, False)


def several(name: str, values: tuple[tuple[str, ...], ...], phrase: str, asks: str, about: str) -> Parameter:
    schema: JsonObject = {"type": "array", "items": {"type": "string"}, "description": about}
    words = tuple(Word(list(value), " and ".join(value)) for value in values)
    return Parameter(name, schema, words, phrase, tuple(asks.split()))


CITY = text("city", CITIES, " in {}", "city where place town", "Name of the city.")
DATE = text("date", DATES, " on {}", "date day when", "Day as YYYY-MM-DD.")
TIME = text("time", TIMES, " at {}", "time when hour clock", "Time as HH:MM, 24 hours.")
UNITS = one_of("unit", choice("celsius", "fahrenheit"), " in degrees {}", "unit", "celsius")

TRAIN: tuple[Function, ...] = (
    Function("weather", "get_forecast", "Weather forecast of a city for a day.", "Tell me the weather", (CITY, DATE, UNITS)),
    Function("weather", "get_air_quality", "Air quality of a city now.", "Check the air quality", (CITY,)),
    Function(
        "weather", "get_sun_times", "Sunrise and sunset of a city for a day.", "Find out when the sun rises", (CITY, DATE)
    ),
    Function("money", "convert_currency", "Convert an amount of money.", "Convert", (
        amount("amount", numbers(25, 80, 120.5, 310, 999.9), " {}", "amount much many", "How much.", "number"),
        one_of("source", CURRENCIES, " {}", "from currency source"),
        one_of("target", CURRENCIES[::-1], " to {}", "to currency target"),
    )),
    Function("money", "compute_loan", "Monthly rate of a loan.", "Work out the monthly rate of a loan", (
        amount("principal", numbers(5000, 12000, 250000), " of {} euros", "amount much principal", "Sum borrowed.", "number"),
        amount("interest", numbers(2.5, 3.9, 6), " at {} percent", "interest percent rate", "Percent a year.", "number"),
        amount("years", numbers(5, 10, 25), " over {} years", "years long duration term", "Years of repayment."),
    )),
    Function("money", "get_stock_price", "Latest price of a share.", "Look up the share price", (
        text("symbol", choice("AAPL", "SAP", "TM", "NESN"), " of {}", "symbol company share stock", "Ticker symbol."),
    )),
    Function("calendar", "create_event", "Put an event into the calendar.", "Put an appointment into my calendar", (
        text("title", choice("Dentist", "Budget review", "Piano lesson"), ' called "{}"', "title name called", "Its title."),
        DATE, TIME,
        Parameter(
            "minutes", {"type": "integer", "description": "Length in minutes.", "default": 60}, numbers(30, 45, 90),
            " for {} minutes", ("long", "minutes", "duration"), True, 60,
        ),
    )),
    Function("calendar", "set_reminder", "Remind me of something.", "Remind me", (
        text("what", choice("to water the plants", "to call the bank", "to buy stamps"), " {}", "what", "What about."),
        DATE, TIME,
    )),
    Function("messages", "send_message", "Send a text message.", "Send a message", (
        text("to", PEOPLE, " to {}", "who whom recipient", "Full name of the recipient."),
        text("body", choice("I am late", "See you tomorrow", "Please call me"), ' saying "{}"', "say body text content", "Text."),
        flag("urgent", " and mark it as urgent", "Marks it as urgent."),
    )),
    Function("messages", "create_group", "Make a chat group.", "Make a chat group", (
        text("name", choice("Hiking", "Book club", "Project Delta"), ' named "{}"', "name called", "Name of the group."),
        several("members", (("Anna Berg", "Li Wei"), ("Tom Okafor", "Sofia Reyes", "Max Adler")), " with {}",
                "members who people", "Full names."),
    )),
    Function("food", "book_table", "Reserve a table at a restaurant.", "Reserve a table", (
        text("restaurant", choice("Luigi's", "The Blue Door", "Saffron"), " at {}", "restaurant where", "Its name."),
        amount("people", numbers(2, 4, 6, 9), " for {} people", "people persons guests many", "Number of guests."),
        DATE, TIME,
    )),
    Function("food", "find_recipe", "Find a recipe.", "Find me a recipe", (
        several("ingredients", (("rice", "spinach"), ("lentils", "carrots", "onions"), ("pasta", "tuna")), " with {}",
                "ingredients what", "What must be in it."),
        one_of("diet", choice("any", "vegan", "vegetarian", "gluten-free"), " that is {}", "diet", "any"),
    )),
    Function("home", "set_thermostat", "Set the temperature of a room.", "Set the thermostat", (
        text("room", choice("kitchen", "bedroom", "study"), " of the {}", "room where", "The room."),
        amount("degrees", numbers(18, 19.5, 21, 23), " to {} degrees", "degrees temperature warm", "Celsius.", "number"),
    )),
    Function("home", "play_music", "Play music in a room.", "Play", (
        text("artist", choice("Nina Simone", "Radiohead", "Fela Kuti"), " {}", "artist music who what", "Artist."),
        text("room", choice("kitchen", "bedroom", "study"), " in the {}", "room where", "The room."),
        flag("shuffle", " in random order", "In random order."),
    )),
)  # fmt: skip

UNSEEN: tuple[Function, ...] = (
    Function("health", "log_meal", "Write a meal into the food diary.", "Write down that I ate", (
        text("meal", choice("a bowl of oatmeal", "two slices of pizza", "a Greek salad"), " {}", "meal what", "What it was."),
        amount("calories", numbers(320, 540, 760), " with {} calories", "calories much many", "Calories."),
        DATE,
    )),
    Function("health", "book_appointment", "Make an appointment with a doctor.", "Make an appointment", (
        text("doctor", choice("Dr. Haas", "Dr. Imani", "Dr. Olsen"), " with {}", "doctor who whom", "Name of the doctor."),
        DATE, TIME,
        flag("video", " as a video call", "By video."),
    )),
    Function("library", "reserve_book", "Reserve a book at a branch of the library.", "Reserve the book", (
        text("title", choice("Middlemarch", "The Leopard", "Solaris"), ' "{}"', "title book", "Title of the book."),
        one_of("branch", choice("north", "central", "harbour"), " at the {} branch", "branch where"),
    )),
    Function("library", "renew_loans", "Renew all loans of a card.", "Renew all loans", (
        text("card", choice("L-20417", "L-55310", "L-90066"), " of card {}", "card number", "Number of the card."),
        Parameter(
            "weeks", {"type": "integer", "description": "By how many weeks.", "default": 2}, numbers(1, 3, 4),
            " by {} weeks", ("weeks", "long"), True, 2,
        ),
    )),
    Function("parcels", "track_parcel", "Where a parcel is.", "Find out where my parcel is", (
        text("number", choice("PX-7781", "PX-1209", "QR-4455"), " with the number {}", "number parcel tracking", "Its number."),
    )),
    Function("parcels", "quote_shipping", "Price of sending a parcel.", "Ask what it costs to send a parcel", (
        amount("kilograms", numbers(0.5, 2, 7.5, 20), " of {} kilograms", "weigh weight kilograms heavy", "Weight.", "number"),
        text("destination", CITIES, " to {}", "destination where city", "Name of the city."),
        one_of("service", choice("standard", "express", "overnight"), " by {} service", "service", "standard"),
    )),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Chain:
    """A function that finds things, and one that takes one of them: the gold call depends on the result of the first.

    ``takes`` says what the customer asks for and which of the things is meant, by its smallest ``by``.
    """

    finds: Function
    takes: Function
    thing: str
    by: str
    asked: str

    def things(self, dice: Dice) -> list[JsonObject]:
        """What the first function finds: three things with ids and different values of ``by``."""
        values = dice.shuffled(range(20, 200))[:3]
        return [{self.thing: f"{self.thing[0].upper()}{dice.between(1000, 9999)}", self.by: value} for value in values]


def _taken(name: str, about: str) -> Parameter:
    return text(name, (), "", "which", about)


CHAINS: dict[str, tuple[Chain, ...]] = {
    "train": (
        Chain(
            Function("travel", "find_hotels", "Hotels of a city for a night.", "Show me hotels", (CITY, DATE)),
            Function("travel", "book_hotel", "Book a room.", "", (_taken("hotel", "Id of the hotel."),)),
            "hotel", "price", "Book the cheapest one.",
        ),
        Chain(
            Function("trains", "list_trains", "Trains between two cities on a day.", "List the trains", (
                text("origin", CITIES[:5], " from {}", "from origin", "City."),
                text("destination", CITIES[5:], " to {}", "to destination", "City."), DATE,
            )),
            Function("trains", "reserve_seat", "Reserve a seat.", "", (_taken("train", "Id of the train."),)),
            "train", "minutes", "Reserve a seat on the fastest of them.",
        ),
    ),
    "valid": (
        Chain(
            Function("films", "find_screenings", "Screenings of a film in a city.", "Find screenings", (
                text("film", choice("Metropolis", "Ran", "Stalker"), " of {}", "film movie", "Title."), CITY,
            )),
            Function("films", "buy_ticket", "Buy a ticket.", "", (_taken("screening", "Id of the screening."),)),
            "screening", "price", "Buy a ticket for the cheapest one.",
        ),
    ),
}  # fmt: skip
