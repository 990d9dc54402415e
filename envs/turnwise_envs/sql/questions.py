"""Questions about a domain with their gold SQL: families of them, from a count to window functions and changes.

A family is a function of an :class:`Ask` (a domain and dice) that gives a :class:`Draft`, or raises :class:`NothingFits`.
Values come from what columns declare, never from the rows of one database, so that a question can be asked of every
database of its domain. Each question says what to give, in which order and how ties are broken: two people who
understand it write queries with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from turnwise_envs.dice import Dice
from turnwise_envs.sql.conditions import Condition, condition, conditions, joined, what
from turnwise_envs.sql.schema import Column, Day, Domain, Flag, Label, Number, Pick, Ref, Table

T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """A question and its gold SQL. ``writes`` names the table that it changes; queries have none."""

    family: str
    question: str
    sql: str
    writes: str | None = None


class NothingFits(Exception):
    """The domain, or what was drawn of it, does not suit the family."""


@dataclass(frozen=True)
class Link:
    """A reference from ``child`` to ``parent``, two different tables."""

    child: Table
    ref: Ref
    parent: Table

    @property
    def children(self) -> str:
        return self.ref.children or self.child.many

    def having(self, found: list[Condition]) -> str:
        """The children that meet the conditions, as what a parent has."""
        return f"{self.children} {joined(found)[1]}" if found else self.children

    @property
    def on(self) -> str:
        return f"{self.child.name}.{self.ref.name} = {self.parent.name}.{self.parent.key}"


class Ask:
    """Draws tables, links and conditions of ``domain`` with ``dice``. Raises NothingFits where there are none."""

    def __init__(self, domain: Domain, dice: Dice) -> None:
        self.domain, self.dice = domain, dice
        self.links = [
            Link(table, ref, domain.table(ref.table))
            for table in domain.tables
            for ref in table.of(Ref)
            if ref.table != table.name
        ]

    def pick(self, items: Sequence[T]) -> T:
        if not items:
            raise NothingFits
        return self.dice.pick(items)

    def table(self, *kinds: type[Column]) -> Table:
        """A table with columns of all these kinds."""
        return self.pick([table for table in self.domain.tables if all(table.of(kind) for kind in kinds)])

    def link(self, fits: Callable[[Link], object]) -> Link:
        return self.pick([link for link in self.links if fits(link)])

    def conditions(self, table: Table, most: int, without: set[str] | None = None, least: int = 0) -> list[Condition]:
        """``least`` to ``most`` conditions on the table, as many as it has."""
        found = conditions(table, self.dice, self.dice.between(least, most), without=without or ())
        return found or []


def of(table: Table, found: list[Condition]) -> str:
    """``orders with status open`` : the table's rows, restricted."""
    return f"{table.many} {joined(found)[1]}" if found else table.many


def where(found: list[Condition], *more: str) -> str:
    """`` WHERE ..``, or nothing."""
    parts = [one.sql for one in found] + list(more)
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def known(table: Table, *columns: Column) -> list[str]:
    """That rows have these columns, in SQL, of those that some rows may lack."""
    lacked = [column for column in columns if column.null or (isinstance(column, Day) and column.after)]
    return [f"{table.name}.{column.name} IS NOT NULL" for column in lacked]


def count(ask: Ask) -> Draft:
    table = ask.table()
    found = ask.conditions(table, 2, least=1)
    if not found:
        raise NothingFits
    return Draft("count", f"How many {of(table, found)} are there?", f"SELECT COUNT(*) FROM {table.name}{where(found)}")


def names(ask: Ask) -> Draft:
    table = ask.table(Label)
    found = ask.conditions(table, 2, least=1)
    if not found:
        raise NothingFits
    return Draft(
        "names",
        f"Give the {table.label.words} of each of the {of(table, found)}.",
        f"SELECT {table.name}.{table.label.name} FROM {table.name}{where(found)}",
    )


def aggregate(ask: Ask) -> Draft:
    table = ask.table(Number)
    number = ask.pick(table.of(Number))
    said, function = ask.pick(
        [("average", "AVG"), ("highest", "MAX"), ("lowest", "MIN"), *([("total", "SUM")] if number.sums else [])]
    )
    found = ask.conditions(table, 2, {number.name}, least=1)
    return Draft(
        "aggregate",
        f"What is the {said} {number.words} of the {of(table, found)}?",
        f"SELECT {function}({table.name}.{number.name}) FROM {table.name}{where(found)}",
    )


