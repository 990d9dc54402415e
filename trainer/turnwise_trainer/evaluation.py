"""How well a policy does on the tasks of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turnwise_agent.rollout import RolloutEngine, TaskDraw
from turnwise_agent.trajectory import Group
from turnwise_envs.types import JsonObject

#: First number of the random key of evaluations, so that they never share a stream with training.
_EVAL_KEY = 1


@dataclass(frozen=True)
class Evaluation:
    """Means over episodes, one a task; ``groups`` holds the episodes themselves."""

    split: str
    episodes: int
    success: float
    reward: float
    turns: float
    groups: Sequence[Group]

    @classmethod
    def of(cls, split: str, groups: Sequence[Group]) -> Evaluation:
        pairs = [(group, episode) for group in groups for episode in group.episodes]
        return cls(
            split=split,
            episodes=len(pairs),
            success=sum(episode.solved for _, episode in pairs) / len(pairs),
            reward=sum(group.outcome(episode) for group, episode in pairs) / len(pairs),
            turns=sum(len(group.path(episode)) for group, episode in pairs) / len(pairs),
            groups=groups,
        )

    def success_by(self, key: str) -> dict[str, float]:
        """Success rate for each value of a public task metadata field (``family``, say)."""
        solved: dict[str, list[bool]] = {}
        for group in self.groups:
            solved.setdefault(str(group.task.metadata.get(key)), []).extend(e.solved for e in group.episodes)
        return {value: sum(outcomes) / len(outcomes) for value, outcomes in sorted(solved.items())}


async def evaluate(
    rollout: RolloutEngine, split: str, episodes: int, *, options: JsonObject, seed: int = 0, first: int = 0
) -> Evaluation:
    """Play tasks ``first ... first + episodes - 1`` of ``split`` once each, with the rollout engine's temperature."""
    draws = [
        TaskDraw(split, first + number, 1, key=(seed, _EVAL_KEY, first + number), options=options)
        for number in range(episodes)
    ]
    return Evaluation.of(split, await rollout.draw(draws))
