"""An airline: airports, aircraft, flights between them and who is booked on them."""

from __future__ import annotations

from turnwise_envs.sql.domains.words import CITIES, COUNTRIES, PERSON
from turnwise_envs.sql.schema import Contact, Day, Domain, Flag, Id, Label, Number, Pick, Ref, Table

AIRLINE = Domain(
    "airline",
    "An airline with its flights and bookings.",
    (
        Table(
            "airports",
            "airport",
            "airports",
            40,
            (
                Id("airport_id"),
                Label("airport_name", "name", parts=(CITIES, ("International", "City", "Regional", "North"))),
                Pick("country", values=COUNTRIES, such="in {}"),
                Number("runways", "number of runways", low=1, high=5, sums=True),
                Number("elevation", low=0, high=1800),
            ),
        ),
        Table(
            "aircraft",
            "aircraft",
            "aircraft",
            30,
            (
                Id("aircraft_id", first=50),
                Label(
                    "registration",
                    parts=(("TW-",), ("ABA", "BEC", "CID", "DOF", "EGA", "FUH", "GIJ", "HOK", "JAL", "KEM")),
                ),
                Pick("model", values=("A320", "B737", "E190", "A220", "ATR72"), such="of the model {}"),
                Number("seats", "number of seats", low=60, high=220, sums=True),
                Day("delivered_on", "delivery date", years=(2003, 2022), null=0.08),
            ),
        ),
        Table(
            "flights",
            "flight",
            "flights",
            1100,
            (
                Id("flight_id", first=100),
                Ref("origin_id", table="airports", role="airport of departure", children="departing flights"),
                Ref("dest_id", table="airports", role="airport of arrival", children="arriving flights"),
                Ref("aircraft_id", table="aircraft", role="aircraft", null=0.05),
                Day("flight_date", "date", years=(2022, 2024)),
                Number("minutes", "duration in minutes", low=35, high=330, sums=True),
                Number("delay_minutes", "delay in minutes", low=1, high=240, null=0.55, sums=True),
                Pick("status", values=("landed", "cancelled", "diverted", "scheduled"), such="with status {}"),
            ),
        ),
        Table(
            "passengers",
            "passenger",
            "passengers",
            700,
            (
                Id("passenger_id", first=9000),
                Label("passenger_name", "name", parts=PERSON),
                Pick("nationality", values=COUNTRIES, such="from {}"),
                Day("born_on", "date of birth", years=(1940, 2015)),
                Flag(
                    "frequent_flyer",
                    "being a frequent flyer",
                    share=0.2,
                    such="who are frequent flyers",
                    unless="who are not frequent flyers",
                ),
                Contact("email", "e-mail address", null=0.15, pattern="{}@example.org"),
            ),
        ),
        Table(
            "bookings",
            "booking",
            "bookings",
            3200,
            (
                Id("booking_id"),
                Ref("flight_id", table="flights", role="flight"),
                Ref("passenger_id", table="passengers", role="passenger"),
                Pick("cabin", values={"Y": "economy", "W": "premium", "C": "business"}, such="in {} class"),
                Number("fare", low=29, high=1500, decimals=2, sums=True),
                Number("bags", "number of bags", low=0, high=4, sums=True),
                Flag(
                    "refunded", "being refunded", share=0.07, such="that were refunded", unless="that were not refunded"
                ),
            ),
        ),
    ),
)
