"""Episodes on their way to become sessions: opened for a request, or branched off another one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass

from turnwise_envs.environment import Environment
from turnwise_envs.errors import EnvironmentFault, EpisodeDone, InvalidOptions, UnknownTask
from turnwise_envs.wire import CreateRequest
from turnwise_server.faults import env_failed
from turnwise_server.hosts import Beginning, Episode, EpisodeHost
from turnwise_server.ledger import Snapshot
from turnwise_server.log import Entry, Log
from turnwise_server.refusal import Refusal
from turnwise_server.replay import Diverged, close_quietly, moving, open_episode, rebuild, within

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Branch:
    """A session in the making. ``episode`` is None if it is done; ``state`` a snapshot, if it could not live without."""

    log: Log
    episode: Episode | None
    state: bytes | None = None


async def open_branch(
    host: EpisodeHost, env_class: type[Environment], request: CreateRequest, durable: bool, limit: float | None
) -> Branch:
    """A fresh episode that has taken the actions of ``request``; ``durable`` if it is to outlive this process.

    Raises:
        Refusal: unknown-task, invalid-request, replay-mismatch, env-failed.
    """
    where = f"{request.env}/{request.split}/{request.index}"

    def opened() -> Awaitable[tuple[Episode, list[Entry]]]:
        return open_episode(
            host, env_class, request.split, request.index, request.seed, request.options, request.actions, limit
        )

    spec = env_class.spec
    try:
        # Actions that may have effects are not taken a second time.
        repeatable = spec.deterministic or not request.actions
        episode, entries = await (moving(opened, losses=1) if repeatable else opened())
        state = None
        if durable and spec.snapshot and not spec.deterministic and not episode.done:
            # there is no other way back to the beginning
            state = await within(limit, f"snapshot of {where}", host.snapshot(episode))
    except UnknownTask as error:
        raise Refusal("unknown-task", str(error)) from error
    except InvalidOptions as error:
        raise Refusal("invalid-request", str(error)) from error
    except EpisodeDone as error:
        raise Refusal("replay-mismatch", f"{error}, before the last of {len(request.actions)} actions") from error
    except EnvironmentFault as error:
        logger.warning("opening %s: %s", where, error, exc_info=error)
        raise env_failed(f"opening {where}", error) from error
    if request.expect_hash is not None and request.expect_hash != episode.log_hash:
        await close_quietly(episode, limit)
        raise Refusal("replay-mismatch", f"the replay ended at {episode.log_hash}, not {request.expect_hash}")
    begin = Beginning(episode.task, episode.seed, episode.options, episode.initial, episode.initial_hash)
    return Branch(Log(spec.id, spec.version, begin, entries), episode, state)


async def branch_off(
    parent: str,
    host: EpisodeHost,
    env_class: type[Environment],
    log: Log,
    snapshot: Snapshot | None,
    count: int,
    limit: float | None,
) -> list[Branch]:
    """``count`` independent episodes at the end of ``log``, which is not done; all of them or none.

    ``parent`` names the session in errors.

    Raises:
        Refusal: not-forkable, env-failed.
    """

    def branch() -> Awaitable[Episode]:
        return rebuild(host, env_class, log, limit, snapshot)

    outcomes = await asyncio.gather(*(moving(branch, losses=1) for _ in range(count)), return_exceptions=True)
    faults = [one for one in outcomes if isinstance(one, BaseException)]
    episodes = [one for one in outcomes if not isinstance(one, BaseException)]
    if not faults:
        state = snapshot.state if snapshot is not None and not env_class.spec.deterministic else None
        return [Branch(log.until(log.turn), episode, state) for episode in episodes]
    await asyncio.gather(*(close_quietly(one, limit) for one in episodes))
    if isinstance(faults[0], Diverged):
        raise Refusal("not-forkable", str(faults[0])) from faults[0]
    if isinstance(faults[0], EnvironmentFault):
        raise env_failed(f"fork of {parent} at turn {log.turn}", faults[0]) from faults[0]
    raise faults[0]
