"""When a group's live episodes are branched: a pure rule that the rollout engine asks once a round.

In a round every live path of a group takes one turn; then the engine asks :meth:`BranchRule.forks`, starts the new
episodes, and goes on. When all paths are done and the group is not full, it starts one fresh episode per round. A path
that has finished or whose context was replaced is not offered. The rule keeps no state: all it knows is in the round.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class LivePath:
    """An episode that may be branched.

    Attributes:
        member: its number in the group.
        entropies: ``BranchRule.entropy_of`` of each of its turns, inherited ones included; its length is the number of
            turns taken.
        first_own: index of the first turn that it took itself (0 for a fresh episode, the fork point for a branch).
    """

    member: int
    entropies: tuple[float, ...]
    first_own: int = 0

    @property
    def turns(self) -> int:
        return len(self.entropies)

    @property
    def entropy_rise(self) -> float:
        """Entropy of the newest turn minus that of the first own turn."""
        return self.entropies[-1] - self.entropies[self.first_own]


@dataclass(frozen=True, slots=True)
class BranchRound:
    """What a rule decides on: the live paths in member order, each having just taken a turn.

    ``free`` is how many more episodes the group may have; ``rng`` belongs to this group.
    """

    paths: Sequence[LivePath]
    free: int
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Fork:
    """Branch a new episode off ``member``'s path; it shares the first ``at_turn`` turns (at least 1).

    ``at_turn == turns`` forks after the newest observation, ``turns - 1`` before the newest action.
    """

    member: int
    at_turn: int


class BranchRule(Protocol):
    """How a group spends its budget of episodes."""

    def initial(self, group_size: int) -> int:
        """How many fresh episodes to start with, from 1 to ``group_size``."""
        ...

    def entropy_of(self, top_entropies: Sequence[float], vocab_size: int) -> float:
        """The number that ``LivePath.entropies`` holds for a turn, from its tokens' truncated entropies (nats)."""
        ...

    def forks(self, round: BranchRound) -> list[Fork]:
        """The branches to start now, at most ``round.free``."""
        ...


@dataclass(frozen=True, slots=True)
class EntropyBranching:
    """ARPO's rule (arXiv 2507.19849): branch where entropy rose after an observation.

    The measure of a turn is ``e = sum of the first k token entropies / ln |V|``, each over the most likely alternatives
    only: a sum, not a mean. ``dH = e(newest turn) - e(the path's first own turn)``.

    ``paper``: the newest turn is what the policy wrote after the newest observation it had seen, so the fork is before that
    turn; ``beam - 1`` branches start iff ``base + slope * dH > threshold``.
    ``released``: the authors' code measures the turn that emitted the call and forks after its result; each of
    ``beam - 1`` tries branches with probability ``clip(base + slope * dH, 0, 1)``.
    """

    initial_fraction: float = 0.5
    beam: int = 2
    base: float = 0.5
    slope: float = 0.2
    threshold: float = 0.5
    tokens: int = 20
    mode: Literal["paper", "released"] = "paper"

    def initial(self, group_size: int) -> int:
        # The nudge keeps 0.29 * 100 = 28.999... at 29.
        return min(group_size, max(1, math.floor(self.initial_fraction * group_size + 1e-9)))

    def entropy_of(self, top_entropies: Sequence[float], vocab_size: int) -> float:
        return math.fsum(top_entropies[: self.tokens]) / math.log(vocab_size)

    def branch_score(self, entropy_rise: float) -> float:
        """``base + slope * dH``: compared with the threshold (paper), or a probability once clipped (released)."""
        return self.base + self.slope * entropy_rise

    def forks(self, round: BranchRound) -> list[Fork]:
        chosen: list[Fork] = []
        for path in round.paths:
            at_turn = path.turns - 1 if self.mode == "paper" else path.turns
            if at_turn < 1:  # nothing to share: that would be a fresh episode
                continue
            score = self.branch_score(path.entropy_rise)
            for _ in range(self.beam - 1):
                if len(chosen) == round.free:
                    return chosen
                if score > self.threshold if self.mode == "paper" else round.rng.random() < score:
                    chosen.append(Fork(path.member, at_turn))
        return chosen
