"""The training loop: draw groups, learn, publish, log, evaluate, checkpoint. Everything else is somebody else's job."""

from __future__ import annotations

import copy
import gc
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from turnwise_agent.client import TurnwiseClient
from turnwise_agent.engines.local import LocalEngine
from turnwise_agent.renderer import Renderer
from turnwise_agent.rollout import RolloutEngine, RolloutSettings, TaskDraw
from turnwise_agent.store import TrajectoryStore
from turnwise_agent.trajectory import Group
from turnwise_envs.types import EnvSpec
from turnwise_trainer.config import EnvConfig, TrainConfig
from turnwise_trainer.contact import check_episodes, look_up, split_size
from turnwise_trainer.evaluation import evaluate
from turnwise_trainer.learner import Learner
from turnwise_trainer.metrics import MetricsLog
from turnwise_trainer.models import load_model
from turnwise_trainer.objective import Objective
from turnwise_trainer.progress import Progress
from turnwise_trainer.run_directory import RunDirectory
from turnwise_trainer.task_pool import find_tasks, task_order

#: First number of the random key of training rollouts; see evaluation.py for the other.
_TRAIN_KEY = 0


@dataclass
class Totals:
    """Counters over a whole run, resumes included."""

    env_steps: int = 0
    policy_tokens: int = 0
    saved_env_steps: int = 0
    saved_policy_tokens: int = 0
    episodes: int = 0
    dropped: int = 0
    logprob_gap_max: float = 0.0
    train_seconds: float = 0.0

    def count(self, groups: list[Group]) -> None:
        for group in groups:
            self.env_steps += group.env_steps
            self.policy_tokens += group.policy_tokens
            self.saved_env_steps += group.saved_env_steps
            self.saved_policy_tokens += group.saved_policy_tokens
            self.episodes += len(group.episodes)
            self.dropped += group.dropped


@dataclass
class TrainResult:
    """What a finished run leaves behind."""

    checkpoint: Path
    totals: Totals


async def train(run: RunDirectory, progress: Progress) -> TrainResult:
    """Train to the end of ``run``, from its newest checkpoint if it has one.

    Raises:
        TurnwiseError: with what to do about it; the run can be resumed from its newest checkpoint.
    """
    config = run.config
    spec = await look_up(config.env.urls, config.env.id)
    size = split_size(spec, config.env.split, setting="env.split")
    for split in config.eval.splits:
        split_size(spec, split, setting="eval.splits")
        check_episodes(spec, split, config.eval.episodes, setting="eval.episodes")
    objective = Objective(config.objective)
    checkpoints = run.checkpoints()
    start: dict[str, Any] = run.load_state(checkpoints[-1]) if checkpoints else {"step": 0}
    model, tokenizer = load_model(checkpoints[-1] if checkpoints else config.model)
    reference = load_model(config.model)[0] if objective.needs_reference else None
    learner = Learner(
        model,
        objective,
        config.optimizer,
        temperature=config.rollout.temperature,
        steps=config.steps,
        seed=config.seed,
        reference=reference,
    )
    if checkpoints:
        learner.optimizer.load_state_dict(start["optimizer"])
    engine = LocalEngine(
        copy.deepcopy(model),
        cache_tokens=config.rollout.cache_tokens,
        deterministic=config.rollout.deterministic,
    )
    engine.version = start["step"]
    totals = Totals(**start.get("totals", {}))
    gc.collect()
    gc.freeze()  # what is here stays: looking through torch for garbage holds up all episodes for a tenth of a second
    try:
        async with TurnwiseClient(list(config.env.urls)) as client:
            tasks = await _tasks(client, spec, size, config.env)
            rollout = RolloutEngine(
                client, engine, Renderer(tokenizer), spec, rollout_settings(config, engine), progress.turn
            )
            with (
                TrajectoryStore(run.store_file) as store,
                MetricsLog(run.metrics_file, keep_steps=start["step"]) as metrics,
                progress.live(start["step"], config.steps),
            ):
                run_id = store.run(run.path.name)
                store.forget_from(run_id, start["step"])
                loop = _Loop(run, rollout, learner, store, metrics, progress, totals, tokenizer, run_id, tasks)
                for step in range(start["step"], config.steps):
                    await loop.step(step)
    finally:
        await engine.close()
    return TrainResult(run.checkpoints()[-1], totals)


async def _tasks(client: TurnwiseClient, spec: EnvSpec, size: int | None, env: EnvConfig) -> list[int] | None:
    """Indices of the tasks to train on; None for all of an unbounded split."""
    if env.where or env.max_tasks is not None:
        return await find_tasks(client, spec, env.split, env.where, env.max_tasks)
    return None if size is None else list(range(size))


