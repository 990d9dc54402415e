"""All sessions of a server: opening, finding, forking, giving up. No HTTP in here.

With a journal, the sessions in memory are those that are being used. One that nobody asks for rests: it leaves memory
and comes back from the journal with the next request. So memory is bounded by what goes on, whatever clients forget to
close, and a session lives until it is over its time. Without a journal, everything is in memory, and bounded there:
live sessions, finished ones that are kept for their history, and the memory of sessions that are gone (so that a late
request hears 410 and not 404).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from turnwise_envs.canonical import canonical
from turnwise_envs.environment import Environment
from turnwise_envs.types import Noun
from turnwise_envs.wire import CreateRequest, ForkRequest, SessionPage, Status
from turnwise_server.auth import ANONYMOUS, Caller
from turnwise_server.branches import Branch, open_branch
from turnwise_server.hosts import EpisodeHost, LocalHost
from turnwise_server.journal.journal import Birth, Journal, NewKey
from turnwise_server.journal.reader import Gone as GoneRow
from turnwise_server.keys import KeyName, Keys
from turnwise_server.ledger import Ledger, NoLedger
from turnwise_server.logs import about
from turnwise_server.metrics import Metrics
from turnwise_server.refusal import Refusal
from turnwise_server.replay import close_quietly
from turnwise_server.session import Home, Session
from turnwise_server.settings import Settings

logger = logging.getLogger(__name__)

#: Remembered sessions that are gone. A late request comes soon after; this many make some megabytes.
TOMBSTONES = 16_384
#: Seconds after which a refused client may try again: about the time in which some episode ends, or is idle so long
#: that it gives way to a new one.
RETRY_AFTER = 5.0
#: Sessions put to rest at a time.
RESTING = 32

Gone = Literal["session-deleted", "session-expired"]


@dataclass(frozen=True, slots=True)
class Tombstone:
    owner: str
    gone: Gone
    keys: list[KeyName]


@dataclass(slots=True)
class Entry:
    session: Session
    ledger: Ledger
    born: float  # by the store's clock
    keys: list[KeyName] = field(default_factory=list)


class SessionStore:
    """The sessions of one server process. ``clock`` gives seconds on a scale that never goes back."""

    def __init__(
        self,
        envs: Mapping[str, type[Environment]],
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        host: EpisodeHost | None = None,
        journal: Journal | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.envs = envs
        self.journal = journal
        self._settings = settings
        self._clock = clock
        self._shortest = min(settings.idle_timeout, settings.lifetime)
        self.host = host or LocalHost()
        self._metrics = metrics or Metrics()
        self._metrics.watch_sessions(self._counts)
        self._home = Home(
            host=self.host,
            limit=settings.step_timeout,
            snapshot_every=settings.snapshot_every,
            max_history=settings.max_history,
            clock=clock,
            metrics=self._metrics,
            on_end=self._on_end,
            in_background=self._in_background,
        )
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._tombstones: OrderedDict[str, Tombstone] = OrderedDict()
        self._keys = Keys(journal)
        self._loading: dict[str, asyncio.Task[Entry | None]] = {}
        self._live: set[str] = set()
        self._ended: OrderedDict[str, None] = OrderedDict()  # done or failed, in that order
        self._opening = 0
        self._making_room = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    def env_class(self, env: str) -> type[Environment]:
        """Raises Refusal ``unknown-env``."""
        try:
            return self.envs[env]
        except KeyError:
            raise Refusal("unknown-env", f"no environment {env!r} here; served: {', '.join(self.envs)}") from None

    async def create(self, caller: Caller, request: CreateRequest) -> tuple[Session, bool]:
        """The session that ``request`` asks for, and whether it is new (its key was not seen before).

        Raises:
            Refusal: unknown-env, unknown-task, invalid-request, replay-mismatch, too-many-sessions, journal-full,
                env-failed, and session-deleted or session-expired for a key whose session is gone.
        """
        fingerprint = _fingerprint(request)
        env_class = self.env_class(request.env)
        limit = None if self.host.keeps_time(env_class) else self._settings.step_timeout

        async def make() -> list[Branch]:
            return [await open_branch(self.host, env_class, request, self.journal is not None, limit)]

        name = None if request.key is None else (caller.name, "create", request.key)
        ids, fresh = await self._keys.once(
            name, fingerprint, lambda: self._made(name, fingerprint, caller.name, env_class, 1, make)
        )
        return await self.get(caller, ids[0]), fresh

    async def fork(self, caller: Caller, parent: Session, request: ForkRequest) -> tuple[list[Session], bool]:
        """The sessions branched off ``parent``, and whether they are new (the key was not seen before).

        Raises:
            Refusal: invalid-request, not-forkable, too-many-sessions, journal-full, env-failed, session-deleted,
                session-expired, session-lost, version-mismatch.
        """

        def make() -> Coroutine[Any, Any, list[Branch]]:
            return parent.fork(request.at_turn, request.count)

        name = (caller.name, parent.id, request.key)
        fingerprint = _fingerprint(request)
        ids, fresh = await self._keys.once(
            name,
            fingerprint,
            lambda: self._made(name, fingerprint, caller.name, parent.env_class, request.count, make),
        )
        self._metrics.forks[parent.env] += len(ids) if fresh else 0
        return [await self.get(caller, session_id) for session_id in ids], fresh

    async def get(self, caller: Caller, session_id: str) -> Session:
        """A session, from memory or from the journal.

        Raises:
            Refusal: ``not-found`` (also for what belongs to others), ``session-expired``, ``session-deleted``,
                ``too-many-sessions`` (there is no room to bring it back).
        """
        about(session_id)
        entry = self._entries.get(session_id) or await self._load(session_id)
        if entry is None:
            tombstone = self._tombstones.get(session_id)
            if tombstone is None or not caller.may_use(tombstone.owner):
                raise Refusal("not-found", f"no session {session_id!r}")
            what = "was deleted" if tombstone.gone == "session-deleted" else "is over its lifetime; replay it to go on"
            raise Refusal(tombstone.gone, f"session {session_id} {what}")
        session = entry.session
        if not caller.may_use(session.owner):
            raise Refusal("not-found", f"no session {session_id!r}")
        now = self._clock()
        if max(now - session.last_used, now - entry.born) > self._shortest and self._overdue(entry):
            self._expire(session_id)
            return await self.get(caller, session_id)
        session.last_used = now
        return session

    def at_hand(self, caller: Caller, session_id: str) -> Session | None:
        """What :meth:`get` gives, if that is in memory and not over its time; else None."""
        entry = self._entries.get(session_id)
        if entry is None or not caller.may_use(entry.session.owner):
            return None
        now = self._clock()
        session = entry.session
        if now - session.last_used > self._shortest or now - entry.born > self._shortest:
            return None
        session.last_used = now
        return session

    async def delete(self, caller: Caller, session_id: str) -> None:
        """Give up a session, also for the second time. Raises Refusal ``not-found``, ``journal-full``."""
        try:
            await self.get(caller, session_id)
        except Refusal as refusal:
            if refusal.problem in ("session-deleted", "session-expired"):
                return
            raise
        entry = self._entries.get(session_id)
        if entry is not None:
            if self.journal is not None:
                await self.journal.give_up(entry.ledger, "session-deleted")
            self._bury(entry, "session-deleted")

    async def page(self, caller: Caller, status: Status | None, offset: int, limit: int) -> SessionPage:
        """The sessions that ``caller`` may use, oldest first."""
        if self.journal is not None:
            owners = None if "admin" in caller.scopes else [caller.name]
            if owners and "trainer" in caller.scopes:
                owners.append(ANONYMOUS)
            items, total = await self.journal.page(owners, status, offset, limit)
            return SessionPage(items=items, total=total)
        sessions = [
            entry.session
            for entry in self._entries.values()
            if caller.may_use(entry.session.owner) and (status is None or entry.session.status == status)
        ]
        return SessionPage(
            items=[session.summary() for session in sessions[offset : offset + limit]], total=len(sessions)
        )

    async def sweep(self) -> None:
        """Expire what is over its time, and put to rest what nobody has asked for lately."""
        resting = []
        for session_id, entry in list(self._entries.items()):
            if self._overdue(entry):
                self._expire(session_id)
            elif self._idle_for(entry.session) > self._settings.passivate_after and entry.session.can_rest:
                resting.append(entry.session)
        await self._put_to_rest(resting)
        if self.journal is not None:
            idle, lifetime = self._settings.idle_timeout, self._settings.lifetime
            await self.journal.expire_overdue(idle, lifetime, self._entries)
            await self.journal.tidy(self._settings.retain, self._settings.retain_bytes)

    async def run_sweeper(self) -> None:
        """Sweep for ever, often enough that nothing overstays by more than a quarter of its time."""
        settings = self._settings
        shortest = (
            settings.idle_timeout if self.journal is None else min(settings.passivate_after, settings.idle_timeout)
        )
        while True:
            await asyncio.sleep(min(shortest / 4, 60.0))
            try:
                await self.sweep()
            except Exception:
                logger.exception("sweeping")

    async def close(self) -> None:
        """Free all environments. What is in the journal stays there."""
        makers = self._keys.cancel()
        for entry in self._entries.values():
            self._in_background(entry.session.close())
        self._entries.clear()
        if pending := {*makers, *self._background}:
            await asyncio.wait(pending, timeout=self._settings.step_timeout)
        await self.host.close()
        if self.journal is not None:
            await self.journal.close()

    async def _made(
        self,
        name: KeyName | None,
        fingerprint: bytes,
        owner: str,
        env_class: type[Environment],
        count: int,
        make: Callable[[], Coroutine[Any, Any, list[Branch]]],
    ) -> list[str]:
        """Make ``count`` sessions, all or none; their ids."""
        await self._reserve(count)
        try:
            branches = await make()
            try:
                return await self._admit(name, fingerprint, owner, env_class, branches)
            except BaseException:
                for branch in branches:
                    if branch.episode is not None:
                        self._in_background(close_quietly(branch.episode, self._settings.step_timeout))
                raise
        finally:
            self._opening -= count

    async def _admit(
        self,
        name: KeyName | None,
        fingerprint: bytes,
        owner: str,
        env_class: type[Environment],
        branches: list[Branch],
    ) -> list[str]:
        """Turn new episodes into sessions, once they are written down."""
        ids = [f"s_{secrets.token_hex(16)}" for _ in branches]
        ledgers: list[Ledger] = [NoLedger() for _ in branches]
        if self.journal is not None:
            births = [Birth(sid, owner, one.log, one.state) for sid, one in zip(ids, branches, strict=True)]
            key = None if name is None else NewKey(*name, fingerprint)
            ledgers, durable = self.journal.begin(births, key)
            await durable
        now = self._clock()
        keys = [] if name is None or self.journal is not None else [name]
        for session_id, branch, ledger in zip(ids, branches, ledgers, strict=True):
            session = Session(session_id, owner, env_class, branch.log, self._home, ledger, branch.episode)
            self._enter(session, ledger, now, keys)
            if session.status != "live":
                self._on_end(session_id)
                self._in_background(session.release())
        return ids

    def _enter(self, session: Session, ledger: Ledger, born: float, keys: list[KeyName]) -> Entry:
        entry = self._entries[session.id] = Entry(session, ledger, born, keys)
        self._live.add(session.id)
        return entry

    async def _load(self, session_id: str) -> Entry | None:
        """Bring a session back from the journal, once for all who ask for it; None if it is not there any more."""
        if self.journal is None or session_id in self._tombstones:
            return None
        loading = self._loading.get(session_id)
        if loading is None:
            loading = self._loading[session_id] = asyncio.create_task(self._loaded(self.journal, session_id))
            loading.add_done_callback(lambda task: self._loading.pop(session_id))
        return await asyncio.shield(loading)

    async def _loaded(self, journal: Journal, session_id: str) -> Entry | None:
        found = await journal.find(session_id)
        if found is None:
            return None
        if isinstance(found, GoneRow):
            self._remember(session_id, Tombstone(found.owner, cast(Gone, found.why), []))
            return None
        if session_id in self._tombstones:
            return None  # it went while it was being read
        stored, ledger = found
        env_class = self.envs.get(stored.log.env)
        if env_class is None:
            return None  # a journal is taken over only if all of its environments are served
        await self._reserve(1, comes_back=True)
        self._opening -= 1
        now, wall = self._clock(), time.time()
        spec = env_class.spec
        failure = stored.failure
        if failure is None and not (stored.log.done or spec.deterministic or spec.snapshot):
            failure = "lost"
        session = Session(
            session_id,
            stored.owner,
            env_class,
            stored.log,
            self._home,
            ledger,
            failure=failure,
            indeterminate=stored.indeterminate,
        )
        session.last_used = now - (wall - max(stored.used_at, journal.opened_at))
        entry = self._enter(session, ledger, now - (wall - stored.begun_at), [])
        if session.status != "live":
            self._on_end(session_id)
        return entry

    def _on_end(self, session_id: str) -> None:
        """A finished session is kept for its answers, until there are too many of them."""
        if session_id in self._live:  # and not deleted in the meantime
            self._live.remove(session_id)
            self._ended[session_id] = None
        while len(self._ended) > self._settings.max_sessions:
            oldest, _ = self._ended.popitem(last=False)
            if self.journal is None:
                self._bury(self._entries[oldest], "session-expired")
            else:
                self._in_background(self._put_to_rest([self._entries[oldest].session]))

    async def _reserve(self, count: int, comes_back: bool = False) -> None:
        """Room in memory for ``count`` more live sessions; others may have to rest for it.

        For a session that comes back, any other that is idle gives way; for a new one, those idle for some seconds.
        Raises Refusal ``too-many-sessions``.
        """
        limit = self._settings.max_sessions
        if self.journal is not None and self._taken() + count > limit:
            async with self._making_room:
                excess = self._taken() + count - limit
                if excess > 0:
                    idle = 0.0 if comes_back else RETRY_AFTER
                    live = [self._entries[session_id].session for session_id in self._live]
                    able = [one for one in live if one.can_rest and not one.busy and self._idle_for(one) >= idle]
                    if excess <= len(able):  # else it is refused, and nobody has to go for that
                        able.sort(key=lambda session: session.last_used)
                        await self._put_to_rest(able[: excess + limit // 64])  # some more: do not sort every time
        if self._taken() + count > limit:
            raise Refusal(
                "too-many-sessions",
                f"{self._taken()} of {limit} sessions are live; finish or delete some, or try again",
                RETRY_AFTER,
            )
        self._opening += count

    def _counts(self) -> dict[str, int]:
        counts = dict.fromkeys(("active", "idle", "done", "failed"), 0)
        for entry in self._entries.values():
            session = entry.session
            counts[session.status if session.status != "live" else "active" if session.awake else "idle"] += 1
        return counts

    def _taken(self) -> int:
        return self._opening + len(self._live)

    async def _put_to_rest(self, sessions: list[Session]) -> None:
        for start in range(0, len(sessions), RESTING):
            await asyncio.gather(*(self._rest(session) for session in sessions[start : start + RESTING]))

    async def _rest(self, session: Session) -> None:
        async def successor() -> Session:
            self._leave(session)
            entry = self._entries.get(session.id) or await self._load(session.id)
            if entry is None:
                raise Refusal("session-deleted", f"session {session.id} is gone")
            return entry.session

        entry = self._entries.get(session.id)
        if entry is None or entry.session is not session or not await session.rest(successor):
            return
        if not self._leave(session):
            return
        self._metrics.rests[session.env] += 1
        if self.journal is not None and session.status == "live":
            used_at = time.time() - self._idle_for(session)
            with suppress(Refusal):  # on a full disk it counts as used when it was last stepped
                await self.journal.used(entry.ledger, used_at)

    def _leave(self, session: Session) -> bool:
        """Take a session that rests out of memory; False if another object serves it already."""
        entry = self._entries.get(session.id)
        if entry is None or entry.session is not session:
            return False
        del self._entries[session.id]
        self._live.discard(session.id)
        self._ended.pop(session.id, None)
        return True

    def _idle_for(self, session: Session) -> float:
        return 0.0 if session.busy else self._clock() - session.last_used

    def _overdue(self, entry: Entry) -> bool:
        session = entry.session
        if self.journal is not None and session.status != "live":
            return False  # its answers are kept for the time of ``retain``
        idle = self._idle_for(session) > self._settings.idle_timeout
        return idle or (not session.busy and self._clock() - entry.born > self._settings.lifetime)

    def _expire(self, session_id: str) -> None:
        entry = self._entries[session_id]
        if self.journal is not None:
            self.journal.give_up(entry.ledger, "session-expired")
        self._bury(entry, "session-expired")

    def _bury(self, entry: Entry, gone: Gone) -> None:
        """The session of ``entry`` is gone, whichever object serves it by now."""
        session_id = entry.session.id
        self._remember(session_id, Tombstone(entry.session.owner, gone, entry.keys))
        serving = self._entries.pop(session_id, None)
        if serving is not None:
            self._live.discard(session_id)
            self._ended.pop(session_id, None)
            self._in_background(serving.session.close())

    def _remember(self, session_id: str, tombstone: Tombstone) -> None:
        self._tombstones[session_id] = tombstone
        while len(self._tombstones) > TOMBSTONES:
            _, forgotten = self._tombstones.popitem(last=False)
            self._keys.forget(forgotten.keys)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _fingerprint(request: Noun) -> bytes:
    """What a request asks for. Raises Refusal ``invalid-request`` for one without canonical bytes."""
    try:
        return hashlib.sha256(canonical(dict(request))).digest()
    except ValueError as error:
        raise Refusal("invalid-request", str(error)) from error
