"""What can be said of a statement before SQLite sees it: its tokens, and how far its WITH names fan out.

SQLite copies a WITH query wherever its name is used, while it prepares the statement. ``b AS (SELECT .. FROM a, a),
c AS (SELECT .. FROM b, b), ..`` therefore doubles with each line, in a phase that no progress handler or interrupt
reaches. :func:`refusal` counts those copies and refuses such a statement; everything else is left to the sandbox.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_LENGTH = 20_000
#: Copies of WITH queries that one statement may come to. People need a handful; from some thousands on it takes seconds.
MAX_COPIES = 300

_TOKEN = re.compile(
    r"""
    (?P<skip>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
  | (?P<name>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
  | '(?P<string>(?:[^']|'')*)'
  | "(?P<quoted>(?:[^"]|"")*)"
  | `(?P<ticked>(?:[^`]|``)*)`
  | \[(?P<bracketed>[^\]]*)\]
  | (?P<other>[0-9][0-9A-Za-z_.]*|.)
    """,
    re.VERBOSE | re.DOTALL,
)
#: A name after one of these words or signs can be a table.
_BEFORE_TABLE = {"from", "join", ",", "(", "in"}


class Token(NamedTuple):
    """``text`` is in lower case; ``word`` says that it can name something (SQLite takes even 'strings' as names)."""

    text: str
    word: bool
    plain: bool


def tokens(sql: str) -> list[Token]:
    """The statement without spaces and comments."""
    found = []
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        if kind == "skip":
            continue
        text = (match[kind] if kind else "").lower()
        found.append(Token(text, kind not in (None, "other"), kind == "name"))
    return found


def refusal(sql: str) -> str | None:
    """Why the statement is not even tried, None if it may be."""
    if not sql.strip():
        return "The statement is empty."
    if len(sql) > MAX_LENGTH:
        return f"The statement has {len(sql)} characters; at most {MAX_LENGTH} are allowed."
    words = tokens(sql)
    if not any(token.plain and token.text == "with" for token in words):
        return None
    bodies = _with_queries(words)
    names = [body.name for body in bodies]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        return f"WITH defines {double[:60]} twice; use each name once."
    if _copies(words, bodies) > MAX_COPIES:
        return f"The WITH queries use each other too often: they come to more than {MAX_COPIES} copies."
    return None


class _Body(NamedTuple):
    """A WITH query: positions of its name and of the parentheses around it."""

    name: str
    named_at: int
    first: int
    last: int


def _with_queries(words: list[Token]) -> list[_Body]:
    """Each ``name [(columns)] AS [[NOT] MATERIALIZED] ( .. )``."""
    closing = _closing(words)
    found = []
    for at, token in enumerate(words):
        if not token.word:
            continue
        after = at + 1
        if after < len(words) and words[after].text == "(" and not words[after].word:
            after = closing.get(after, len(words)) + 1
        if after >= len(words) or words[after] != Token("as", True, True):
            continue
        after += 1
        while after < len(words) and words[after].plain and words[after].text in ("not", "materialized"):
            after += 1
        if after < len(words) and words[after] == Token("(", False, False):
            found.append(_Body(token.text, at, after, closing.get(after, len(words))))
    return found


def _closing(words: list[Token]) -> dict[int, int]:
    """Position of the closing parenthesis by that of the opening one."""
    found, open_ones = {}, []
    for at, token in enumerate(words):
        if token == Token("(", False, False):
            open_ones.append(at)
        elif token == Token(")", False, False) and open_ones:
            found[open_ones.pop()] = at
    return found


def _copies(words: list[Token], bodies: list[_Body]) -> int:
    """Copies of WITH queries that the whole statement comes to, counted up to a little over MAX_COPIES."""
    defined = {body.name: body for body in bodies}
    ends = {body.named_at: body.last for body in bodies}
    known: dict[str, int] = {}

    def size(name: str, within: frozenset[str]) -> int:
        if name in within:  # a recursive query is not copied into itself
            return 0
        if name not in known:
            known[name] = 1 + inside(defined[name].first, defined[name].last, within | {name})
        return known[name]

    def inside(first: int, last: int, within: frozenset[str]) -> int:
        """Copies that the tokens between ``first`` and ``last`` ask for, those of WITH queries defined there left out."""
        total, at = 0, first + 1
        while at < min(last, len(words)) and total <= MAX_COPIES:
            token, before = words[at], words[at - 1]
            if at in ends:
                at = ends[at]
            elif token.word and token.text in defined and before.text in _BEFORE_TABLE:
                total += size(token.text, within)
            at += 1
        return total

    return inside(0, len(words), frozenset())
