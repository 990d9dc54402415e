"""Conditions of questions: a piece of SQL and the words for it, drawn from what a table's columns declare."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from turnwise_envs.dates import MONTHS
from turnwise_envs.dice import Dice
from turnwise_envs.sql.schema import Column, Contact, Day, Flag, Number, Pick, Ref, Table


class Condition(NamedTuple):
    """``orders.status = 'open'`` and "with status open"; ``column`` is the one that it looks at."""

    sql: str
    words: str
    column: str


def conditions(table: Table, dice: Dice, count: int, *, without: Collection[str] = ()) -> list[Condition] | None:
    """``count`` conditions on different columns, none on those ``without``; None if the table has too few."""
    usable = [
        column
        for column in table.columns
        if column.name not in without and (isinstance(column, Pick | Flag | Number | Day) or column.null)
    ]
    if len(usable) < count:
        return None
    return [condition(table, column, dice) for column in dice.shuffled(usable)[:count]]


def condition(table: Table, column: Column, dice: Dice) -> Condition:
    """One condition on ``column``."""
    name = f"{table.name}.{column.name}"
    if column.null and (isinstance(column, Contact | Ref) or dice.chance(0.15)):
        if dice.chance(0.5):
            return Condition(f"{name} IS NULL", f"without a recorded {what(column)}", column.name)
        return Condition(f"{name} IS NOT NULL", f"with a recorded {what(column)}", column.name)
    if isinstance(column, Pick):
        stored = dice.pick(list(column.values))
        return equals(table, column, stored)
    if isinstance(column, Flag):
        yes = dice.chance(0.6)
        return Condition(f"{name} = {int(yes)}", column.such if yes else column.unless, column.name)
    if isinstance(column, Number):
        return _compared(name, column, dice)
    assert isinstance(column, Day)
    return _dated(name, column, dice)


def equals(table: Table, column: Pick, stored: str) -> Condition:
    """The rows with one value of a Pick."""
    shown = column.values[stored] if isinstance(column.values, Mapping) else stored
    words = column.such.format(shown) if column.such else f"whose {column.words} is {shown}"
    return Condition(f"{table.name}.{column.name} = '{stored}'", words, column.name)


def what(column: Column) -> str:
    """What a column holds, in words; of a reference, what the other row is."""
    return column.role if isinstance(column, Ref) else column.words


def joined(found: list[Condition]) -> tuple[str, str]:
    """All of the conditions: as SQL, and as words that follow a plural ("orders with status open and ...")."""
    return " AND ".join(one.sql for one in found), " and ".join(one.words for one in found)


def _compared(name: str, column: Number, dice: Dice) -> Condition:
    span = column.high - column.low
    share = (8, 12, 20, 30, 40, 55)[dice.below(6)]
    bound = column.low + max(1, span * share // 100)
    if span >= 1000:
        bound -= bound % (100 if span >= 10_000 else 10)
    above = dice.chance(0.5)
    return Condition(
        f"{name} {'>' if above else '<'} {bound}",
        f"whose {column.words} is {'above' if above else 'below'} {bound}",
        column.name,
    )


def _dated(name: str, column: Day, dice: Dice) -> Condition:
    first, last = column.years
    year = dice.between(first + (last > first), last)
    month = dice.between(1, 12)
    if column.after:
        year = max(year, last - 2)
    kind = dice.below(3)
    if kind == 0:
        return Condition(f"strftime('%Y', {name}) = '{year}'", f"whose {column.words} is in {year}", column.name)
    if kind == 1:
        day = f"{year}-{month:02d}-01"
        return Condition(f"{name} >= '{day}'", f"whose {column.words} is on or after {day}", column.name)
    return Condition(
        f"strftime('%m', {name}) = '{month:02d}'",
        f"whose {column.words} is in {MONTHS[month - 1]} of any year",
        column.name,
    )
