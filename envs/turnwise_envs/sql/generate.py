"""Fill a domain's tables with rows: the same domain, pool and number give the same bytes, everywhere.

Only integers, comparisons and products of floats go into the draws, never functions whose last bit differs between
platforms. Values are skewed, as real ones are: a few customers place most of the orders, most amounts are small.
"""

from __future__ import annotations

import datetime
import sqlite3
from typing import Any

from turnwise_envs.dice import Dice
from turnwise_envs.errors import TurnwiseError
from turnwise_envs.sql.sandbox import connect_memory
from turnwise_envs.sql.schema import Column, Contact, Day, Domain, Flag, Id, Label, Number, Pick, Ref, Table

#: The clock of generated databases: the day after the last date in them.
TODAY = "2025-01-01 09:00:00"

_TYPES: dict[str, type] = {"INTEGER": int, "REAL": float, "TEXT": str}
_Row = dict[str, Any]


class MissingExtra(TurnwiseError):
    """A package that this needs is not installed."""


def build(domain: Domain, pool: str, number: int) -> sqlite3.Connection:
    """The database ``number`` of a pool of the domain, in memory. Raises MissingExtra without sqlite-utils."""
    try:
        import sqlite_utils
    except ImportError as error:
        raise MissingExtra("environment 'sql' needs sqlite-utils: pip install 'turnwise[sql]'") from error

    scale = Dice("sql", domain.name, pool, number).between(70, 120) / 100
    filled: dict[str, list[_Row]] = {}
    source = sqlite3.connect(":memory:")
    database = sqlite_utils.Database(source)
    for table in domain.tables:
        dice = Dice("sql", domain.name, pool, number, table.name)
        size = max(6, int(table.rows * scale)) if table.rows > 20 else table.rows
        filled[table.name] = _rows(table, size, dice, filled)
        created = database[table.name].create(
            {column.name: _TYPES[column.sql_type] for column in table.columns},
            pk=table.key,
            not_null={column.name for column in table.columns if not column.null and not isinstance(column, Id)}
            - {column.name for column in table.of(Day) if column.after},
            foreign_keys=[(ref.name, ref.table, domain.table(ref.table).key) for ref in table.of(Ref)],
        )
        created.insert_all(filled[table.name])
    database.index_foreign_keys()
    connection = connect_memory()  # without whatever sqlite-utils has put into its own
    source.backup(connection)
    source.close()
    return connection


def _rows(table: Table, size: int, dice: Dice, filled: dict[str, list[_Row]]) -> list[_Row]:
    rows: list[_Row] = [{} for _ in range(size)]
    for column in table.columns:
        draw = _drawer(column, table, rows, dice, filled)
        for row in rows:
            row[column.name] = None if column.null and dice.chance(column.null) else draw(row)
    return rows


def _drawer(column: Column, table: Table, rows: list[_Row], dice: Dice, filled: dict[str, list[_Row]]) -> Any:
    """A function of the row so far that gives the column's next value."""
    if isinstance(column, Id):
        return _ids(column, dice)
    if isinstance(column, Label):
        return _labels(column, dice)
    if isinstance(column, Pick):
        stored = dice.shuffled(list(column.values))  # another value is the most frequent in each database
        return lambda row: stored[_skewed(len(stored), dice)]
    if isinstance(column, Flag):
        share = column.share * (0.8 + 0.4 * dice.below(11) / 10)
        return lambda row: int(dice.chance(share))
    if isinstance(column, Number):
        return _numbers(column, dice)
    if isinstance(column, Day):
        return _days(column, dice)
    if isinstance(column, Ref):
        if column.table == table.name:  # such as managers: a row above, none for the first
            numbers = {id(row): number for number, row in enumerate(rows)}
            return lambda row: rows[_skewed(numbers[id(row)], dice)][table.key] if row is not rows[0] else None
        key = next(iter(filled[column.table][0]))
        others = [other[key] for other in dice.shuffled(filled[column.table])]
        return lambda row: others[_skewed(len(others), dice)]
    assert isinstance(column, Contact)
    return lambda row: column.pattern.format(dice.between(1_000, 999_999))


def _skewed(bound: int, dice: Dice) -> int:
    """Below ``bound``, low ones more often: half of the draws are in the first quarter."""
    chance = dice.below(1 << 20) / (1 << 20)
    return int(bound * chance * chance)


def _ids(column: Id, dice: Dice) -> Any:
    last = column.first - 1

    def draw(row: _Row) -> int:
        nonlocal last
        last += 1 if not dice.chance(0.08) else dice.between(2, 4)
        return last

    return draw


def _labels(column: Label, dice: Dice) -> Any:
    taken: set[str] = set()

    def draw(row: _Row) -> str:
        words = [dice.pick(part) for part in column.parts]
        label = "".join(words) if words[0].endswith("-") or words[-1].islower() else " ".join(words)
        number = 1
        while (unique := label if number == 1 else f"{label} {number}") in taken:
            number += 1
        taken.add(unique)
        return unique

    return draw


def _numbers(column: Number, dice: Dice) -> Any:
    steps = (column.high - column.low) * 10**column.decimals + 1

    def draw(row: _Row) -> float | int:
        step = _skewed(steps, dice)
        return (
            column.low + step
            if not column.decimals
            else round(column.low + step / 10**column.decimals, column.decimals)
        )

    return draw


def _days(column: Day, dice: Dice) -> Any:
    first = datetime.date(column.years[0], 1, 1).toordinal()
    last = datetime.date(column.years[1], 12, 31).toordinal()

    def draw(row: _Row) -> str | None:
        if not column.after:
            return datetime.date.fromordinal(dice.between(first, last)).isoformat()
        if row[column.after] is None:
            return None
        begun = datetime.date.fromisoformat(row[column.after]).toordinal()
        return datetime.date.fromordinal(begun + 1 + _skewed(column.within, dice)).isoformat()

    return draw
