"""A session: one live episode and the rules of its turns (protocol.md, "Sessions"). No HTTP in here.

However often a step is sent, it happens once: a turn that was taken answers from the log, a duplicate of the one in
flight joins it. The work of a turn is a task of its own, so a client that hangs up does not interrupt it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from turnwise_envs.canonical import canonical
from turnwise_envs.episode import LiveEpisode, Record
from turnwise_envs.errors import EnvironmentFault
from turnwise_envs.types import Action
from turnwise_envs.wire import HistoryStep, HistoryView, SessionSummary, SessionView, Status, StepView
from turnwise_server.refusal import Refusal
from turnwise_server.replay import Diverged, branch, close_quietly, rebuild, within

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intent:
    """What a client wants to happen at ``turn``: an action, or (``action`` is None) a finish for ``reason``."""

    turn: int
    action: Action | None
    reason: str
    encoded: bytes

    @classmethod
    def step(cls, turn: int, action: Action) -> Intent:
        """Raises Refusal ``invalid-request`` for an action that has no canonical bytes."""
        try:
            return cls(turn, action, "", canonical(action))
        except ValueError as error:
            raise Refusal("invalid-request", f"action: {error}") from error

    @classmethod
    def finish(cls, turn: int, reason: str) -> Intent:
        return cls(turn, None, reason, b"finish " + reason.encode())

    def same_as(self, other: Intent) -> bool:
        return self.turn == other.turn and self.encoded == other.encoded

    def matches(self, record: Record) -> bool:
        """``record`` is what this intent left behind when it was carried out."""
        if self.action is None or record.action is None:
            return self.action is record.action and record.result.info.end == f"finished:{self.reason}"
        return canonical(record.action) == self.encoded


@dataclass(frozen=True)
class InFlight:
    intent: Intent
    task: asyncio.Task[StepView]


class Session:
    """One episode behind a session id.

    ``limit`` bounds every call into the environment, in seconds; ``on_end`` hears the id when the session, live at
    first, is done or failed.
    """

    def __init__(
        self,
        session_id: str,
        owner: str,
        episode: LiveEpisode,
        limit: float,
        clock: Callable[[], float],
        on_end: Callable[[str], None],
    ) -> None:
        self.id = session_id
        self.owner = owner
        self._clock = clock
        self.last_used = clock()
        self.failed = False
        self._episode = episode
        self._limit = limit
        self._on_end = on_end
        self._lock = asyncio.Lock()  # held while the episode is stepped or forked
        self._in_flight: InFlight | None = None
        self._open = True  # the environment is still to be closed
        self._gone = False

    @property
    def status(self) -> Status:
        return "failed" if self.failed else "done" if self._episode.done else "live"

    def touch(self) -> None:
        """Somebody asked for this session, or was served just now: its idle time starts anew."""
        self.last_used = self._clock()

    @property
    def busy(self) -> bool:
        """Somebody is being served right now."""
        return self._in_flight is not None or self._lock.locked()

    @property
    def env(self) -> str:
        return self._episode.env.spec.id

    @property
    def episode(self) -> LiveEpisode:
        """The episode at its current turn; read it, do not step it."""
        return self._episode

    async def submit(self, intent: Intent) -> StepView:
        """Carry out ``intent``, or answer it from the log, or join it.

        Raises:
            Refusal: turn-conflict, turn-ahead, session-done, env-failed, session-deleted.
        """
        while True:
            recorded = self._recorded(intent)
            if recorded is not None:
                return recorded
            flight = self._in_flight
            if flight is None:
                self._check_open()
                flight = InFlight(intent, asyncio.create_task(self._carry_out(intent)))
                self._in_flight = flight
                flight.task.add_done_callback(self._landed)
            elif not intent.same_as(flight.intent):
                await asyncio.wait({flight.task})
                continue  # the turn is now taken, or free again
            return await self._joined(flight)

    async def fork(self, at_turn: int | None, count: int) -> list[LiveEpisode]:
        """``count`` independent episodes at ``at_turn`` (None: now), after the step in flight; all of them or none.

        Raises:
            Refusal: invalid-request, not-forkable, env-failed, session-deleted.
        """
        async with self._lock:
            episode = self._episode
            target = episode.turn if at_turn is None else at_turn
            if not 0 <= target <= episode.turn:
                raise Refusal(
                    "invalid-request", f"at_turn: {target} is not between 0 and the current turn {episode.turn}"
                )
            self._check_kept()
            spec = episode.env.spec
            if not spec.deterministic and (not spec.snapshot or target < episode.turn or episode.done):
                raise Refusal(
                    "not-forkable",
                    f"environment {spec.id!r} is not deterministic: it forks only from a snapshot of a live state",
                )
            branches = await asyncio.gather(
                *(branch(episode, target, self._limit) for _ in range(count)), return_exceptions=True
            )
        self.touch()
        episodes = [one for one in branches if isinstance(one, LiveEpisode)]
        faults = [one for one in branches if isinstance(one, BaseException)]
        if not faults:
            return episodes
        await asyncio.gather(*(close_quietly(one, self._limit) for one in episodes))
        if isinstance(faults[0], Diverged):
            raise Refusal("not-forkable", str(faults[0])) from faults[0]
        if isinstance(faults[0], EnvironmentFault):
            raise env_failed(f"fork of {self.id} at turn {target}", faults[0]) from faults[0]
        raise faults[0]

    async def close(self) -> None:
        """The session is gone: a step in flight is given up, and whoever still waits for a turn is refused."""
        self._gone = True
        if self._in_flight is not None:
            self._in_flight.task.cancel()
            await asyncio.wait({self._in_flight.task}, timeout=self._limit)
        await self.release()

    async def release(self) -> None:
        """Close the environment, once. The log stays, and with it every answer."""
        if self._open:
            self._open = False
            await close_quietly(self._episode, self._limit)

    def view(self) -> SessionView:
        return self._view(len(self._episode.records))

    def history(self) -> HistoryView:
        return HistoryView(
            initial=self._view(0),
            steps=[
                HistoryStep(action=record.action, **dict(self._step_view(position)))
                for position, record in enumerate(self._episode.records)
            ],
        )

    def summary(self) -> SessionSummary:
        episode = self._episode
        return SessionSummary(
            session_id=self.id, env=self.env, task_id=episode.task.id, turn=episode.turn, status=self.status
        )

    def _recorded(self, intent: Intent) -> StepView | None:
        """The logged answer to ``intent`` if its turn was taken; None if it is the turn to take now."""
        episode = self._episode
        turn = episode.turn
        if intent.turn > turn:
            raise Refusal("turn-ahead", f"turn {intent.turn} comes later: {self.id} is at turn {turn}")
        if intent.turn < len(episode.records) and (intent.turn < turn or intent.action is None):
            if intent.matches(episode.records[intent.turn]):
                return self._step_view(intent.turn)
            raise Refusal("turn-conflict", f"turn {intent.turn} of {self.id} was taken with something else")
        return None

    def _check_open(self) -> None:
        self._check_kept()
        if self._episode.done:
            raise Refusal("session-done", f"{self.id} ended at turn {self._episode.turn}")

    def _check_kept(self) -> None:
        if self._gone:
            raise Refusal("session-deleted", f"session {self.id} was deleted")
        if self.failed:
            turn = self._episode.turn
            raise Refusal("env-failed", f"the environment of {self.id} failed at turn {turn}; its history is readable")

    async def _joined(self, flight: InFlight) -> StepView:
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.task.cancelled():
                raise Refusal(
                    "session-deleted", f"session {self.id} was deleted during turn {flight.intent.turn}"
                ) from None
            raise

    def _landed(self, task: asyncio.Task[StepView]) -> None:
        self._in_flight = None
        self.touch()
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; nobody has to

    async def _carry_out(self, intent: Intent) -> StepView:
        async with self._lock:
            try:
                await self._apply(intent)
            except EnvironmentFault as first:
                logger.warning("%s: %s", self.id, first, exc_info=first)
                await self._apply_once_more(intent, first)
            if self._episode.done:
                self._on_end(self.id)
                await self.release()
            return self._step_view(len(self._episode.records) - 1)

    async def _apply(self, intent: Intent) -> None:
        episode = self._episode
        if intent.action is None:
            await within(self._limit, f"finish of {episode.task.id}", episode.finish(intent.reason))
        else:
            await within(self._limit, f"step {intent.turn} of {episode.task.id}", episode.step(intent.action))

    async def _apply_once_more(self, intent: Intent, first: EnvironmentFault) -> None:
        """After a first loss: rebuild to this turn and try again. A second loss is final."""
        lost = self._episode
        what = f"turn {intent.turn} of {self.id}"
        await self.release()
        if not lost.env.spec.deterministic:
            self._fail()
            raise env_failed(f"{what} (not deterministic, so not tried again)", first) from first
        try:
            self._episode = await rebuild(lost, lost.records, self._limit)
            self._open = True
            await self._apply(intent)
        except EnvironmentFault as second:
            logger.warning("%s, second time: %s", self.id, second, exc_info=second)
            self._fail()
            await self.release()
            raise env_failed(f"{what}, twice", second) from second

    def _fail(self) -> None:
        self.failed = True
        self._on_end(self.id)

    def _view(self, length: int) -> SessionView:
        """The session after the first ``length`` records of its log."""
        episode = self._episode
        records = episode.records[:length]
        spec = episode.env.spec
        whole = length == len(episode.records)
        return SessionView(
            session_id=self.id,
            env=spec.id,
            env_version=spec.version,
            seed=episode.seed,
            options=episode.options,
            turn=sum(record.action is not None for record in records),
            task=episode.task,
            tools=spec.tools,
            max_turns=episode.max_turns,
            observation=records[-1].result.observation if records else episode.initial,
            status=self.status if whole else "live",
            log_hash=records[-1].log_hash if records else episode.initial_hash,
        )

    def _step_view(self, position: int) -> StepView:
        """The answer that record ``position`` was, or is about to be, acknowledged with."""
        record = self._episode.records[position]
        result = record.result
        return StepView(
            session_id=self.id,
            turn=position + (record.action is not None),
            observation=result.observation,
            reward=result.reward,
            terminated=result.terminated,
            truncated=result.truncated,
            info=result.info,
            status="done" if result.done else "live",
            log_hash=record.log_hash,
        )


def env_failed(what: str, fault: EnvironmentFault) -> Refusal:
    """The refusal for a fault. Its text stays in the server's log: an exception may well quote a gold answer."""
    kind = type(fault.__cause__ or fault).__name__
    return Refusal("env-failed", f"{what}: the environment failed ({kind}); the server's log says more")
