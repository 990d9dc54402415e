"""Results and schemas as text for the policy."""

from __future__ import annotations

from typing import Any

from turnwise_envs.sql.functions import Value
from turnwise_envs.sql.sandbox import Ending, Outcome, Sandbox, quoted

#: Longest value and longest whole answer, in characters.
_LONGEST_VALUE = 120
_LONGEST_ANSWER = 6_000
#: A text column with so few values is shown with all of them.
_FEW = 12


def show(outcome: Outcome, most: int) -> str:
    """An outcome as the policy reads it, with at most ``most`` rows."""
    if outcome.ending not in (Ending.OK, Ending.TOO_LARGE):
        return f"Error: {outcome.message}"
    if outcome.changed is not None:
        return f"{_rows(outcome.changed)} changed, in your private copy of the database."
    if not outcome.columns:
        return f"Error: {outcome.message}" if outcome.message else "The statement gave nothing."
    lines = [" | ".join(map(_clip, outcome.columns))]
    lines += [" | ".join(map(literal, row)) for row in outcome.rows[:most]]
    if not outcome.ok:
        lines.append(f"({outcome.message} The first {min(most, len(outcome.rows))} are shown.)")
    elif len(outcome.rows) > most:
        lines.append(f"({_rows(len(outcome.rows))}; the first {most} are shown)")
    else:
        lines.append(f"({_rows(len(outcome.rows))})")
    text = "\n".join(lines)
    return text if len(text) <= _LONGEST_ANSWER else f"{text[:_LONGEST_ANSWER]}\n(cut off here)"


def literal(value: Value) -> str:
    """A value as it would stand in SQL, shortened if it is long."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return _clip(f"x'{value[:_LONGEST_VALUE].hex()}'")
    if isinstance(value, str):
        return _clip("'" + value[: 2 * _LONGEST_VALUE].replace("'", "''") + "'")
    return repr(value)


def list_tables(database: Sandbox) -> str:
    """One line a table: its name and number of rows."""
    return "\n".join(f"{table} ({_rows(_size(database, table))})" for table in database.tables)


def describe(database: Sandbox, table: str, notes: tuple[tuple[str, str], ...]) -> str:
    """A table's columns: type, key, what they refer to, and what stands in them; ``notes`` by column in lower case."""
    known = dict(notes)
    refers = {
        row[3]: f"refers to {row[2]}.{row[4] or 'its key'}" for row in _facts(database, "foreign_key_list", table)
    }
    lines = [f"{table} ({_rows(_size(database, table))})"]
    for _, name, kind, not_null, _, key in _facts(database, "table_info", table):
        facts = [str(kind) or "no type"]
        if key:
            facts.append("primary key")
        elif not not_null:
            facts.append("may be NULL")
        facts += [refers[name]] if name in refers else []
        note = known.get(str(name).lower())
        facts += [f"[{note}]"] if note else []
        lines.append(f"  {name}: {', '.join(facts)}; {_content(database, table, str(name), str(kind))}")
    return "\n".join(lines)


def schema(database: Sandbox) -> str:
    """The CREATE TABLE statements."""
    found = database.run("SELECT sql FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'")
    return "\n".join(f"{statement!s};" for (statement,) in found.rows)


def _content(database: Sandbox, table: str, column: str, kind: str) -> str:
    name, of = quoted(column), quoted(table)
    found = database.run(f"SELECT DISTINCT {name} FROM {of} WHERE {name} IS NOT NULL LIMIT {_FEW + 1}").rows
    values = [literal(value) for (value,) in found]
    if not values:
        return "no values"
    if len(values) <= _FEW and "INT" not in kind.upper():
        return f"values {', '.join(sorted(values))}"
    return f"such as {', '.join(values[:3])}"


def _facts(database: Sandbox, pragma: str, table: str) -> list[tuple[Any, ...]]:
    return database.run(f"PRAGMA {pragma}({quoted(table)})").rows


def _size(database: Sandbox, table: str) -> int:
    rows = database.run(f"SELECT COUNT(*) FROM {quoted(table)}").rows
    return int(str(rows[0][0])) if rows else 0


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _clip(text: str) -> str:
    line = text.replace("\r", "\\r").replace("\n", "\\n")
    return line if len(line) <= _LONGEST_VALUE else f"{line[:_LONGEST_VALUE]}…"
