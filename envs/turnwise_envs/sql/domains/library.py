"""A library: books, copies of them on its branches' shelves, members and loans."""

from __future__ import annotations

from turnwise_envs.sql.domains.words import COUNTRIES, PERSON
from turnwise_envs.sql.schema import Contact, Day, Domain, Flag, Id, Label, Number, Pick, Ref, Table

LIBRARY = Domain(
    "library",
    "A public library with several branches.",
    (
        Table(
            "branches",
            "branch",
            "branches",
            8,
            (
                Id("branch_id"),
                Label("branch_name", "name", parts=(("Market", "Park", "Canal", "Mill"), ("Street", "Square", "Lane"))),
                Number("opened", "opening year", low=1890, high=2015),
                Number("shelves", "number of shelves", low=40, high=600, sums=True),
            ),
        ),
        Table(
            "authors",
            "author",
            "authors",
            120,
            (
                Id("author_id", first=500),
                Label("pen_name", "name", parts=PERSON),
                Pick("country", values=COUNTRIES, such="from {}", null=0.06),
                Number("born", "year of birth", low=1850, high=1995, null=0.1),
            ),
        ),
        Table(
            "books",
            "book",
            "books",
            320,
            (
                Id("book_id"),
                Label(
                    "title",
                    parts=(
                        ("The", "A", "Beyond the", "Under the", "Letters from the"),
                        ("Silent", "Golden", "Lost", "Paper", "Winter", "Second"),
                        ("Garden", "River", "Machine", "Island", "Orchard", "Voyage", "Window", "Harbour"),
                    ),
                ),
                Ref("author_id", table="authors", role="author"),
                Pick(
                    "genre",
                    values=("novel", "crime", "poetry", "travel", "science", "children"),
                    such="of the genre {}",
                ),
                Number("pages", "number of pages", low=48, high=900, sums=True),
                Number("published", "year of publication", low=1920, high=2024),
            ),
        ),
        Table(
            "copies",
            "copy",
            "copies",
            900,
            (
                Id("copy_id", first=20_000),
                Ref("book_id", table="books", role="book"),
                Ref("branch_id", table="branches", role="branch"),
                Pick("state", values={"G": "good", "W": "worn", "D": "damaged"}, such="in {} condition"),
                Number("price", low=5, high=80, decimals=2, sums=True, null=0.07),
            ),
        ),
        Table(
            "members",
            "member",
            "members",
            500,
            (
                Id("card_no", first=4000),
                Label("full_name", "name", parts=PERSON),
                Ref("home_branch", table="branches", role="home branch", children="members"),
                Pick("kind", values={"A": "adult", "J": "junior", "S": "senior"}, such="with {} cards"),
                Day("joined_on", "joining date", years=(2010, 2024)),
                Flag("blocked", "being blocked", share=0.08, such="who are blocked", unless="who are not blocked"),
                Contact("email", "e-mail address", null=0.3, pattern="{}@example.net"),
            ),
        ),
        Table(
            "loans",
            "loan",
            "loans",
            3000,
            (
                Id("loan_id"),
                Ref("copy_id", table="copies", role="copy"),
                Ref("card_no", table="members", role="member"),
                Day("lent_on", "date of lending", years=(2021, 2024)),
                Day("returned_on", "date of return", after="lent_on", within=60, null=0.12),
                Number("fine", low=1, high=25, decimals=2, null=0.75, sums=True),
                Number("renewals", "number of renewals", low=0, high=5, sums=True),
            ),
        ),
    ),
)