def top(ask: Ask) -> Draft:
    table = ask.table(Label, Number)
    number, label, high, most = (
        ask.pick(table.of(Number)),
        table.label,
        ask.dice.chance(0.6),
        ask.dice.between(3, 7),
    )
    found = ask.conditions(table, 1, {number.name})
    recorded = known(table, number)
    order = "DESC" if high else "ASC"
    return Draft(
        "top",
        f"Which {most} {of(table, found)} have the {'highest' if high else 'lowest'} {number.words}? Give the "
        f"{label.words} and the {number.words}, the {'highest' if high else 'lowest'} first, equal ones by {label.words}."
        + (f" Leave out those without a recorded {number.words}." if number.null else ""),
        f"SELECT {label.name}, {number.name} FROM {table.name}{where(found, *recorded)} "
        f"ORDER BY {number.name} {order}, {label.name} LIMIT {most}",
    )


def different(ask: Ask) -> Draft:
    table = ask.table(Ref)
    ref = ask.pick(table.of(Ref))
    found = ask.conditions(table, 2, {ref.name}, least=1)
    if not found or ref.table == table.name:
        raise NothingFits
    other = ask.domain.table(ref.table)
    return Draft(
        "different",
        f"How many different {other.many} occur as the {ref.role} of {of(table, found)}?",
        f"SELECT COUNT(DISTINCT {table.name}.{ref.name}) FROM {table.name}{where(found)}",
    )


def percentage(ask: Ask) -> Draft:
    table = ask.table(Flag)
    flag = ask.pick(table.of(Flag))
    found = ask.conditions(table, 2, {flag.name}, least=1)
    return Draft(
        "percentage",
        f"Of all {of(table, found)}, what percentage are {table.many} {flag.such}? Give a number from 0 to 100, not rounded.",
        f"SELECT 100.0 * SUM({table.name}.{flag.name}) / COUNT(*) FROM {table.name}{where(found)}",
    )


def join_count(ask: Ask) -> Draft:
    link = ask.link(lambda link: True)
    above = ask.conditions(link.parent, 1, least=1)
    below = ask.conditions(link.child, 1, {link.ref.name})
    if not above:
        raise NothingFits
    return Draft(
        "join_count",
        f"How many {of(link.child, below)} are there whose {link.ref.role} is one of the {of(link.parent, above)}?",
        f"SELECT COUNT(*) FROM {link.child.name} JOIN {link.parent.name} ON {link.on}{where(below + above)}",
    )


def join_list(ask: Ask) -> Draft:
    link = ask.link(lambda link: link.parent.of(Label) and link.child.of(Label))
    found = ask.conditions(link.child, 2, {link.ref.name}, least=1)
    one, other = link.child.label, link.parent.label
    return Draft(
        "join_list",
        f"For each of the {of(link.child, found)}, give the {one.words} and the {other.words} of the {link.ref.role}."
        + (f" Leave out those without a {link.ref.role}." if link.ref.null else ""),
        f"SELECT {link.child.name}.{one.name}, {link.parent.name}.{other.name} FROM {link.child.name} "
        f"JOIN {link.parent.name} ON {link.on}{where(found)}",
    )


def group_count(ask: Ask) -> Draft:
    table = ask.table(Pick)
    pick = ask.pick(table.of(Pick))
    found = ask.conditions(table, 1, {pick.name})
    recorded = known(table, pick)
    return Draft(
        "group_count",
        f"For each {pick.words}, how many {of(table, found)} are there? Give the {pick.words} as it is stored, and the "
        "number; leave out what has none.",
        f"SELECT {table.name}.{pick.name}, COUNT(*) FROM {table.name}{where(found, *recorded)} GROUP BY {table.name}.{pick.name}",
    )


