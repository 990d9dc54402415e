"""The environment under test, and what one check tells the next one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from turnwise_envs.check.trace import Trace
from turnwise_envs.environment import Environment
from turnwise_envs.types import EnvSpec, JsonObject


class Failure(Exception):
    """The contract is broken. ``check`` names the check that it belongs to, if not the one that noticed."""

    def __init__(self, message: str, check: str | None = None) -> None:
        super().__init__(message)
        self.check = check


class Skip(Exception):
    """The check cannot be made here; the text says why."""


@dataclass
class Subject:
    """One environment class being checked, with ``options`` in every episode. ``traces`` are recorded by the first checks and replayed by the later ones."""

    env_class: type[Environment]
    name: str
    episodes: int
    seed: int
    options: JsonObject = field(default_factory=dict)
    traces: list[Trace] = field(default_factory=list)
    junk_traces: list[Trace] = field(default_factory=list)

    @property
    def spec(self) -> EnvSpec:
        return self.env_class.spec

    def rng(self, purpose: str) -> random.Random:
        """A private generator per purpose, so that checks do not shift each other's choices."""
        return random.Random(f"{self.seed}/{purpose}")

    def starts(self) -> list[tuple[str, int, int]]:
        """(split, index, seed) of each episode: the splits in turn, the first task first, then random ones."""
        rng = self.rng("starts")
        starts = []
        for episode in range(self.episodes):
            split = self.spec.splits[episode % len(self.spec.splits)]
            size = 1000 if split.size is None else split.size
            starts.append((split.name, 0 if episode == 0 else rng.randrange(size), self.seed + episode))
        return starts
