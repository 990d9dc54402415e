"""Scores of short answers: exact match and F1 with SQuAD's normalisation, the best over all gold answers.

As in the SQuAD v1.1 evaluation script: lower case, punctuation (ASCII) dropped, the articles a, an and the dropped,
white space squeezed; F1 counts common words. Where both sides have no word left they are equal (v2.0's rule).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(answer: str) -> str:
    """``"The  Old Mill."`` -> ``"old mill"``."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Iterable[str]) -> float:
    """1.0 when the prediction is one of the gold answers after normalisation, else 0.0."""
    given = normalise(prediction)
    return float(any(normalise(gold) == given for gold in answers))


def f1(prediction: str, answers: Iterable[str]) -> float:
    """Harmonic mean of word precision and recall, the best over the gold answers; 0.0 without gold answers."""
    given = normalise(prediction).split()
    return max((_f1(given, normalise(gold).split()) for gold in answers), default=0.0)


def mentions(text: str, answers: Iterable[str]) -> bool:
    """Whether a gold answer occurs in ``text``, as whole words after normalisation (of answers with a word left)."""
    padded = f" {normalise(text)} "
    return any(f" {gold} " in padded for gold in map(normalise, answers) if gold)


def _f1(given: list[str], gold: list[str]) -> float:
    if not given or not gold:
        return float(given == gold)
    common = (Counter(given) & Counter(gold)).total()
    return 2 * common / (len(given) + len(gold))
