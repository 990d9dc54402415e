"""Run an environment under a wall-clock limit, and rebuild an episode from its log.

Whatever goes wrong inside an environment leaves here as an ``EnvironmentFault``, and nothing that was opened on the
way stays open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode, Record
from turnwise_envs.errors import EnvironmentFault, EpisodeDone, InvalidOptions, UnknownTask
from turnwise_envs.types import Action, JsonObject

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Diverged(EnvironmentFault):
    """A replay reached another history: the environment is not deterministic."""


async def within(limit: float, what: str, work: Awaitable[T]) -> T:
    """The result of ``work``, an environment's doing, after at most ``limit`` seconds.

    Raises:
        EnvironmentFault: too late, an unexpected exception, an attempt to exit the process, a stray cancellation.
        UnknownTask, InvalidOptions, EpisodeDone: as ``work`` raised them.
    """
    try:
        async with asyncio.timeout(limit):
            return await work
    except (EnvironmentFault, UnknownTask, InvalidOptions, EpisodeDone):
        raise
    except TimeoutError as error:
        raise EnvironmentFault(f"{what} took longer than {limit:g} s") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # we are being cancelled, and not something inside the environment
        raise EnvironmentFault(f"{what} was cancelled from within the environment") from error
    except (Exception, SystemExit) as error:
        raise EnvironmentFault(f"{what} failed: {type(error).__name__}: {error}") from error


async def open_episode(
    env_class: type[Environment],
    split: str,
    index: int,
    seed: int,
    options: JsonObject,
    actions: Sequence[Action],
    limit: float,
) -> LiveEpisode:
    """Start an episode and take ``actions``. Raises like :func:`within`; EpisodeDone if it ends before the last one."""
    name = f"{env_class.spec.id}/{split}/{index}"
    episode = await within(limit, f"reset of {name}", LiveEpisode.start(env_class, split, index, seed, options))
    try:
        for turn, action in enumerate(actions):
            await within(limit, f"step {turn} of {name}", episode.step(action))
    except BaseException:
        await close_quietly(episode, limit)
        raise
    return episode


async def rebuild(episode: LiveEpisode, records: Sequence[Record], limit: float) -> LiveEpisode:
    """A fresh episode that has gone through ``records``, a prefix of the log of ``episode``.

    Raises:
        Diverged: it ended up with another history.
        EnvironmentFault: the environment failed on the way.
    """
    task = episode.task
    copy = await within(
        limit,
        f"reset of {task.id}",
        LiveEpisode.start(type(episode.env), task.split, task.index, episode.seed, episode.options),
    )
    try:
        for turn, record in enumerate(records):
            if record.action is not None:
                await within(limit, f"replaying step {turn} of {task.id}", copy.step(record.action))
            else:
                reason = (record.result.info.end or "").removeprefix("finished:")
                await within(limit, f"replaying the finish of {task.id}", copy.finish(reason))
        if copy.log_hash != (records[-1].log_hash if records else episode.initial_hash):
            raise EpisodeDone("reached another hash")
    except EpisodeDone as error:
        await close_quietly(copy, limit)
        raise Diverged(
            f"replaying {task.id} to turn {len(records)} reached another history: the environment is not deterministic"
        ) from error
    except BaseException:
        await close_quietly(copy, limit)
        raise
    return copy


async def branch(episode: LiveEpisode, at_turn: int, limit: float) -> LiveEpisode:
    """An independent episode with the first ``at_turn`` actions of ``episode``: by snapshot where that is possible.

    Raises like :func:`rebuild`.
    """
    if at_turn == episode.turn:
        if episode.env.spec.snapshot and not episode.done:
            return await within(limit, f"fork of {episode.task.id}", episode.fork())
        return await rebuild(episode, episode.records, limit)
    return await rebuild(episode, episode.records[:at_turn], limit)


async def close_quietly(episode: LiveEpisode, limit: float) -> None:
    """Close the environment; a failure to do so is logged, for nobody waits for it."""
    try:
        await within(limit, f"close of {episode.task.id}", episode.close())
    except EnvironmentFault as fault:
        logger.warning("%s", fault)
