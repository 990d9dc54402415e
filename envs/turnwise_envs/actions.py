"""Reading what a policy wrote: its thoughts dropped, its last line, its tags. Pure text, shared by environments.

::

    said = "<think>two hops</think><search>author of Emma</search>"
    without_thoughts(said)             # "<search>author of Emma</search>"
    tags(said, ("search", "answer"))   # [Tag(name="search", content="author of Emma", closed=True)]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"\A.*</think>", re.DOTALL | re.IGNORECASE)


class Tag(NamedTuple):
    """One ``<name>content</name>``. An unclosed one ends at the next tag, or with the text (a stop string's work)."""

    name: str
    content: str
    closed: bool


def without_thoughts(said: str) -> str:
    """What was said outside of ``<think>``; a thought may lack its end, or its beginning (that the prompt wrote)."""
    return _THOUGHT_END.sub("", _THOUGHT.sub("", said), count=1)


def last_line(said: str) -> str:
    """The last line that is not empty, thoughts dropped, white space squeezed; "" when nothing was said."""
    lines = without_thoughts(said).strip().splitlines()
    return " ".join(lines[-1].split()) if lines else ""


def tags(said: str, names: Sequence[str]) -> list[Tag]:
    """The tags called ``names``, in the order of the text, thoughts dropped.

    Tags do not nest: whatever stands between a tag and its end is its content, other tags included. Names are read
    without regard to case and given in lower case, as ``names`` should be; content is stripped.
    """
    opening = _opening(tuple(names))
    text = without_thoughts(said)
    found: list[Tag] = []
    endless: set[str] = set()  # names without another end: a policy can write beginnings all day
    at = 0
    while (begin := opening.search(text, at)) is not None:
        name = begin[1].lower()
        end = None if name in endless else _closing(name).search(text, begin.end())
        if end is not None:
            found.append(Tag(name, text[begin.end() : end.start()].strip(), closed=True))
            at = end.end()
            continue
        endless.add(name)
        following = opening.search(text, begin.end())
        at = following.start() if following else len(text)
        found.append(Tag(name, text[begin.end() : at].strip(), closed=False))
    return found


@lru_cache(maxsize=64)
def _opening(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<({'|'.join(map(re.escape, names))})>", re.IGNORECASE)


@lru_cache(maxsize=64)
def _closing(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{re.escape(name)}>", re.IGNORECASE)
