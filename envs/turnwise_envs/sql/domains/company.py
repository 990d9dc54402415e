"""A company: employees, whom they report to, and the projects they put hours into."""

from __future__ import annotations

from turnwise_envs.sql.domains.words import CITIES, PERSON
from turnwise_envs.sql.schema import Contact, Day, Domain, Flag, Id, Label, Number, Pick, Ref, Table

COMPANY = Domain(
    "company",
    "A company that works on projects for clients.",
    (
        Table(
            "offices",
            "office",
            "offices",
            10,
            (
                Id("office_id"),
                Label(
                    "office_name",
                    "name",
                    parts=(("Central", "Garden", "Bridge", "Station"), ("House", "Tower", "Court")),
                ),
                Pick("city", values=CITIES[:8], such="in {}"),
                Number("desks", "number of desks", low=12, high=160, sums=True),
            ),
        ),
        Table(
            "employees",
            "employee",
            "employees",
            380,
            (
                Id("emp_id", first=100),
                Label("emp_name", "name", parts=PERSON),
                Ref("office_id", table="offices", role="office", null=0.07),
                Ref("manager_id", table="employees", role="manager", children="direct reports", null=0.1),
                Pick("job", values=("developer", "analyst", "designer", "tester", "consultant"), such="who work as {}"),
                Number("salary", low=28_000, high=150_000),
                Number("bonus", low=500, high=20_000, null=0.45, sums=True),
                Day("hired_on", "hiring date", years=(2008, 2024)),
                Flag("remote", "being remote", share=0.35, such="who work remotely", unless="who do not work remotely"),
            ),
        ),
        Table(
            "clients",
            "client",
            "clients",
            60,
            (
                Id("client_id"),
                Label(
                    "client_name",
                    "name",
                    parts=(
                        ("Nova", "Terra", "Luma", "Orion", "Delta", "Aqua", "Ferro"),
                        ("Bank", "Foods", "Rail", "Media", "Energy", "Health", "Labs"),
                    ),
                ),
                Pick(
                    "sector", values={"PUB": "public", "PRV": "private", "NGO": "non-profit"}, such="of the {} sector"
                ),
                Contact("contact_mail", "contact address", null=0.2, pattern="office@{}.example"),
            ),
        ),
        Table(
            "projects",
            "project",
            "projects",
            170,
            (
                Id("project_id", first=1),
                Label(
                    "title",
                    parts=(
                        ("Project",),
                        (
                            "Falcon",
                            "Maple",
                            "Comet",
                            "Harbor",
                            "Quartz",
                            "Willow",
                            "Ember",
                            "Saffron",
                            "Tundra",
                            "Onyx",
                        ),
                    ),
                ),
                Ref("client_id", table="clients", role="client"),
                Ref("lead_id", table="employees", role="lead", children="led projects", null=0.05),
                Pick("status", values=("active", "finished", "on hold", "cancelled"), such="with status {}"),
                Day("started_on", "start date", years=(2016, 2024)),
                Day("ended_on", "end date", after="started_on", within=700, null=0.4),
                Number("budget", low=5_000, high=800_000, sums=True),
            ),
        ),
        Table(
            "timesheets",
            "timesheet",
            "timesheets",
            3600,
            (
                Id("sheet_id"),
                Ref("emp_id", table="employees", role="employee"),
                Ref("project_id", table="projects", role="project"),
                Day("week_of", "week", years=(2021, 2024)),
                Number("hours", "number of hours", low=1, high=50, decimals=1, sums=True),
                Flag("billable", "being billable", share=0.7, such="that are billable", unless="that are not billable"),
            ),
        ),
    ),
)
