"""Groups built by hand for tests of the trainer: forests of turns without an environment or a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnwise_agent.trajectory import Episode, Group, StopReason, Turn
from turnwise_envs.types import Action, Observation, StepInfo, Task


@dataclass
class Grower:
    """A forest being grown, turn by turn and episode by episode."""

    index: int = 0
    turns: list[Turn] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)

    def grow(self, parent: int | None, action: Sequence[int], *, new_context: bool = False, **more: Any) -> int:
        """A turn that took these tokens, with ``more`` of a Turn's fields; returns its id."""
        count, number = len(action), len(self.turns)
        fields = {
            "prompt_ids": (1,),
            "logprobs": (-1.0,) * count,
            "entropies": (1.0,) * count,
            "top_entropies": (1.0,) * count,
            "reward": 0.0,
            **more,
        }
        self.turns.append(
            Turn(
                id=number,
                parent=parent,
                index=0 if parent is None else self.turns[parent].index + 1,
                new_context=new_context or parent is None,
                action_ids=tuple(action),
                versions=(0,) * count,
                action=Action(text="go"),
                observation=Observation.say("you go"),
                terminated=False,
                truncated=False,
                info=StepInfo(),
                log_hash=f"{self.index}-{number}",
                **fields,
            )
        )
        return number

    def episode(self, leaf: int, outcome: float = 0.0) -> None:
        """The path to ``leaf``; ``outcome`` is its final reward."""
        self.episodes.append(
            Episode(
                member=len(self.episodes),
                leaf=leaf,
                stop=StopReason.TERMINATED,
                final_reward=outcome,
                final_info=StepInfo(),
                log_hash=f"{self.index}-{leaf}-{len(self.episodes)}",
            )
        )

    def build(self) -> Group:
        task = Task(env="toy", split="train", index=self.index, id=f"toy/train/{self.index}", instruction="go")
        start = Observation.say("start")
        return Group(task=task, seed=0, options={}, initial=start, turns=self.turns, episodes=self.episodes)


class GroupBuilder(Grower):
    """Groups of which only the numbers matter: ``t = b.turn(None, [0.2, 0.3]); b.episode(t, outcome=1.0)``."""

    def turn(
        self, parent: int | None, entropies: Sequence[float], reward: float = 0.0, answer: Sequence[float] = ()
    ) -> int:
        """A turn with one action token per entropy, and ``answer`` as what a probe before it found; returns its id."""
        count = len(entropies)
        return self.grow(
            parent,
            range(2, 2 + count),
            logprobs=tuple(-0.5 - 0.01 * position for position in range(count)),
            entropies=tuple(entropies),
            top_entropies=tuple(entropies),
            reward=reward,
            answer_logprobs=tuple(answer),
        )


def flat_group(outcomes: Sequence[float], turns: int = 1, tokens: int = 1, index: int = 0) -> Group:
    """Independent episodes of equal length with these outcomes."""
    builder = GroupBuilder(index)
    for outcome in outcomes:
        leaf: int | None = None
        for _ in range(turns):
            leaf = builder.turn(leaf, [0.5] * tokens)
        assert leaf is not None
        builder.episode(leaf, outcome)
    return builder.build()


def random_group(rng: np.random.Generator, index: int = 0, members: int = 5) -> Group:
    """A random forest: each episode starts afresh or branches off a turn of an earlier one, and gets a random outcome."""
    builder = GroupBuilder(index)
    for _ in range(members):
        leaf: int | None = None
        if builder.turns and rng.random() < 0.6:
            leaf = int(rng.integers(len(builder.turns)))
        for _ in range(int(rng.integers(1, 4))):
            entropies = rng.uniform(0.0, 2.0, size=int(rng.integers(1, 4)))
            leaf = builder.turn(leaf, [float(value) for value in entropies], reward=float(rng.normal()))
        assert leaf is not None
        builder.episode(leaf, float(rng.integers(0, 2)))
    return builder.build()


def unshared(group: Group) -> Group:
    """The same episodes with every shared turn copied for each of them."""
    builder = GroupBuilder(group.task.index)
    for episode in group.episodes:
        leaf: int | None = None
        for turn in group.path(episode):
            leaf = builder.turn(leaf, turn.entropies, turn.reward)
        assert leaf is not None
        builder.episode(leaf, episode.final_reward)
    return builder.build()
