"""How a domain is declared: tables and columns, with the words that questions use for them.

A domain is plain data. :mod:`.generate` fills it with rows, :mod:`.questions` asks about it. ``such`` is how a question
restricts rows by a column, with ``{}`` for the value: "who live in {}".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

C = TypeVar("C", bound="Column")


@dataclass(frozen=True)
class Column:
    """``noun`` is what people call it ("the unit price"); ``null`` is the share of rows that lack it."""

    name: str
    noun: str = ""
    null: float = 0.0

    @property
    def sql_type(self) -> str:
        return "TEXT"

    @property
    def words(self) -> str:
        return self.noun or self.name.replace("_", " ")


@dataclass(frozen=True)
class Id(Column):
    """The primary key: ascending, with gaps where rows were deleted."""

    first: int = 1

    @property
    def sql_type(self) -> str:
        return "INTEGER"


@dataclass(frozen=True)
class Label(Column):
    """What a row is called, unique in its table: a word of each list, and a number where the words run out."""

    parts: tuple[Sequence[str], ...] = ()


@dataclass(frozen=True)
class Pick(Column):
    """One of a few values, the first the most frequent; a mapping says what people call the stored values."""

    values: Sequence[str] | Mapping[str, str] = ()
    such: str = ""


@dataclass(frozen=True)
class Flag(Column):
    """1 or 0; ``such`` says the rows with 1, ``unless`` those with 0."""

    share: float = 0.5
    such: str = ""
    unless: str = ""

    @property
    def sql_type(self) -> str:
        return "INTEGER"


@dataclass(frozen=True)
class Number(Column):
    """From ``low`` to ``high``, most of it low; with ``decimals`` a REAL."""

    low: int = 0
    high: int = 100
    decimals: int = 0
    #: Adding up is meaningful (amounts), not only averaging (ratings).
    sums: bool = False

    @property
    def sql_type(self) -> str:
        return "REAL" if self.decimals else "INTEGER"


@dataclass(frozen=True)
class Day(Column):
    """An ISO date between two years, both included; ``after`` names a date column that it follows by some days."""

    years: tuple[int, int] = (2019, 2024)
    after: str = ""
    within: int = 30


@dataclass(frozen=True)
class Ref(Column):
    """A foreign key; a few rows get most references. ``role`` is what the other row is to this one ("the seller")."""

    table: str = ""
    role: str = ""
    #: What the referring rows are to the other one ("departing flights"); their table's plural if empty.
    children: str = ""

    @property
    def sql_type(self) -> str:
        return "INTEGER"


@dataclass(frozen=True)
class Contact(Column):
    """An e-mail address, a telephone number, a note: text that nobody groups by, often missing."""

    pattern: str = "{}"


@dataclass(frozen=True)
class Table:
    """``one`` and ``many`` are the words for its rows; ``rows`` about how many there are."""

    name: str
    one: str
    many: str
    rows: int
    columns: tuple[Column, ...]

    def of(self, kind: type[C]) -> list[C]:
        """The columns of one kind."""
        return [column for column in self.columns if isinstance(column, kind)]

    @property
    def key(self) -> str:
        return self.of(Id)[0].name

    @property
    def label(self) -> Label:
        """Only of tables whose rows have a name: the lines of an order have none."""
        return self.of(Label)[0]


@dataclass(frozen=True)
class Domain:
    """A database's schema. Tables come after those that they refer to."""

    name: str
    about: str
    tables: tuple[Table, ...]

    def table(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)
