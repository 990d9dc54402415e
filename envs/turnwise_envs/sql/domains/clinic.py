"""A clinic: doctors see patients, diagnose and prescribe."""

from __future__ import annotations

from turnwise_envs.sql.domains.words import CITIES, PERSON
from turnwise_envs.sql.schema import Contact, Day, Domain, Flag, Id, Label, Number, Pick, Ref, Table

CLINIC = Domain(
    "clinic",
    "A clinic with several wards.",
    (
        Table(
            "wards",
            "ward",
            "wards",
            9,
            (
                Id("ward_no"),
                Label(
                    "ward_name",
                    "name",
                    parts=(("East", "West", "North"), ("Cardiology", "Surgery", "Paediatrics", "Neurology")),
                ),
                Number("beds", "number of beds", low=8, high=60, sums=True),
                Number("floor", low=0, high=6),
            ),
        ),
        Table(
            "doctors",
            "doctor",
            "doctors",
            70,
            (
                Id("doctor_id", first=300),
                Label("doctor_name", "name", parts=PERSON),
                Ref("ward_no", table="wards", role="ward", null=0.1),
                Pick("grade", values={"J": "junior", "S": "senior", "C": "chief"}, such="of {} grade"),
                Number("experience", "years of experience", low=0, high=38),
                Flag("on_call", "being on call", share=0.3, such="who are on call", unless="who are not on call"),
            ),
        ),
        Table(
            "patients",
            "patient",
            "patients",
            800,
            (
                Id("patient_id", first=10_000),
                Label("patient_name", "name", parts=PERSON),
                Pick("sex", values={"F": "female", "M": "male"}, such="who are {}"),
                Day("born_on", "date of birth", years=(1932, 2021)),
                Pick("blood_type", "blood type", values=("O", "A", "B", "AB"), such="with blood type {}", null=0.08),
                Pick("city", values=CITIES, such="who live in {}"),
                Contact("phone", "phone number", null=0.25, pattern="0{}"),
            ),
        ),
        Table(
            "visits",
            "visit",
            "visits",
            2600,
            (
                Id("visit_id"),
                Ref("patient_id", table="patients", role="patient"),
                Ref("doctor_id", table="doctors", role="doctor"),
                Day("visited_on", "date", years=(2020, 2024)),
                Pick(
                    "reason",
                    values=("check-up", "pain", "injury", "infection", "vaccination", "follow-up"),
                    such="because of {}",
                ),
                Number("cost", low=20, high=900, decimals=2, sums=True),
                Flag("insured", "being insured", share=0.8, such="that are insured", unless="that are not insured"),
            ),
        ),
        Table(
            "drugs",
            "drug",
            "drugs",
            45,
            (
                Id("drug_id"),
                Label(
                    "drug_name",
                    "name",
                    parts=(
                        ("Ami", "Beta", "Cori", "Doxa", "Fena", "Lora", "Meto"),
                        ("lol", "pril", "zepam", "mycin", "statin", "caine", "fen"),
                    ),
                ),
                Pick("form", values=("tablet", "syrup", "injection", "ointment"), such="in the form {}"),
                Number("unit_cost", "unit cost", low=1, high=90, decimals=2),
                Flag("generic", "being generic", share=0.6, such="that are generic", unless="that are not generic"),
            ),
        ),
        Table(
            "prescriptions",
            "prescription",
            "prescriptions",
            2200,
            (
                Id("rx_id"),
                Ref("visit_id", table="visits", role="visit"),
                Ref("drug_id", table="drugs", role="drug"),
                Number("days", "number of days", low=1, high=60, sums=True),
                Number("units_per_day", "number of units a day", low=1, high=6, null=0.1),
            ),
        ),
    ),
)
