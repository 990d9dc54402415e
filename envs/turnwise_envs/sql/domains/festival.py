"""A music festival: bands, stages, concerts, visitors and their tickets."""

from __future__ import annotations

from turnwise_envs.sql.domains.words import COUNTRIES, PERSON
from turnwise_envs.sql.schema import Contact, Day, Domain, Flag, Id, Label, Number, Pick, Ref, Table

FESTIVAL = Domain(
    "festival",
    "A festival that takes place each summer.",
    (
        Table(
            "stages",
            "stage",
            "stages",
            9,
            (
                Id("stage_id"),
                Label("stage_name", "name", parts=(("Sun", "Moon", "Forest", "Lake"), ("Stage", "Tent", "Arena"))),
                Number("capacity", low=200, high=20_000, sums=True),
                Flag("covered", "being covered", share=0.5, such="that are covered", unless="that are not covered"),
            ),
        ),
        Table(
            "bands",
            "band",
            "bands",
            130,
            (
                Id("band_id", first=10),
                Label(
                    "band_name",
                    "name",
                    parts=(
                        ("Velvet", "Electric", "Broken", "Hidden", "Crimson", "Tiny", "Polar"),
                        ("Foxes", "Engines", "Lanterns", "Choir", "Waves", "Pilots", "Giants", "Owls"),
                    ),
                ),
                Pick("genre", values=("rock", "jazz", "folk", "electronic", "hip hop"), such="that play {}"),
                Pick("country", values=COUNTRIES, such="from {}"),
                Number("founded", "founding year", low=1975, high=2022, null=0.08),
            ),
        ),
        Table(
            "musicians",
            "musician",
            "musicians",
            460,
            (
                Id("musician_id"),
                Label("name", parts=PERSON),
                Ref("band_id", table="bands", role="band", null=0.04),
                Pick("instrument", values=("guitar", "vocals", "drums", "bass", "keys", "violin"), such="who play {}"),
                Number("age", low=18, high=70, null=0.1),
            ),
        ),
        Table(
            "concerts",
            "concert",
            "concerts",
            520,
            (
                Id("concert_id", first=1000),
                Ref("band_id", table="bands", role="band"),
                Ref("stage_id", table="stages", role="stage", null=0.03),
                Day("played_on", "date", years=(2016, 2024)),
                Number("audience", "audience", low=80, high=18_000, sums=True),
                Number("fee", low=300, high=60_000, null=0.12, sums=True),
                Flag("encore", "having an encore", share=0.45, such="with an encore", unless="without an encore"),
            ),
        ),
        Table(
            "visitors",
            "visitor",
            "visitors",
            600,
            (
                Id("visitor_id", first=30_000),
                Label("visitor_name", "name", parts=PERSON),
                Pick("home_country", "home country", values=COUNTRIES, such="from {}"),
                Day("born_on", "date of birth", years=(1950, 2008)),
                Contact("phone", "phone number", null=0.4, pattern="+99 {}"),
            ),
        ),
        Table(
            "tickets",
            "ticket",
            "tickets",
            2900,
            (
                Id("ticket_no"),
                Ref("concert_id", table="concerts", role="concert"),
                Ref("visitor_id", table="visitors", role="visitor"),
                Pick("kind", values={"S": "standard", "V": "VIP", "R": "reduced"}, such="of the {} kind"),
                Number("price", low=15, high=260, decimals=2, sums=True),
                Flag("scanned", "being scanned", share=0.85, such="that were scanned", unless="that were not scanned"),
            ),
        ),
    ),
)
