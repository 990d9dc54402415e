"""Noise on what is said. Pure functions of a text and dice."""

from __future__ import annotations

import re
import string

from turnwise_envs.dice import Dice

#: What stands where a word, or a message, cannot be made out.
MISSING_WORD = "…"
MISSING_MESSAGE = "You cannot make out anything."

_WORD = re.compile(r"\S+")
_ALPHABETS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)


def garbled(text: str, probability: float, dice: Dice) -> str:
    """Each word with ``probability`` with one letter or digit replaced by another of its kind."""
    return _WORD.sub(lambda word: _misread(word[0], dice) if dice.chance(probability) else word[0], text)


def concealed(text: str, probability: float, dice: Dice) -> str:
    """Each word with ``probability`` left out, an ellipsis in its place."""
    return _WORD.sub(lambda word: MISSING_WORD if dice.chance(probability) else word[0], text)


def _misread(word: str, dice: Dice) -> str:
    spots = [(at, letters) for at, sign in enumerate(word) for letters in _ALPHABETS if sign in letters]
    if not spots:
        return word  # punctuation, or a script that we have no alphabet of
    at, letters = dice.pick(spots)
    return word[:at] + dice.pick([letter for letter in letters if letter != word[at]]) + word[at + 1 :]
