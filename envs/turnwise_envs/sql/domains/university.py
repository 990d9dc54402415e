"""A university: departments, their people, courses and who takes them."""

from __future__ import annotations

from turnwise_envs.sql.domains.words import COUNTRIES, PERSON
from turnwise_envs.sql.schema import Contact, Day, Domain, Flag, Id, Label, Number, Pick, Ref, Table

_SUBJECTS = (
    ("Introduction to", "Advanced", "Topics in", "History of", "Seminar in", "Methods of"),
    (
        "Algebra",
        "Genetics",
        "Optics",
        "Ethics",
        "Logic",
        "Statistics",
        "Poetry",
        "Robotics",
        "Trade",
        "Acoustics",
        "Soils",
    ),
)

UNIVERSITY = Domain(
    "university",
    "A university with its departments, courses and students.",
    (
        Table(
            "departments",
            "department",
            "departments",
            14,
            (
                Id("dept_id", first=10),
                Label(
                    "dept_name",
                    "name",
                    parts=(
                        ("Applied", "General", "Computational", "Comparative"),
                        ("Physics", "Biology", "Law", "Letters", "Economics", "Music"),
                    ),
                ),
                Pick("campus", values=("Main", "Harbour", "Hill"), such="on the {} campus"),
                Number("budget", low=90_000, high=2_000_000, sums=True),
            ),
        ),
        Table(
            "instructors",
            "instructor",
            "instructors",
            110,
            (
                Id("instructor_id"),
                Label("name", parts=PERSON),
                Ref("dept_id", table="departments", role="department"),
                Pick(
                    "title",
                    values={
                        "LEC": "lecturer",
                        "AST": "assistant professor",
                        "ASC": "associate professor",
                        "PRO": "full professor",
                    },
                    such="with the title of {}",
                ),
                Number("salary", low=38_000, high=140_000),
                Day("hired_on", "hiring date", years=(1998, 2023)),
                Contact("office", null=0.2, pattern="Room {}"),
            ),
        ),
        Table(
            "courses",
            "course",
            "courses",
            60,
            (
                Id("course_id", first=200),
                Label("title", parts=_SUBJECTS),
                Ref("dept_id", table="departments", role="department"),
                Number("credits", "number of credits", low=2, high=12),
                Pick("level", values={"U": "undergraduate", "G": "graduate"}, such="at the {} level"),
            ),
        ),
        Table(
            "sections",
            "section",
            "sections",
            300,
            (
                Id("section_id"),
                Ref("course_id", table="courses", role="course"),
                Ref("instructor_id", table="instructors", role="instructor", null=0.06),
                Pick("term", values=("Fall", "Spring", "Summer"), such="in the {} term"),
                Number("year", low=2019, high=2024),
                Number("capacity", low=10, high=200, sums=True),
            ),
        ),
        Table(
            "students",
            "student",
            "students",
            650,
            (
                Id("student_id", first=7000),
                Label("name", parts=PERSON),
                Ref("major_id", table="departments", role="major department", children="majoring students", null=0.09),
                Pick("country", values=COUNTRIES, such="from {}"),
                Day("enrolled_on", "enrolment date", years=(2017, 2024)),
                Number("points", "number of credit points", low=0, high=240, sums=True),
                Flag(
                    "scholarship",
                    "having a scholarship",
                    share=0.22,
                    such="with a scholarship",
                    unless="without a scholarship",
                ),
                Contact("phone", "phone number", null=0.3, pattern="+00 {}"),
            ),
        ),
        Table(
            "enrollments",
            "enrolment",
            "enrolments",
            2800,
            (
                Id("enrollment_id"),
                Ref("student_id", table="students", role="student"),
                Ref("section_id", table="sections", role="section"),
                Number("grade", low=40, high=100, null=0.13),
                Flag("audited", share=0.08, such="that are audited", unless="that are not audited"),
            ),
        ),
    ),
)
