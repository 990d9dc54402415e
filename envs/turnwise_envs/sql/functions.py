"""SQL functions as the sandbox has them: a closed list, a clock that stands still, and no quadratic ones.

Functions outside of :data:`ALLOWED` are refused by the authorizer. Of the allowed ones

- dates and times read a clock that is fixed a database (``'now'``, ``CURRENT_DATE``) and in UTC, so that a query has one
  answer whenever and wherever it runs;
- ``instr``, ``replace`` and two-argument ``trim`` are replaced, since SQLite's own take time in the product of the
  lengths of their arguments, within one step of its virtual machine, where no deadline can stop them; ``printf`` and
  ``format`` refuse large widths and precisions for the same reason (``%.*c`` with 2,000,000,000 takes seconds).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache, partial

Value = str | int | float | bytes | None

_CLOCK = ("date", "time", "datetime", "julianday", "unixepoch")
_CURRENT = {
    "current_date": "date",
    "current_time": "time",
    "current_timestamp": "datetime",
}
ALLOWED = frozenset({
    "abs", "avg", "ceil", "ceiling", "char", "coalesce", "count", "cume_dist", "dense_rank", "exp",
    "first_value", "floor", "format", "glob", "group_concat", "hex", "ifnull", "iif", "instr", "lag",
    "last_value", "lead", "length", "like", "likelihood", "likely", "ln", "log", "log10", "log2", "lower",
    "ltrim", "max", "min", "mod", "nth_value", "ntile", "nullif", "percent_rank", "pi", "pow", "power",
    "printf", "quote", "rank", "replace", "round", "row_number", "rtrim", "sign", "sqrt", "strftime",
    "string_agg", "substr", "substring", "sum", "total", "trim", "trunc", "typeof", "unicode", "unlikely",
    "upper",
    *_CLOCK, *_CURRENT,
})  # fmt: skip
#: Longest argument of a date function; everything that is a date is shorter.
_LONGEST_DATE = 100
_MOST_DATES = 8192


class TooLarge(ValueError):
    """A function's result would be longer than values may be."""


def install(connection: sqlite3.Connection, today: str, longest: int) -> None:
    """Put the replacements into ``connection``. ``today`` is ``YYYY-MM-DD HH:MM:SS``; ``longest`` in characters."""
    create = partial(connection.create_function, deterministic=True)
    for name in _CLOCK:
        create(name, -1, _clocked(name, today, 0))
    create("strftime", -1, _clocked("strftime", today, 1))
    for name, like in _CURRENT.items():
        create(name, 0, partial(_ask, like, (today,)))
    create("instr", 2, _instr)
    create("replace", 3, partial(_replace, longest))
    for name in ("printf", "format"):
        create(name, -1, partial(_printf, longest))
    create("trim", 2, partial(_trim, True, True))
    create("ltrim", 2, partial(_trim, True, False))
    create("rtrim", 2, partial(_trim, False, True))


def _clocked(name: str, today: str, position: int) -> Callable[..., Value]:
    """``name`` with the fixed clock; the point in time is argument number ``position``."""

    known: dict[tuple[Value, ...], Value] = {}  # a table has few different dates, and asking takes microseconds

    def function(*arguments: Value) -> Value:
        if arguments in known:
            return known[arguments]
        for argument in arguments:
            if isinstance(argument, str | bytes) and len(argument) > _LONGEST_DATE:
                return None  # as for any text that is no date
        if len(known) >= _MOST_DATES:
            known.clear()
        known[arguments] = answer = asked(list(arguments))
        return answer

    def asked(given: list[Value]) -> Value:
        if len(given) == position or (len(given) > position and _word(given[position]).startswith(("now", "subsec"))):
            given[position : position + 1] = [today]
        kept = given[: position + 1] + [each for each in given[position + 1 :] if _word(each) not in _ZONES]
        return _ask(name, tuple(kept))

    return function


_ZONES = ("localtime", "utc")


def _word(value: Value) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _ask(name: str, arguments: tuple[Value, ...]) -> Value:
    """SQLite's own function. Only called with the sandbox's lock held, so one connection serves all."""
    marks = ",".join("?" * len(arguments))
    found: tuple[Value] = _plain().execute(f"SELECT {name}({marks})", arguments).fetchone()
    return found[0]


@lru_cache(maxsize=1)
def _plain() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False)


def _instr(haystack: Value, needle: Value) -> Value:
    if haystack is None or needle is None:
        return None
    if isinstance(haystack, bytes) and isinstance(needle, bytes):
        return haystack.find(needle) + 1
    return as_text(haystack).find(as_text(needle)) + 1


def _replace(longest: int, value: Value, old: Value, new: Value) -> Value:
    if value is None or old is None or new is None:
        return None
    text, before, after = as_text(value), as_text(old), as_text(new)
    if not before:
        return text
    if len(text) + text.count(before) * (len(after) - len(before)) > longest:
        raise TooLarge(f"a value of more than {longest} characters")
    return text.replace(before, after)


def _printf(longest: int, *arguments: Value) -> Value:
    if not arguments or arguments[0] is None:
        return None
    pattern = as_text(arguments[0])
    if _WIDE.search(pattern) or len(pattern) + sum(map(_length, arguments)) > longest:
        raise TooLarge("a format with a large width")
    return _ask("printf", (pattern, *arguments[1:]))


#: A width or precision of four digits, or one that is given as an argument.
_WIDE = re.compile(r"\d{4}|\*")


def _length(value: Value) -> int:
    return len(value) if isinstance(value, str | bytes) else 25


def _trim(left: bool, right: bool, value: Value, characters: Value) -> Value:
    if value is None or characters is None:
        return None
    text, dropped = as_text(value), set(as_text(characters))
    first, last = 0, len(text)
    while left and first < last and text[first] in dropped:
        first += 1
    while right and first < last and text[last - 1] in dropped:
        last -= 1
    return text[first:last]


def as_text(value: Value) -> str:
    """As SQLite casts a value that is not NULL to text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if not isinstance(value, float):
        return str(value)
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    text = f"{value:.15g}"
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}{e}{exponent}"