def group_join(ask: Ask) -> Draft:
    link = ask.link(lambda link: link.parent.of(Label) and any(number.sums for number in link.child.of(Number)))
    number = ask.pick([number for number in link.child.of(Number) if number.sums])
    below, above = ask.conditions(link.child, 1, {number.name, link.ref.name}), ask.conditions(link.parent, 1)
    recorded = known(link.child, number)
    return Draft(
        "group_join",
        f"For each of the {of(link.parent, above)}, what is the total {number.words} of their {link.having(below)}? Give the "
        f"{link.parent.label.words} and the total; leave out {link.parent.many} without any such {link.child.one}"
        + (f" with a recorded {number.words}." if number.null else "."),
        f"SELECT {link.parent.name}.{link.parent.label.name}, SUM({link.child.name}.{number.name}) FROM {link.parent.name} "
        f"JOIN {link.child.name} ON {link.on}{where(below + above, *recorded)} GROUP BY {link.parent.name}.{link.parent.key}",
    )


def having(ask: Ask) -> Draft:
    link = ask.link(lambda link: link.parent.of(Label))
    found, least = ask.conditions(link.child, 1, {link.ref.name}), ask.dice.between(2, 12)
    return Draft(
        "having",
        f"Which {link.parent.many} have at least {least} {link.having(found)}? Give the {link.parent.label.words} and the "
        "number of these.",
        f"SELECT {link.parent.name}.{link.parent.label.name}, COUNT(*) FROM {link.parent.name} JOIN {link.child.name} ON "
        f"{link.on}{where(found)} GROUP BY {link.parent.name}.{link.parent.key} HAVING COUNT(*) >= {least}",
    )


def most(ask: Ask) -> Draft:
    link = ask.link(lambda link: link.parent.of(Label))
    label, below = link.parent.label, ask.conditions(link.child, 1, {link.ref.name})
    above = ask.conditions(link.parent, 1)
    return Draft(
        "most",
        f"Which of the {of(link.parent, above)} has the most {link.having(below)}? Give the "
        f"{label.words} and the number; if several are equal, the first by {label.words}.",
        f"SELECT {link.parent.name}.{label.name}, COUNT(*) FROM {link.parent.name} JOIN {link.child.name} ON {link.on}"
        f"{where(below + above)} GROUP BY {link.parent.name}.{link.parent.key} "
        f"ORDER BY COUNT(*) DESC, {link.parent.name}.{label.name} LIMIT 1",
    )


def per_year(ask: Ask) -> Draft:
    table = ask.table(Day)
    day = ask.pick(table.of(Day))
    found = ask.conditions(table, 1, {day.name}, least=1)
    year = f"strftime('%Y', {table.name}.{day.name})"
    recorded = known(table, day)
    return Draft(
        "per_year",
        f"For each year of the {day.words}, how many {of(table, found)} are there? Give the year and the number, in the "
        f"order of the years" + ("; leave out those without the date." if recorded else "."),
        f"SELECT {year}, COUNT(*) FROM {table.name}{where(found, *recorded)} GROUP BY {year} ORDER BY {year}",
    )


def childless(ask: Ask) -> Draft:
    link = ask.link(lambda link: link.parent.of(Label))
    above, below = ask.conditions(link.parent, 1), ask.conditions(link.child, 1, {link.ref.name}, least=1)
    inner = " AND ".join([link.on, *(one.sql for one in below)])
    return Draft(
        "childless",
        f"Which {of(link.parent, above)} have no {link.having(below)}? Give the {link.parent.label.words}.",
        f"SELECT {link.parent.name}.{link.parent.label.name} FROM {link.parent.name}"
        f"{where(above, f'NOT EXISTS (SELECT 1 FROM {link.child.name} WHERE {inner})')}",
    )


def above_average(ask: Ask) -> Draft:
    table = ask.table(Number)
    number = ask.pick(table.of(Number))
    found = ask.conditions(table, 1, {number.name}, least=1)
    return Draft(
        "above_average",
        f"For how many of the {of(table, found)} is the {number.words} above the average {number.words} of all {table.many}?",
        f"SELECT COUNT(*) FROM {table.name}"
        f"{where(found, f'{table.name}.{number.name} > (SELECT AVG({number.name}) FROM {table.name})')}",
    )


