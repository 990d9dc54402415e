"""Reproducible chance: every draw is a function of the names it was made from.

Built on ``random.Random(int).random()``, the one stream whose values Python guarantees across versions; never on
``hash()``, whose values differ between processes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def stable_hash(*names: object) -> int:
    """64 bits that depend on the names only."""
    text = "/".join(map(str, names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class Dice:
    """A stream of draws named by its arguments: ``Dice("household", "train", 17)``."""

    def __init__(self, *names: object) -> None:
        self._random = random.Random(stable_hash(*names)).random

    def below(self, bound: int) -> int:
        """An integer from 0 to ``bound - 1``."""
        return int(self._random() * bound)

    def between(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
