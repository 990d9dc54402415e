"""Answers compared by value: ``0.75``, ``3/4``, ``\\boxed{\\frac{3}{4}}`` and ``75%`` are one number."""

from __future__ import annotations

import re
from fractions import Fraction

#: Longer than any answer; what a policy writes must not cost more than reading it.
_LONGEST = 200
#: A gold value that is no whole number may be given as a rounded decimal.
TOLERANCE = Fraction(1, 10**6)

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?"
_VALUE = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?(%?)")


def boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{...}``, None without one."""
    found = _BOXED.findall(text)
    return found[-1] if found else None


def number(text: str) -> Fraction | None:
    """The exact value of what was written; None if it is no number."""
    if len(text) > _LONGEST:
        return None
    inner = boxed(text)
    plain = _FRACTION.sub(r"\1/\2", text if inner is None else inner)
    plain = _THOUSANDS.sub("", plain.replace("$", "").replace("\\", "").replace("\u2212", "-"))
    match = _VALUE.fullmatch("".join(plain.split()).rstrip("."))
    if match is None or not plain.isascii():
        return None
    above, below, percent = match.groups()
    divisor = Fraction(below or 1) * (100 if percent else 1)
    return Fraction(above) / divisor if divisor else None


def same(given: Fraction, gold: Fraction) -> bool:
    """Equal, or, where gold is no whole number, closer than TOLERANCE (relative above 1)."""
    if gold.denominator == 1:
        return given == gold
    return abs(given - gold) <= TOLERANCE * max(Fraction(1), abs(gold))


def written(value: Fraction) -> str:
    """``3/4``, or ``12`` for a whole number."""
    return str(value)