def rollout_settings(config: TrainConfig, engine: LocalEngine, temperature: float | None = None) -> RolloutSettings:
    """How episodes are drawn: in training, or at another temperature in an evaluation."""
    drawn = config.rollout
    return RolloutSettings(
        temperature=drawn.temperature if temperature is None else temperature,
        max_action_tokens=drawn.max_action_tokens,
        max_context_tokens=min(drawn.max_context_tokens, engine.backbone.max_positions),
        max_concurrent_groups=drawn.max_concurrent_groups,
        vocab_size=engine.vocab_size,
    )


@dataclass
class _Loop:
    run: RunDirectory
    rollout: RolloutEngine
    learner: Learner
    store: TrajectoryStore
    metrics: MetricsLog
    progress: Progress
    totals: Totals
    tokenizer: Any
    run_id: int
    tasks: list[int] | None  # None: all of an unbounded split

    async def step(self, step: int) -> None:
        """One training step: ``step`` are finished before it."""
        config = self.run.config
        began = time.perf_counter()
        drawn = await self._draw(step)
        rolled = time.perf_counter()
        learned = self.learner.update(drawn, step)
        await self.rollout.engine.publish(self.learner.model.state_dict(), step + 1)
        self.store.add(self.run_id, step, "train", drawn)
        ended = time.perf_counter()
        self._log(step + 1, drawn, learned, rolled - began, ended - began)
        if config.eval.every and ((step + 1) % config.eval.every == 0 or step + 1 == config.steps):
            await self._evaluate(step + 1)
        if (step + 1) % config.checkpoint.every == 0 or step + 1 == config.steps:
            state = {"optimizer": self.learner.optimizer.state_dict(), "totals": asdict(self.totals)}
            self.run.save(step + 1, self.learner.model, self.tokenizer, state)

    async def _draw(self, step: int) -> list[Group]:
        config = self.run.config
        count = config.rollout.groups_per_step
        draws = [
            TaskDraw(
                config.env.split,
                index,
                config.rollout.group_size,
                key=(config.seed, _TRAIN_KEY, step, number),
                env_seed=config.env.seed + step * count + number,
                options=config.env.options,
            )
            for number, index in enumerate(self._task_indices(step))
        ]
        objective = self.learner.objective
        return await self.rollout.draw(draws, objective.branch_rule(), objective.answer_probe())

    def _task_indices(self, step: int) -> list[int]:
        config, tasks = self.run.config, self.tasks
        order = task_order(config.seed, step, config.rollout.groups_per_step, None if tasks is None else len(tasks))
        return order if tasks is None else [tasks[number] for number in order]

    def _log(self, done: int, groups: list[Group], learned: dict[str, float], rollout: float, total: float) -> None:
        self.totals.count(groups)
        self.totals.train_seconds += total
        self.totals.logprob_gap_max = max(self.totals.logprob_gap_max, learned.get("logprob_gap_max", 0.0))
        episodes = [(group, episode) for group in groups for episode in group.episodes]
        tokens = sum(group.policy_tokens for group in groups)
        stats, engine = self.rollout.client.stats, self.rollout.engine
        assert isinstance(engine, LocalEngine)
        values = {
            "success": sum(episode.solved for _, episode in episodes) / len(episodes),
            "reward": sum(group.outcome(episode) for group, episode in episodes) / len(episodes),
            "turns": sum(len(group.path(episode)) for group, episode in episodes) / len(episodes),
            "tokens_per_second": tokens / rollout,
            "seconds/rollout": rollout,
            "seconds/step": total,
            "saved_env_steps": sum(group.saved_env_steps for group in groups),
            "saved_policy_tokens": sum(group.saved_policy_tokens for group in groups),
            **learned,
            "client/rebuilds": stats.rebuilds,
            "client/retries": stats.retries,
            "engine/recomputed_tokens": engine.stats.recomputed_tokens,
            "total/env_steps": self.totals.env_steps,
            "total/policy_tokens": self.totals.policy_tokens,
            "total/dropped": self.totals.dropped,
        }
        self.metrics.add("train", done, values)
        self.progress.step(done, values)

    async def _evaluate(self, done: int) -> None:
        config = self.run.config
        engine = self.rollout.engine
        assert isinstance(engine, LocalEngine)
        client, spec = self.rollout.client, self.rollout.spec
        for split in config.eval.splits:
            indices = await find_tasks(client, spec, split, config.env.where, config.eval.episodes)
            for mode in config.eval.modes:
                temperature = 0.0 if mode == "greedy" else config.eval.temperature
                player = RolloutEngine(
                    client,
                    engine,
                    self.rollout.renderer,
                    spec,
                    rollout_settings(config, engine, temperature),
                )
                result = await evaluate(player, split, indices, options=config.env.options, seed=config.seed)
                self.store.add(self.run_id, done - 1, f"eval/{split}/{mode}", result.groups)
                values = {
                    "split": split,
                    "mode": mode,
                    "episodes": result.episodes,
                    f"success/{split}/{mode}": result.success,
                    f"reward/{split}/{mode}": result.reward,
                    f"turns/{split}/{mode}": result.turns,
                }
                self.metrics.add("eval", done, values)
                self.progress.evaluation(done, split, mode, result.success, result.episodes)
