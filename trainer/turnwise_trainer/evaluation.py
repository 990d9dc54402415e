"""How well a policy does on the tasks of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from turnwise_agent.client import TurnwiseClient
from turnwise_agent.engines.local import LocalEngine
from turnwise_agent.renderer import Renderer
from turnwise_agent.rollout import RolloutEngine, RolloutSettings, TaskDraw
from turnwise_agent.trajectory import Group
from turnwise_envs.types import JsonObject
from turnwise_trainer.contact import check_episodes, look_up, split_size
from turnwise_trainer.models import load_model
from turnwise_trainer.task_pool import Where, find_tasks

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
    rollout: RolloutEngine, split: str, indices: Sequence[int], *, options: JsonObject, seed: int = 0
) -> Evaluation:
    """Play these tasks of ``split`` once each, with the rollout engine's temperature."""
    draws = [TaskDraw(split, index, 1, key=(seed, _EVAL_KEY, index), options=options) for index in indices]
    return Evaluation.of(split, await rollout.draw(draws))


async def evaluate_checkpoint(
    model: str | Path,
    env: str,
    urls: Sequence[str],
    split: str,
    episodes: int,
    *,
    settings: RolloutSettings,
    options: JsonObject,
    where: Where | None = None,
    seed: int = 0,
) -> Evaluation:
    """:func:`evaluate` a checkpoint directory against servers, on the first tasks that match ``where``.

    ``settings.max_context_tokens`` is lowered to what the model can hold.

    Raises:
        ConfigError: there is no such split, or it has fewer tasks.
        TurnwiseError: the checkpoint cannot be loaded, or the servers do not answer or serve something else.
    """
    spec = await look_up(urls, env)
    split_size(spec, split, setting="split")
    check_episodes(spec, split, episodes, setting="episodes")
    network, tokenizer = load_model(model)
    engine = LocalEngine(network)
    fitted = replace(
        settings,
        max_context_tokens=min(settings.max_context_tokens, engine.backbone.max_positions),
        vocab_size=engine.vocab_size,
    )
    try:
        async with TurnwiseClient(list(urls)) as client:
            rollout = RolloutEngine(client, engine, Renderer(tokenizer), spec, fitted)
            indices = await find_tasks(client, spec, split, where or {}, episodes)
            return await evaluate(rollout, split, indices, options=options, seed=seed)
    finally:
        await engine.close()
