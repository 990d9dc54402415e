"""Run an environment under a wall-clock limit, and rebuild an episode from its log.

Whatever goes wrong inside an environment leaves here as an ``EnvironmentFault``, and nothing that was opened on the
way stays open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from functools import partial
from types import coroutine
from typing import Any, TypeVar

from turnwise_envs.environment import Environment
from turnwise_envs.errors import EnvironmentFault, EpisodeDone, InvalidOptions, UnknownTask
from turnwise_envs.types import Action, JsonObject
from turnwise_server.hosts import PAST, EnvironmentGone, EnvironmentLost, Episode, EpisodeHost
from turnwise_server.ledger import Snapshot
from turnwise_server.log import Entry, Log, action_json

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: How often an episode looks for another place before that counts as its own failure. Each time some other session has
#: taken a worker down, which costs that session its life: more than a few in a row are not to be expected.
MOVES = 20


class Diverged(EnvironmentFault):
    """A replay reached another history: the environment is not deterministic."""


async def moving(work: Callable[[], Awaitable[T]], losses: int = 0) -> T:
    """The result of ``work``, begun again whenever its environment is gone through no doing of its own.

    ``losses`` times it is also begun again if the environment was lost in it. Raises what ``work`` raises.
    """
    for _ in range(MOVES):
        try:
            return await work()
        except EnvironmentGone as gone:
            logger.info("%s; moving", gone)
        except EnvironmentLost as lost:
            if losses == 0:
                raise
            losses -= 1
            logger.warning("%s; once more", lost)
    return await work()


async def within(limit: float | None, what: str, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, an environment's doing, after at most ``limit`` seconds (None: its host keeps the time).

    Most environments answer without ever waiting, and then no clock is set.

    Raises:
        EnvironmentFault: too late, an unexpected exception, an attempt to exit the process, a stray cancellation.
        UnknownTask, InvalidOptions, EpisodeDone: as ``work`` raised them.
    """
    clock = None
    try:
        try:
            waits_for = work.send(None)
        except StopIteration as done:
            at_once: T = done.value
            return at_once
        clock = asyncio.timeout(limit)
        async with clock:
            return await _goes_on(work, waits_for)
    except (EnvironmentFault, UnknownTask, InvalidOptions, EpisodeDone):
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # we are being cancelled, and not something inside the environment
        raise EnvironmentFault(f"{what} was cancelled from within the environment") from error
    except (Exception, SystemExit) as error:
        if limit is not None and clock is not None and clock.expired():
            raise EnvironmentFault(f"{what} took longer than {limit:g} s") from error
        raise EnvironmentFault(f"{what} failed: {type(error).__name__}: {error}") from error


async def open_episode(
    host: EpisodeHost,
    env_class: type[Environment],
    split: str,
    index: int,
    seed: int,
    options: JsonObject,
    actions: Sequence[Action],
    limit: float | None,
) -> tuple[Episode, list[Entry]]:
    """Start an episode and take ``actions``; with it, their log.

    Raises like :func:`within`; EpisodeDone if it ends before the last action.
    """
    name = f"{env_class.spec.id}/{split}/{index}"
    episode = await within(limit, f"reset of {name}", host.start(env_class, split, index, seed, options))
    entries = []
    try:
        for turn, action in enumerate(actions):
            await within(limit, f"step {turn} of {name}", episode.step(action))
            entries.append(take(episode, action_json(action)))
    except BaseException:
        await close_quietly(episode, limit)
        raise
    return episode, entries


async def rebuild(
    host: EpisodeHost, env_class: type[Environment], log: Log, limit: float | None, snapshot: Snapshot | None = None
) -> Episode:
    """A fresh episode at the end of ``log``, which must not be done: from ``snapshot``, or by replay from the start.

    A snapshot is a fast path only. One that does not lead there is passed over if the environment can be replayed.

    Raises:
        Diverged: the replay ended up with another history.
        EnvironmentGone, EnvironmentLost: the place where it was being rebuilt was lost.
        EnvironmentFault: the environment failed on the way.
    """
    name = log.begin.task.id
    if snapshot is not None:
        turn, state = snapshot
        log_hash = log.entries[turn - 1].log_hash if turn else log.begin.initial_hash
        try:
            episode = await within(
                limit, f"restoring {name} at turn {turn}", host.restore(env_class, log.begin, turn, log_hash, state)
            )
            return await _replayed(episode, log, limit)
        except (EnvironmentGone, EnvironmentLost):
            raise
        except EnvironmentFault as fault:
            if not env_class.spec.deterministic:
                raise
            logger.warning("%s; replaying it from the start", fault, exc_info=fault)
    task = log.begin.task
    episode = await within(
        limit, f"reset of {name}", host.start(env_class, task.split, task.index, log.begin.seed, log.begin.options)
    )
    return await _replayed(episode, log, limit)


def take(episode: Episode, action: bytes | None) -> Entry:
    """The newest record of ``episode``, for the session's log; ``action`` is its action in JSON."""
    entry = Entry.of(episode.records[-1], action)
    _forget(episode)
    return entry


async def close_quietly(episode: Episode, limit: float | None) -> None:
    """Close the environment; a failure to do so is logged, for nobody waits for it."""
    try:
        await within(limit, f"close of {episode.task.id}", episode.close())
    except EnvironmentFault as fault:
        logger.warning("%s", fault)


@coroutine
def _goes_on(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """``work``, which has begun and waits for something, to its end, in the same task."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:
            step = partial(work.throw, error)
        else:
            step = partial(work.send, sent)
        try:
            waits_for = step()
        except StopIteration as done:
            result: T = done.value
            return result


def _forget(episode: Episode) -> None:
    """The log has all records. An episode needs its last one, and to know how many there were before."""
    if len(episode.records) > 1:
        episode.records[-2] = PAST


async def _replayed(episode: Episode, log: Log, limit: float | None) -> Episode:
    """``episode``, taken from where it is to the end of ``log``; it is closed if that is not where it leads."""
    name = log.begin.task.id
    try:
        for entry in log.entries[episode.turn :]:
            assert entry.action is not None, "a log that goes on has no finish"
            action = Action.model_validate_json(entry.action)
            await within(limit, f"replaying step {episode.turn} of {name}", episode.step(action))
            _forget(episode)
        if episode.log_hash != log.log_hash:
            raise EpisodeDone("reached another hash")
    except EpisodeDone as error:
        await close_quietly(episode, limit)
        raise Diverged(
            f"replaying {name} to turn {log.turn} reached another history: the environment is not deterministic"
        ) from error
    except BaseException:
        await close_quietly(episode, limit)
        raise
    return episode
