"""Where episodes live: the one place that starts, snapshots and restores them.

A session asks an :class:`EpisodeHost` for its :class:`Episode` and drives that. :class:`LocalHost` keeps episodes in
this process; another host may keep them elsewhere, as long as its episodes behave the same. Whatever a host is asked
to do runs under the wall-clock limit of :func:`turnwise_server.replay.within`, which cancels it when time is up, unless
the host keeps the time itself (:meth:`EpisodeHost.keeps_time`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from turnwise_envs.environment import Environment, SyncEnvironment
from turnwise_envs.episode import LiveEpisode, Record
from turnwise_envs.errors import EnvironmentFault
from turnwise_envs.types import Action, JsonObject, Observation, Reference, StepResult, Task
from turnwise_envs.wire import TaskPage

T = TypeVar("T")


class EnvironmentGone(EnvironmentFault):
    """The environment was lost before this call into it began: not by the call's doing, and the action did not happen.

    Rebuild the episode and call again. Any other EnvironmentFault is of the call that was running.
    """


class EnvironmentLost(EnvironmentFault):
    """The environment's process ended in this call: by the call's own doing, or killed from outside."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """How an episode began, which fixes everything that does not depend on its actions."""

    task: Task
    seed: int
    options: JsonObject
    initial: Observation
    initial_hash: str


class Episode(Protocol):
    """What a session needs of a live episode: the surface of :class:`turnwise_envs.episode.LiveEpisode`.

    ``records`` grows by one with each step and finish. The session takes the content of a record over into its own
    log and leaves only the last one where it was (:func:`turnwise_server.replay.take`).
    """

    task: Task
    seed: int
    options: JsonObject
    initial: Observation
    initial_hash: str
    records: list[Record]

    @property
    def turn(self) -> int: ...

    @property
    def done(self) -> bool: ...

    @property
    def log_hash(self) -> str: ...

    async def step(self, action: Action) -> StepResult:
        """Raises EpisodeDone, or EnvironmentFault for a turn that was not taken."""
        ...

    async def finish(self, reason: str) -> StepResult:
        """Raises like ``step``."""
        ...

    async def close(self) -> None: ...


class EpisodeHost(Protocol):
    """Makes episodes. An episode that is lost says so by EnvironmentGone from its next call."""

    def keeps_time(self, env_class: type[Environment]) -> bool:
        """Calls into this environment are bounded by the host itself, which knows when each begins."""
        ...

    async def start(
        self, env_class: type[Environment], split: str, index: int, seed: int, options: JsonObject
    ) -> Episode:
        """Reset a fresh environment. Raises UnknownTask, InvalidOptions, EnvironmentFault."""
        ...

    async def snapshot(self, episode: Episode) -> bytes:
        """The state of an episode that is not done and whose spec has snapshots."""
        ...

    async def restore(
        self, env_class: type[Environment], begin: Beginning, turn: int, log_hash: str, snapshot: bytes
    ) -> Episode:
        """An episode that goes on from ``snapshot``, taken at ``turn``, where the history had ``log_hash``."""
        ...

    async def tasks(self, env_class: type[Environment], split: str, offset: int, limit: int) -> TaskPage:
        """Some tasks of a split. Raises UnknownTask, or whatever the environment raises."""
        ...

    async def reference(self, env_class: type[Environment], task: Task) -> Reference:
        """The privileged half of a task. Raises whatever the environment raises."""
        ...

    async def close(self) -> None:
        """The server stops: free what the host itself holds."""
        ...


class LocalHost:
    """Episodes in this process, on its event loop."""

    def keeps_time(self, env_class: type[Environment]) -> bool:
        return False

    async def start(
        self, env_class: type[Environment], split: str, index: int, seed: int, options: JsonObject
    ) -> Episode:
        return await LiveEpisode.start(env_class, split, index, seed, options)

    async def snapshot(self, episode: Episode) -> bytes:
        assert isinstance(episode, LiveEpisode)
        return await _in_its_thread(episode.env, episode.env.snapshot)

    async def restore(
        self, env_class: type[Environment], begin: Beginning, turn: int, log_hash: str, snapshot: bytes
    ) -> Episode:
        env = env_class()
        try:
            await _in_its_thread(env, lambda: env.restore(snapshot))
        except BaseException:
            await env.close()
            raise
        return LiveEpisode(
            env,
            begin.task,
            begin.seed,
            begin.options,
            begin.initial,
            begin.initial_hash,
            [placeholder(log_hash)] * turn,
        )

    async def tasks(self, env_class: type[Environment], split: str, offset: int, limit: int) -> TaskPage:
        tasks = env_class.tasks
        total = tasks.size(split)
        stop = offset + limit if total is None else min(offset + limit, total)
        items = []
        for index in range(offset, stop):
            items.append(tasks.get(split, index))
            await asyncio.sleep(0)  # a task may take a millisecond to build: let others in between
        return TaskPage(items=items, total=total)

    async def reference(self, env_class: type[Environment], task: Task) -> Reference:
        return env_class.tasks.reference(task)

    async def close(self) -> None:
        return


async def _in_its_thread(env: Environment, work: Callable[[], T]) -> T:
    """A blocking environment is only touched where its steps run: some libraries insist on one thread."""
    return await asyncio.to_thread(work) if isinstance(env, SyncEnvironment) else work()


def placeholder(log_hash: str) -> Record:
    """Stands for the last step, whose content the session's log has: an episode needs no more of it than the hash."""
    return Record(_NO_ACTION, _NO_RESULT, log_hash)


_NO_ACTION = Action()
_NO_RESULT = StepResult(observation=Observation(messages=[]))
#: Stands for any step before the last one: all that an episode needs of those is how many they were.
PAST = placeholder("")