def above_peers(ask: Ask) -> Draft:
    table = ask.table(Number, Pick)
    number, pick = ask.pick(table.of(Number)), ask.pick(table.of(Pick))
    found = ask.conditions(table, 1, {number.name, pick.name})
    peers = (
        f"(SELECT AVG(peer.{number.name}) FROM {table.name} AS peer WHERE peer.{pick.name} = {table.name}.{pick.name})"
    )
    return Draft(
        "above_peers",
        f"For how many of the {of(table, found)} is the {number.words} above the average {number.words} of all {table.many} "
        f"with the same {pick.words}?",
        f"SELECT COUNT(*) FROM {table.name}{where(found, f'{table.name}.{number.name} > {peers}')}",
    )


def both(ask: Ask) -> Draft:
    link = ask.link(lambda link: link.parent.of(Label) and any(len(pick.values) > 1 for pick in link.child.of(Pick)))
    pick = ask.pick(link.child.of(Pick))
    first, second = (condition(link.child, pick, ask.dice) for _ in range(2))
    if first.sql == second.sql or "NULL" in first.sql + second.sql:
        raise NothingFits
    some = f"SELECT {link.ref.name} FROM {link.child.name} WHERE"
    key = f"{link.parent.name}.{link.parent.key}"
    return Draft(
        "both",
        f"Which {link.parent.many} have {link.having([first])}, and also {link.having([second])}? Give the "
        f"{link.parent.label.words}.",
        f"SELECT {link.parent.label.name} FROM {link.parent.name} WHERE {key} IN ({some} {first.sql}) "
        f"AND {key} IN ({some} {second.sql})",
    )


def chain(ask: Ask) -> Draft:
    pairs = [
        (lower, upper)
        for lower in ask.links
        for upper in ask.links
        if lower.parent is upper.child and upper.parent.of(Label) and upper.parent is not lower.child
    ]
    lower, upper = ask.pick(pairs)
    below, middle = ask.conditions(lower.child, 1, {lower.ref.name}), ask.conditions(lower.parent, 1, {upper.ref.name})
    label = upper.parent.label
    return Draft(
        "chain",
        f"For each {upper.parent.one}, how many {lower.having(below)} do their {upper.having(middle)} have in total? Give the "
        f"{label.words} and the number; leave out {upper.parent.many} with none.",
        f"SELECT {upper.parent.name}.{label.name}, COUNT(*) FROM {upper.parent.name} JOIN {upper.child.name} ON {upper.on} "
        f"JOIN {lower.child.name} ON {lower.on}{where(below + middle)} GROUP BY {upper.parent.name}.{upper.parent.key}",
    )


def only(ask: Ask) -> Draft:
    link = ask.link(lambda link: link.parent.of(Label) and link.child.of(Flag))
    flag, yes = ask.pick(link.child.of(Flag)), ask.dice.chance(0.5)
    return Draft(
        "only",
        f"Which {link.parent.many} have at least two {link.children}, and only {link.children} "
        f"{flag.such if yes else flag.unless}? Give the {link.parent.label.words} and the number of these.",
        f"SELECT {link.parent.name}.{link.parent.label.name}, COUNT(*) FROM {link.parent.name} JOIN {link.child.name} ON "
        f"{link.on} GROUP BY {link.parent.name}.{link.parent.key} HAVING COUNT(*) >= 2 AND "
        f"{'MIN' if yes else 'MAX'}({link.child.name}.{flag.name}) = {int(yes)}",
    )


def role_count(ask: Ask) -> Draft:
    """A row against the one that it refers to, in the same table (employees and their managers)."""
    own = [(t, ref) for t in ask.domain.tables for ref in t.of(Ref) if ref.table == t.name]
    table, ref = ask.pick(own)
    column = ask.pick([*table.of(Number), *table.of(Day)])
    found = ask.conditions(table, 1, {ref.name, column.name}, least=1)
    return Draft(
        "self_join",
        f"How many {of(table, found)} have a {'higher' if isinstance(column, Number) else 'later'} {what(column)} than their "
        f"{ref.role}?",
        f"SELECT COUNT(*) FROM {table.name} JOIN {table.name} AS other ON {table.name}.{ref.name} = other.{table.key}"
        f"{where(found, f'{table.name}.{column.name} > other.{column.name}')}",
    )
