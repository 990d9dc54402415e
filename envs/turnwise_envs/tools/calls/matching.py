"""AST matching, with BFCL's rules: the right functions with allowed values, in any order, and nothing else.

A gold call gives each parameter its allowed values. A parameter whose allowed values contain ``""`` may be left out. Types
are JSON's and must agree, except that a whole number stands for a number; strings are compared without case, spaces and
the signs ``, . / - _ * ^``; lists in order; a parameter that the gold call does not know is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from turnwise_envs.types import JsonObject

_IGNORED = re.compile(r"[ ,./\-_*^]")


class Gold(NamedTuple):
    """A gold call: ``allowed`` maps each parameter to a list of values, the plainest first."""

    name: str
    allowed: dict[str, list[Any]]

    @property
    def arguments(self) -> JsonObject:
        """The plainest arguments: optional parameters that may be left out are left out."""
        return {name: values[0] for name, values in self.allowed.items() if "" not in values}


class Made(NamedTuple):
    """A call that was made."""

    name: str
    arguments: JsonObject


def mismatch(made: Sequence[Made], gold: Sequence[Gold]) -> str | None:
    """Why the calls are not the gold calls, for metrics and people; None if they are."""
    if len(made) != len(gold):
        return f"{len(made)} calls instead of {len(gold)}"
    left = list(gold)
    if _assigned(list(made), left):
        return None
    for call in made:
        if not any(fits(call, one) for one in gold):
            return f"{call.name} is not among the gold calls with these arguments"
    return "two calls stand for the same gold call"


def fits(made: Made, gold: Gold) -> bool:
    """Whether this call is that gold call."""
    if made.name != gold.name or not made.arguments.keys() <= gold.allowed.keys():
        return False
    for name, allowed in gold.allowed.items():
        if name not in made.arguments:
            if "" not in allowed:
                return False
        elif not any(_equal(made.arguments[name], value) for value in allowed):
            return False
    return True


def _assigned(made: list[Made], gold: list[Gold]) -> bool:
    """Whether each call can have a gold call of its own (a greedy choice can miss that)."""
    if not made:
        return True
    first, *rest = made
    return any(fits(first, one) and _assigned(rest, gold[:place] + gold[place + 1 :]) for place, one in enumerate(gold))


def _equal(given: Any, allowed: Any) -> bool:
    if isinstance(given, str) and isinstance(allowed, str):
        return _plain(given) == _plain(allowed) if allowed else given == ""
    if isinstance(given, list) and isinstance(allowed, list):
        return len(given) == len(allowed) and all(map(_equal, given, allowed))
    if isinstance(given, dict) and isinstance(allowed, dict):
        return given.keys() == allowed.keys() and all(_equal(given[key], allowed[key]) for key in allowed)
    if isinstance(given, bool) or isinstance(allowed, bool) or given is None or allowed is None:
        return given is allowed
    if isinstance(given, int | float) and isinstance(allowed, int | float):
        return given == allowed
    return False


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')
