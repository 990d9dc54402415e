"""A session: one episode and the rules of its turns (protocol.md, "Sessions"). No HTTP in here.

However often a step is sent, it happens once: a turn that was taken answers from the log, a duplicate of the one in
flight joins it. The work of a turn is a task of its own, so a client that hangs up does not interrupt it.

The log is the session; the environment is there while it is needed. It is brought back for the next turn after the
session rested, after a restart, or after it was lost (the latest snapshot, and replay from there). A turn enters the
log when the ledger has it, and is acknowledged after that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from turnwise_envs.environment import Environment
from turnwise_envs.errors import EnvironmentFault
from turnwise_envs.types import Task
from turnwise_envs.wire import SessionSummary, SessionView, Status, StepView
from turnwise_server.branches import Branch, branch_off
from turnwise_server.faults import env_failed, lost
from turnwise_server.flight import Flight
from turnwise_server.hosts import EnvironmentGone, EnvironmentLost, Episode, EpisodeHost
from turnwise_server.ledger import Failure, Ledger, Snapshot
from turnwise_server.log import Entry, Intent, Log, answer, history
from turnwise_server.metrics import Metrics
from turnwise_server.refusal import Refusal
from turnwise_server.replay import Diverged, close_quietly, moving, rebuild, take, within
from turnwise_server.views import session_view

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Home:
    """What all sessions of a server share.

    ``limit`` bounds every call into an environment, in seconds, ``max_history`` a log in bytes. ``on_end`` hears the
    id when a session, live at first, is done or failed; ``in_background`` runs what nobody waits for.
    """

    host: EpisodeHost
    limit: float
    snapshot_every: int
    max_history: int
    clock: Callable[[], float]
    metrics: Metrics
    on_end: Callable[[str], None]
    in_background: Callable[[Coroutine[Any, Any, None]], None]


class Session:
    """One episode behind a session id."""

    def __init__(
        self,
        session_id: str,
        owner: str,
        env_class: type[Environment],
        log: Log,
        home: Home,
        ledger: Ledger,
        episode: Episode | None = None,
        failure: Failure | None = None,
        indeterminate: bool = False,
    ) -> None:
        self.id = session_id
        self.owner = owner
        self.env_class = env_class
        self.last_used = home.clock()
        self._log = log
        self._home = home
        self._limit = None if home.host.keeps_time(env_class) else home.limit  # None: the host sees to that
        self._ledger = ledger
        self._episode = episode  # None: not in memory, or closed for good
        self._failure = failure
        self._indeterminate = indeterminate  # a step with effects was begun, and nobody knows how it ended
        self._lock = asyncio.Lock()  # held while the episode is stepped, forked or put to rest
        self._in_flight: Flight | None = None
        self._unsaved: tuple[Entry, bytes | None] | None = None  # taken, but the ledger would not have it yet
        self._saved_turn = -1  # of the newest snapshot that this object knows to be kept
        self._gone = False
        self._successor: Callable[[], Awaitable[Session]] | None = None  # this object rests: who serves instead

    @property
    def status(self) -> Status:
        return "failed" if self._failure else "done" if self._log.done else "live"

    @property
    def env(self) -> str:
        return self._log.env

    @property
    def task(self) -> Task:
        return self._log.begin.task

    @property
    def awake(self) -> bool:
        """The environment is in memory."""
        return self._episode is not None

    @property
    def busy(self) -> bool:
        """Somebody is being served right now, or a taken turn is still to be written down."""
        return self._in_flight is not None or self._lock.locked() or self._unsaved is not None

    @property
    def can_rest(self) -> bool:
        """It could leave memory and come back."""
        spec = self.env_class.spec
        return self._ledger.durable and (self.status != "live" or spec.deterministic or spec.snapshot)

    def touch(self) -> None:
        """Somebody asked for this session, or was served just now: its idle time starts anew."""
        self.last_used = self._home.clock()

    async def submit(self, intent: Intent) -> StepView:
        """Like :meth:`take`, as a model."""
        return StepView.model_validate_json(await self.take(intent))

    async def take(self, intent: Intent) -> bytes:
        """Carry out ``intent``, or answer it from the log, or join it: a StepView in JSON.

        Raises:
            Refusal: turn-conflict, turn-ahead, session-done, env-failed, session-deleted, step-indeterminate,
                session-lost, version-mismatch, journal-full.
        """
        while True:
            if self._successor is not None:
                return await (await self._successor()).take(intent)
            flight = self._in_flight
            if flight is not None and self._recorded(intent) is None and not intent.same_as(flight.intent):
                await asyncio.wait({flight.task})
                continue  # the turn is now taken, or free again
            begun = self.begin(intent)
            return begun if isinstance(begun, bytes) else await begun.join()

    @property
    def ready(self) -> bool:
        """No turn is in flight and the session does not rest: what :meth:`begin` needs."""
        return self._in_flight is None and self._successor is None

    def begin(self, intent: Intent) -> bytes | Flight:
        """The answer to ``intent`` from the log, or its flight, which begins now. Raises Refusal like :meth:`take`."""
        recorded = self._recorded(intent)
        if recorded is not None:
            return recorded
        if self._in_flight is None:
            self._check_open()
            self._check_size(intent)
            self._in_flight = Flight(intent)
            self._in_flight.task = asyncio.create_task(self._fly(self._in_flight))
        return self._in_flight

    async def fork(self, at_turn: int | None, count: int) -> list[Branch]:
        """``count`` independent branches at ``at_turn`` (None: now), after the step in flight; all of them or none.

        Raises:
            Refusal: invalid-request, not-forkable, env-failed, session-deleted, session-lost, version-mismatch,
                journal-full.
        """
        async with self._lock:
            successor = self._successor
            if successor is None:
                await self._save()
                turn = self._log.turn
                target = turn if at_turn is None else at_turn
                if not 0 <= target <= turn:
                    raise Refusal("invalid-request", f"at_turn: {target} is not between 0 and the current turn {turn}")
                self._check_kept()
                log = self._log.until(target)
                if log.done:
                    return [Branch(log.until(target), None) for _ in range(count)]
                self._check_version()
                snapshot = await self._snapshot_for_fork(target)
        if successor is not None:
            return await (await successor()).fork(at_turn, count)
        self.touch()
        return await branch_off(self.id, self._home.host, self.env_class, log, snapshot, count, self._limit)

    async def rest(self, successor: Callable[[], Awaitable[Session]]) -> bool:
        """Leave memory: keep a snapshot, close the environment, and send whoever still comes here to ``successor``.

        False if the session is needed where it is.
        """
        async with self._lock:
            if self._in_flight is not None or self._unsaved is not None or not self.can_rest:
                return False
            spec = self.env_class.spec
            if self._episode is not None and spec.snapshot and self._saved_turn < self._log.turn:
                try:
                    await self._ledger.keep(Snapshot(self._log.turn, await self._state(self._episode)))
                except (EnvironmentFault, Refusal) as error:
                    logger.warning("%s: no snapshot: %s", self.id, error)
                    if not spec.deterministic:
                        return False
            self._successor = successor
        await self.release()
        return True

    async def close(self) -> None:
        """The session is gone: a step in flight is given up, and whoever still waits for a turn is refused."""
        self._gone = True
        flight = self._in_flight
        if flight is not None:
            flight.task.cancel()
            await asyncio.wait({flight.task}, timeout=self._home.limit)
            self._in_flight = None
            turn = flight.intent.turn
            flight.over(Refusal("session-deleted", f"session {self.id} was deleted during turn {turn}"))
        await self.release()

    async def settle(self) -> None:
        """Wait for the step in flight, if there is one, however it ends."""
        if self._in_flight is not None:
            await asyncio.wait({self._in_flight.task})

    async def release(self) -> None:
        """Close the environment, once. The log stays, and with it every answer."""
        episode, self._episode = self._episode, None
        if episode is not None:
            await close_quietly(episode, self._limit)

    def view(self) -> SessionView:
        return session_view(self.id, self.env_class, self._log, self.status)

    def history(self) -> bytes:
        """A HistoryView in JSON."""
        log = self._log
        status: Status = "failed" if self._failure and not log.entries else "live"
        initial = session_view(self.id, self.env_class, Log(log.env, log.env_version, log.begin), status)
        return history(self.id, initial.model_dump_json().encode(), log.entries)

    def summary(self) -> SessionSummary:
        return SessionSummary(
            session_id=self.id, env=self.env, task_id=self.task.id, turn=self._log.turn, status=self.status
        )

    def _recorded(self, intent: Intent) -> bytes | None:
        """The logged answer to ``intent`` if its turn was taken; None if it is the turn to take now."""
        log = self._log
        turn = log.turn
        if intent.turn > turn:
            raise Refusal("turn-ahead", f"turn {intent.turn} comes later: {self.id} is at turn {turn}")
        if intent.turn < len(log.entries) and (intent.turn < turn or intent.action is None):
            entry = log.entries[intent.turn]
            if intent.matches(entry):
                return answer(self.id, intent.turn, entry)
            raise Refusal("turn-conflict", f"turn {intent.turn} of {self.id} was taken with something else")
        return None

    def _check_open(self) -> None:
        self._check_kept()
        if self._log.done:
            raise Refusal("session-done", f"{self.id} ended at turn {self._log.turn}")
        if self._indeterminate:
            raise Refusal(
                "step-indeterminate",
                f"turn {self._log.turn} of {self.id} was begun before the server was killed, and has no result",
            )

    def _check_size(self, intent: Intent) -> None:
        """A finish always fits, so that what has grown too long can be scored."""
        if intent.json is not None and self._log.size + len(intent.json) > self._home.max_history:
            raise Refusal(
                "payload-too-large",
                f"the history of {self.id} would be larger than {self._home.max_history} bytes; finish it",
            )

    def _check_kept(self) -> None:
        if self._gone:
            raise Refusal("session-deleted", f"session {self.id} was deleted")
        turn = self._log.turn
        if self._failure == "failed":
            raise Refusal("env-failed", f"the environment of {self.id} failed at turn {turn}; its history is readable")
        if self._failure == "lost":
            raise lost(self.id, turn)

    def _check_version(self) -> None:
        ours = self.env_class.spec.version
        if self._episode is None and self._log.env_version != ours:
            raise Refusal(
                "version-mismatch",
                f"{self.id} was played in {self.env} version {self._log.env_version}, and this is version {ours}",
            )

    async def _fly(self, flight: Flight) -> None:
        outcome: bytes | Exception
        try:
            outcome = await self._carry_out(flight.intent)
        except Exception as error:
            outcome = error
        self._in_flight = None
        self.touch()
        flight.over(outcome)

    async def _carry_out(self, intent: Intent) -> bytes:
        async with self._lock:
            successor = self._successor
            if successor is None:
                began = perf_counter()
                taken = await self._turn(intent)
                self._home.metrics.step_seconds[self.env].observe(perf_counter() - began)
                return taken
        return await (await successor()).take(intent)

    async def _turn(self, intent: Intent) -> bytes:
        if self._unsaved is not None:
            await self._save()
            recorded = self._recorded(intent)
            assert recorded is not None, "the unsaved turn is the one that was asked for"
            return recorded
        spec = self.env_class.spec
        position = len(self._log.entries)
        if not spec.deterministic:
            if self._episode is None:
                await self._wake()  # before anything is begun: what is lost was lost earlier
            await self._ledger.intend(position, intent.json)
        episode = await self._performed(intent)
        entry = take(episode, intent.json)
        if entry.done:
            self._unsaved = (entry, None)
            self._home.in_background(self.release())
        else:
            due = spec.snapshot and self._ledger.durable and self._due(position + 1)
            self._unsaved = (entry, await self._state_quietly(episode) if due else None)
        await self._save()
        if entry.done:
            self._home.on_end(self.id)
        return answer(self.id, position, entry)

    def _due(self, turn: int) -> bool:
        """A snapshot after ``turn`` actions bounds the time of a replay; what has no replay needs one every turn."""
        return not self.env_class.spec.deterministic or turn % self._home.snapshot_every == 0

    async def _save(self) -> None:
        """Write down what was taken. Raises Refusal ``journal-full``; the turn then waits for the next request."""
        if self._unsaved is not None:
            entry, state = self._unsaved
            await self._ledger.append(len(self._log.entries), entry, state)
            self._unsaved = None
            self._log.add(entry)
            if state is not None:
                self._saved_turn = self._log.turn

    async def _performed(self, intent: Intent) -> Episode:
        """The episode after ``intent``; after a first loss it is rebuilt and tried again, a second one is final."""
        try:
            return await self._apply(intent)
        except Diverged as fault:  # on its way back, before anything was tried
            logger.warning("%s: %s", self.id, fault)
            await self._fail("lost")
            raise lost(self.id, intent.turn) from fault
        except EnvironmentFault as fault:
            first = fault
        logger.warning("%s: %s", self.id, first, exc_info=first)
        what = f"turn {intent.turn} of {self.id}"
        await self.release()
        if not self.env_class.spec.deterministic:
            await self._fail("failed")
            raise env_failed(f"{what} (not deterministic, so not tried again)", first) from first
        try:
            return await self._apply(intent)
        except EnvironmentFault as second:
            logger.warning("%s, second time: %s", self.id, second, exc_info=second)
            await self._fail("failed")
            await self.release()
            raise env_failed(f"{what}, twice", second) from second

    async def _apply(self, intent: Intent) -> Episode:
        """Wherever it has to be done: an environment that is gone takes no part in what is asked of it then."""
        try:
            return await self._apply_here(intent)
        except EnvironmentGone:
            return await moving(lambda: self._apply_here(intent))

    async def _apply_here(self, intent: Intent) -> Episode:
        episode = self._episode or await self._wake()
        try:
            if intent.action is None:
                await within(self._limit, f"finish of {self.task.id}", episode.finish(intent.reason))
            else:
                await within(self._limit, f"step {intent.turn} of {self.task.id}", episode.step(intent.action))
        except EnvironmentGone:
            await self.release()
            raise
        return episode

    async def _wake(self) -> Episode:
        """Bring the environment back. Raises EnvironmentFault, Refusal ``version-mismatch`` or ``session-lost``."""
        self._check_version()
        spec = self.env_class.spec
        turn = self._log.turn
        snapshot = await self._ledger.nearest(turn) if spec.snapshot else None
        if not spec.deterministic and (snapshot is None or snapshot.turn != turn):
            await self._fail("lost")
            raise lost(self.id, turn)

        def rebuilt() -> Awaitable[Episode]:
            return rebuild(self._home.host, self.env_class, self._log, self._limit, snapshot)

        self._episode = await moving(rebuilt, losses=1)
        self._home.metrics.replays[self.env] += 1
        return self._episode

    async def _snapshot_for_fork(self, target: int) -> Snapshot | None:
        """Where branches at ``target`` start from; None is the beginning."""
        spec = self.env_class.spec
        if spec.snapshot and target == self._log.turn and self._episode is not None:
            try:
                return Snapshot(target, await self._state(self._episode))
            except (EnvironmentGone, EnvironmentLost):
                await self.release()  # and the branches start from what is kept
            except EnvironmentFault as fault:
                raise env_failed(f"fork of {self.id} at turn {target}", fault) from fault
        snapshot = await self._ledger.nearest(target) if spec.snapshot else None
        if not spec.deterministic and (snapshot is None or snapshot.turn != target):
            raise Refusal(
                "not-forkable",
                f"environment {spec.id!r} is not deterministic: it forks only from a snapshot of that turn",
            )
        return snapshot

    async def _state(self, episode: Episode) -> bytes:
        return await within(self._limit, f"snapshot of {self.task.id}", self._home.host.snapshot(episode))

    async def _state_quietly(self, episode: Episode) -> bytes | None:
        """A snapshot is a fast path: a turn that was taken does not fail for want of one."""
        try:
            return await self._state(episode)
        except EnvironmentFault as fault:
            logger.warning("%s", fault, exc_info=fault)
            return None

    async def _fail(self, failure: Failure) -> None:
        self._failure = failure
        self._home.on_end(self.id)
        with suppress(Refusal):  # on a full disk: after a restart it may be tried again
            await self._ledger.fail(failure)
