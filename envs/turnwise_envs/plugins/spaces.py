"""Gymnasium's spaces as text: what an observation says, and what an action's text means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnwise_envs.actions import last_line, without_thoughts
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.plugins.foreign import meant

#: Numbers of an observation that are written out; more would be an image, not a text.
MAX_NUMBERS = 1024


def words(value: Any) -> str:
    """An observation in words: ``[0.1, -2]``, ``sum: 12; card: 3``. Numbers have four digits. Raises ValueError."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "; ".join(f"{name}: {words(each)}" for name, each in value.items())
    if isinstance(value, tuple):
        return "; ".join(map(words, value))
    if hasattr(value, "tolist"):
        if value.size > MAX_NUMBERS:
            raise ValueError(f"an observation of {value.size} numbers is no text")
        value = value.tolist()
    if isinstance(value, list):
        return f"[{', '.join(map(words, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class ActionReader:
    """Turns text into an element of an action space; ``names`` are a discrete space's actions in words."""

    def __init__(self, space: Any, names: Sequence[str]) -> None:
        from gymnasium import spaces

        self._space = space
        self._kind = next(
            (k for k in ("Discrete", "MultiDiscrete", "MultiBinary", "Text") if isinstance(space, getattr(spaces, k))),
            "",
        )
        if not self._kind:
            raise UnknownEnvironment(f"actions must be discrete or text, not {space}")
        self.names: tuple[str, ...] = ()
        if self._kind == "Discrete":
            start, size = int(space.start), int(space.n)
            self.names = tuple(names) or tuple(str(start + i) for i in range(size))
            if len(self.names) != size or len(set(map(str.lower, self.names))) != size:
                raise UnknownEnvironment(
                    f"--actions must name {size} different actions, not {len(self.names)}: {', '.join(self.names)}"
                )
        elif names:
            raise UnknownEnvironment(f"--actions names the actions of a discrete space, not of {space}")

    @property
    def usage(self) -> str:
        if self._kind == "Discrete":
            return f"Each turn, write one action on the last line: {', '.join(self.names)}."
        if self._kind == "MultiDiscrete":
            ranges = ", ".join(f"0 to {int(n) - 1}" for n in self._space.nvec.flatten())
            return f"Each turn, write whole numbers on the last line, with spaces between them: {ranges}."
        if self._kind == "MultiBinary":
            return f"Each turn, write {self._count} numbers on the last line, each 0 or 1, with spaces between them."
        return "Each turn, write your action."

    def read(self, said: str) -> Any | None:
        """The action in ``said``, None when there is none."""
        if self._kind == "Discrete":
            position = meant(said, self.names)
            return None if position is None else int(self._space.start) + position
        if self._kind == "Text":
            text = without_thoughts(said).strip()
            return text if self._space.contains(text) else None
        import numpy

        numbers = last_line(said).replace(",", " ").strip("[]() ").split()
        if len(numbers) != self._count or not all(n.isascii() and n.isdigit() and len(n) < 9 for n in numbers):
            return None
        action = numpy.array([int(n) for n in numbers], dtype=self._space.dtype).reshape(self._space.shape)
        return action if self._space.contains(action) else None

    def write(self, action: int) -> str:
        """The name of a discrete action."""
        return self.names[action - int(self._space.start)]

    def allowed(self, mask: Any) -> list[str]:
        """The actions of a discrete space that a mask (one entry an action, or None for all) allows."""
        if mask is None or len(mask) != len(self.names):
            return list(self.names)
        return [name for name, possible in zip(self.names, mask, strict=True) if possible]

    @property
    def _count(self) -> int:
        count = 1
        for side in self._space.shape:
            count *= int(side)
        return count
