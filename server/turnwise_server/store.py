"""All sessions of a server: opening, finding, forking, giving up. No HTTP in here.

Everything is bounded: live sessions, finished ones that are kept for their history, and the memory of sessions that
are gone (so that a late request hears 410 and not 404).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from turnwise_envs.canonical import canonical
from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.errors import EnvironmentFault, EpisodeDone, InvalidOptions, UnknownTask
from turnwise_envs.types import Noun
from turnwise_envs.wire import CreateRequest, ForkRequest, Status
from turnwise_server.auth import Caller
from turnwise_server.refusal import Refusal
from turnwise_server.replay import close_quietly, open_episode
from turnwise_server.session import Session, env_failed
from turnwise_server.settings import Settings

logger = logging.getLogger(__name__)

#: Remembered sessions that are gone. A late request comes soon after; this many make some megabytes.
TOMBSTONES = 16_384
#: Seconds after which a refused client may try again: about the time in which some episode ends.
RETRY_AFTER = 5.0

Gone = Literal["session-deleted", "session-expired"]
#: Whose key it is, what it is for ("create" or the id of a forked session), and the key.
KeyName = tuple[str, str, str]


@dataclass(frozen=True)
class Tombstone:
    owner: str
    gone: Gone
    keys: list[KeyName]


@dataclass
class Keyed:
    """What was asked under an idempotency key, and the task that makes its sessions (ids, in order)."""

    fingerprint: bytes
    task: asyncio.Task[list[str]]


@dataclass
class Entry:
    session: Session
    keys: list[KeyName] = field(default_factory=list)


class SessionStore:
    """The sessions of one server process, in memory. ``clock`` gives seconds on a scale that never goes back."""

    def __init__(
        self,
        envs: Mapping[str, type[Environment]],
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.envs = envs
        self._settings = settings
        self._clock = clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._tombstones: OrderedDict[str, Tombstone] = OrderedDict()
        self._keyed: dict[KeyName, Keyed] = {}
        self._live: set[str] = set()
        self._ended: OrderedDict[str, None] = OrderedDict()  # done or failed, in that order
        self._opening = 0
        self._closing: set[asyncio.Task[None]] = set()

    def env_class(self, env: str) -> type[Environment]:
        """Raises Refusal ``unknown-env``."""
        try:
            return self.envs[env]
        except KeyError:
            raise Refusal("unknown-env", f"no environment {env!r} here; served: {', '.join(self.envs)}") from None

    async def create(self, caller: Caller, request: CreateRequest) -> tuple[Session, bool]:
        """The session that ``request`` asks for, and whether it is new (its key was not seen before).

        Raises:
            Refusal: unknown-env, unknown-task, invalid-request, replay-mismatch, too-many-sessions, env-failed,
                and session-deleted or session-expired for a key whose session is gone.
        """
        fingerprint = _fingerprint(request)
        env_class = self.env_class(request.env)

        async def make() -> list[LiveEpisode]:
            return [await self._replayed(env_class, request)]

        name = None if request.key is None else (caller.name, "create", request.key)
        sessions, fresh = await self._once(name, fingerprint, caller, 1, make)
        return sessions[0], fresh

    async def fork(self, caller: Caller, parent: Session, request: ForkRequest) -> tuple[list[Session], bool]:
        """The sessions branched off ``parent``, and whether they are new (the key was not seen before).

        Raises:
            Refusal: invalid-request, not-forkable, too-many-sessions, env-failed, session-deleted, session-expired.
        """

        def make() -> Coroutine[Any, Any, list[LiveEpisode]]:
            return parent.fork(request.at_turn, request.count)

        name = (caller.name, parent.id, request.key)
        return await self._once(name, _fingerprint(request), caller, request.count, make)

    def get(self, caller: Caller, session_id: str) -> Session:
        """Raises Refusal ``not-found`` (also for what belongs to others), ``session-expired``, ``session-deleted``."""
        entry = self._entries.get(session_id)
        if entry is None:
            tombstone = self._tombstones.get(session_id)
            if tombstone is None or not caller.may_use(tombstone.owner):
                raise Refusal("not-found", f"no session {session_id!r}")
            what = "was deleted" if tombstone.gone == "session-deleted" else "is over its lifetime; replay it to go on"
            raise Refusal(tombstone.gone, f"session {session_id} {what}")
        session = entry.session
        if not caller.may_use(session.owner):
            raise Refusal("not-found", f"no session {session_id!r}")
        if self._idle(session):
            self._bury(session_id, "session-expired")
            return self.get(caller, session_id)
        session.touch()
        return session

    def delete(self, caller: Caller, session_id: str) -> None:
        """Give up a session, also for the second time. Raises Refusal ``not-found``."""
        try:
            self.get(caller, session_id)
        except Refusal as refusal:
            if refusal.problem == "not-found":
                raise
            return
        self._bury(session_id, "session-deleted")

    def visible(self, caller: Caller, status: Status | None = None) -> list[Session]:
        """The sessions that ``caller`` may use, oldest first."""
        return [
            entry.session
            for entry in self._entries.values()
            if caller.may_use(entry.session.owner) and (status is None or entry.session.status == status)
        ]

    def sweep(self) -> None:
        """Expire what nobody has asked for in ``idle_timeout`` seconds."""
        for session in [entry.session for entry in self._entries.values()]:
            if self._idle(session):
                self._bury(session.id, "session-expired")

    async def run_sweeper(self) -> None:
        """Sweep for ever, often enough that an idle session overstays by a quarter of its lifetime at most."""
        while True:
            await asyncio.sleep(min(self._settings.idle_timeout / 4, 60.0))
            self.sweep()

    async def close(self) -> None:
        """Free all environments."""
        makers = [keyed.task for keyed in self._keyed.values() if not keyed.task.done()]
        for maker in makers:
            maker.cancel()
        for session_id in list(self._entries):
            self._bury(session_id, "session-expired")
        if pending := {*makers, *self._closing}:
            await asyncio.wait(pending, timeout=self._settings.step_timeout)

    async def _once(
        self,
        name: KeyName | None,
        fingerprint: bytes,
        caller: Caller,
        count: int,
        make: Callable[[], Coroutine[Any, Any, list[LiveEpisode]]],
    ) -> tuple[list[Session], bool]:
        """Make ``count`` sessions, or find those that were made, or are being made, under the same key."""
        keyed = None if name is None else self._keyed.get(name)
        fresh = keyed is None
        if keyed is None:
            self._reserve(count)
            keyed = Keyed(fingerprint, asyncio.create_task(self._admit(name, caller.name, count, make)))
            keyed.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            if name is not None:
                self._keyed[name] = keyed
        elif keyed.fingerprint != fingerprint:
            raise Refusal("invalid-request", "key: it was used before, for another request")
        ids = await asyncio.shield(keyed.task)
        return [self.get(caller, session_id) for session_id in ids], fresh

    async def _admit(
        self,
        name: KeyName | None,
        owner: str,
        count: int,
        make: Callable[[], Coroutine[Any, Any, list[LiveEpisode]]],
    ) -> list[str]:
        """Turn new episodes into sessions. Without any, the key is free again, so that a retry tries again."""
        try:
            episodes = await make()
        except BaseException:
            if name is not None:
                self._keyed.pop(name, None)
            raise
        finally:
            self._opening -= count
        ids = []
        for episode in episodes:
            session_id = f"s_{secrets.token_hex(16)}"
            session = Session(session_id, owner, episode, self._settings.step_timeout, self._clock, self._on_end)
            self._entries[session_id] = Entry(session, [] if name is None else [name])
            self._live.add(session_id)
            ids.append(session_id)
            if episode.done:
                self._on_end(session_id)
                self._in_background(session.release())
        return ids

    def _on_end(self, session_id: str) -> None:
        """A finished session is kept for its answers, until there are too many of them."""
        if session_id in self._live:  # and not deleted in the meantime
            self._live.remove(session_id)
            self._ended[session_id] = None
        while len(self._ended) > self._settings.max_sessions:
            self._bury(next(iter(self._ended)), "session-expired")

    def _reserve(self, count: int) -> None:
        live = self._opening + len(self._live)
        if live + count > self._settings.max_sessions:
            raise Refusal(
                "too-many-sessions",
                f"{live} of {self._settings.max_sessions} sessions are live; finish or delete some, or try again",
                RETRY_AFTER,
            )
        self._opening += count

    async def _replayed(self, env_class: type[Environment], request: CreateRequest) -> LiveEpisode:
        limit = self._settings.step_timeout
        where = f"{request.env}/{request.split}/{request.index}"
        try:
            episode = await open_episode(
                env_class, request.split, request.index, request.seed, request.options, request.actions, limit
            )
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
        return episode

    def _idle(self, session: Session) -> bool:
        return not session.busy and self._clock() - session.last_used > self._settings.idle_timeout

    def _bury(self, session_id: str, gone: Gone) -> None:
        entry = self._entries.pop(session_id)
        self._live.discard(session_id)
        self._ended.pop(session_id, None)
        self._tombstones[session_id] = Tombstone(entry.session.owner, gone, entry.keys)
        while len(self._tombstones) > TOMBSTONES:
            _, forgotten = self._tombstones.popitem(last=False)
            for name in forgotten.keys:
                self._keyed.pop(name, None)
        self._in_background(entry.session.close())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _fingerprint(request: Noun) -> bytes:
    """What a request asks for. Raises Refusal ``invalid-request`` for one without canonical bytes."""
    try:
        return hashlib.sha256(canonical(request)).digest()
    except ValueError as error:
        raise Refusal("invalid-request", str(error)) from error
