"""What an episode is about, whether generated or read from a file: a question, its answers, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Evidence(NamedTuple):
    """A document (by position in the corpus) of which one must have read so many words."""

    document: int
    words: int


class Lookup(NamedTuple):
    """One step of an expert's plan: queries to try in turn until the evidence is read."""

    queries: tuple[str, ...]
    evidence: Evidence


@dataclass(frozen=True)
class Problem:
    """``answers``: all right ways to put the answer, the usual one first. ``hops``: how many facts it takes."""

    question: str
    answers: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()
    plan: tuple[Lookup, ...] = ()
    kind: str = "question"
    hops: int = 1
