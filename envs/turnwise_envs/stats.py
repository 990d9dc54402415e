"""What an environment is like to train on: its speed in process, and how an expert and a random policy fare in it.

Rates are steps per second. ``per core`` counts the CPU seconds of this process, so that others on the machine change
it little; an environment that computes in processes of its own is told better by its wall-clock rate. A first task is
played without being counted, so that imports and the like are in no figure. What was played is played again on bare
environments, three times, and the fastest counts; without determinism the first time counts.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import mean
from typing import TypeVar

from turnwise_envs.check.policy import Player
from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Action, JsonObject, StepResult

T = TypeVar("T")
Policy = Callable[[LiveEpisode], Action | None]

REPEATS = 3
#: Indices that are drawn from where a split has no end.
UNBOUNDED = 100_000


@dataclass(frozen=True)
class Fare:
    """How one policy fared. ``success`` is the share of its ``episodes`` that were solved; means are per episode."""

    episodes: int
    success: float
    reward: float
    turns: float


@dataclass(frozen=True)
class Stats:
    """Figures of one environment over both policies' ``steps``.

    ``steps_per_second`` is by the wall clock, ``steps_per_core`` by CPU time, both of the bare environment;
    ``live_steps_per_core`` is that of a LiveEpisode, which also validates and hashes. ``reset_seconds`` is a mean by the
    wall clock. ``expert`` is None where there is none.
    """

    env: str
    split: str
    size: int | None
    expert: Fare | None
    random: Fare
    steps: int
    steps_per_second: float
    steps_per_core: float
    live_steps_per_core: float
    reset_seconds: float


def measure(
    env_class: type[Environment],
    *,
    tasks: int = 50,
    seed: int = 0,
    split: str | None = None,
    options: JsonObject | None = None,
    seconds: float = 60.0,
) -> Stats:
    """Play ``tasks`` tasks of ``split`` (default: the first) as an expert and at random.

    A policy that has played for ``seconds`` begins no other task, so that slow environments have figures too. Raises
    whatever the environment does: UnknownTask, InvalidOptions, EnvironmentFault.
    """
    return asyncio.run(_measure(env_class, tasks, seed, split or env_class.spec.splits[0].name, options or {}, seconds))


def solved(last: StepResult) -> bool:
    """Whether an episode that ended so was a success: as its end says, else its metric, else its last reward."""
    if last.info.end == "solved":
        return True
    if "success" in last.info.metrics:
        return last.info.metrics["success"] >= 1.0
    return last.info.end is None and last.terminated and last.reward > 0


@dataclass
class _Watch:
    """Adds up what awaiting costs, in seconds."""

    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    async def over(self, awaited: Awaitable[T]) -> T:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return await awaited
        finally:
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu
            self.calls += 1


@dataclass(frozen=True)
class _Watches:
    reset: _Watch = field(default_factory=_Watch)
    step: _Watch = field(default_factory=_Watch)
    live: _Watch = field(default_factory=_Watch)


async def _measure(
    env_class: type[Environment], tasks: int, seed: int, split: str, options: JsonObject, seconds: float
) -> Stats:
    size = env_class.tasks.size(split)
    bound = UNBOUNDED if size is None else size
    indices = random.Random(seed).sample(range(bound), min(tasks, bound))
    watches = _Watches()
    everything: list[LiveEpisode] = []

    async def fare(policy: Callable[[int], Policy]) -> Fare:
        played: list[LiveEpisode] = []
        begun = time.perf_counter()
        for index in indices:
            if played and time.perf_counter() - begun > seconds:
                break
            played.append(await _play(env_class, (split, index, seed, options), policy(index), watches))
        everything.extend(played)
        return Fare(
            len(played),
            mean(float(solved(episode.records[-1].result)) for episode in played),
            mean(sum(record.result.reward for record in episode.records) for episode in played),
            mean(float(episode.turn) for episode in played),
        )

    def by_chance(index: int) -> Policy:
        return Player(random.Random(f"{seed}/{index}"), uninformed=True, limit=None)

    def by_expert(index: int) -> Policy:
        return lambda episode: episode.env.expert_action()

    for policy in (by_chance, by_expert):  # what a process does but once, such as imports, is in no figure
        await _play(env_class, (split, indices[0], seed, options), policy(indices[0]), _Watches())
    at_random, expert = await fare(by_chance), await fare(by_expert)
    step, live, reset = watches.step, watches.live, watches.reset
    if env_class.spec.deterministic:
        step = min([await _again(env_class, everything) for _ in range(REPEATS)], key=lambda watch: watch.cpu)
    return Stats(
        env_class.spec.id,
        split,
        size,
        expert if expert.turns else None,
        at_random,
        step.calls,
        step.calls / step.wall,
        step.calls / step.cpu,
        live.calls / live.cpu,
        reset.wall / reset.calls,
    )


async def _again(env_class: type[Environment], played: list[LiveEpisode]) -> _Watch:
    """The same actions on bare environments."""
    total = _Watch()
    for episode in played:
        env = env_class()
        await env.reset(episode.task, episode.seed, dict(episode.options))
        actions = [record.action for record in episode.records if record.action is not None]
        await total.over(_steps(env, actions))
        total.calls += len(actions) - 1  # the watch counts the episode as one
        await env.close()
    return total


async def _steps(env: Environment, actions: list[Action]) -> None:
    for action in actions:
        await env.step(action)


async def _play(
    env_class: type[Environment], start: tuple[str, int, int, JsonObject], policy: Policy, watches: _Watches
) -> LiveEpisode:
    """One episode, to its end or till the policy has nothing more to do; the environment's steps are watched."""
    episode = await watches.reset.over(LiveEpisode.start(env_class, *start))
    step = episode.env.step
    episode.env.step = lambda action: watches.step.over(step(action))  # type: ignore[method-assign]
    try:
        while not episode.done and (action := policy(episode)) is not None:
            await watches.live.over(episode.step(action))
        if not episode.done:
            await episode.finish("nothing more to do")
    finally:
        await episode.close()
    return episode
