"""A remote episode that outlives its server: it keeps its own action log and is rebuilt from it when needed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from turnwise_agent.client.link import Link
from turnwise_agent.client.log import ActionLog
from turnwise_agent.client.problems import make_body, make_problem
from turnwise_agent.errors import AgentError, EnvFailed, ReplayMismatch, ServerUnreachable, SessionGone, TurnConflict
from turnwise_envs.types import Action, Observation, Reference, Task, ToolSpec
from turnwise_envs.wire import (
    CreateRequest,
    FinishRequest,
    ForkRequest,
    ForkView,
    HistoryView,
    SessionView,
    Status,
    StepRequest,
    StepView,
)

if TYPE_CHECKING:
    from turnwise_agent.client.client import TurnwiseClient

T = TypeVar("T")

#: How often one call may find its session gone before it gives up: more than once means something is wrong
#: with the server (a proxy that spreads one session over several servers, say), not with the session.
_MAX_REBUILDS = 3

#: Closing is a courtesy (sessions expire by themselves), so a dead server may not hold it up for long.
_CLOSE_PATIENCE_S = 5.0

#: The last one is said by a server that is behind what it acknowledged: after a power cut, or with an old journal.
_REBUILDABLE = frozenset({"not-found", "session-expired", "session-lost", "turn-ahead"})


class _Home(NamedTuple):
    """Where the session lives at the moment."""

    link: Link
    session_id: str

    @property
    def path(self) -> str:
        return f"/v1/sessions/{self.session_id}"


class Session:
    """One episode on a server. Made by :meth:`TurnwiseClient.create` and :meth:`fork`; use it as a context manager.

    One caller at a time acts on a session; different sessions are independent. Every method raises
    ``SessionGone`` if the session is gone and may not be rebuilt (it was deleted, or its environment is neither
    deterministic nor free of effects), ``ReplayMismatch`` if rebuilding led to another history, and otherwise
    like :meth:`TurnwiseClient.create`.
    """

    def __init__(
        self,
        client: TurnwiseClient,
        request: CreateRequest,
        link: Link,
        view: SessionView,
        log: ActionLog,
        movable: bool,
    ) -> None:
        self._client = client
        self._request = request
        self._home = _Home(link, view.session_id)
        self._log = log
        self._movable = movable
        self._rebuilding = asyncio.Lock()
        self._closed = False
        self.task: Task = view.task
        self.tools: list[ToolSpec] = view.tools
        self.max_turns: int = view.max_turns
        self.env_version: str = view.env_version
        self.observation: Observation = view.observation
        self.status: Status = view.status
        self.rebuilds = 0
        link.sessions += 1
        client.stats.sessions += 1

    def __repr__(self) -> str:
        return f"<Session {self.task.id} turn {self.turn} {self.status} at {self._home.link.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def session_id(self) -> str:
        """Its id on its server; another one after a rebuild."""
        return self._home.session_id

    @property
    def turn(self) -> int:
        """Number of actions taken."""
        return self._log.turn

    @property
    def log_hash(self) -> str:
        """Hash of the whole history so far."""
        return self._log.log_hash

    @property
    def done(self) -> bool:
        """Whether the episode has ended or failed."""
        return self.status != "live"

    async def step(self, action: Action) -> StepView:
        """Take one action.

        Raises:
            SessionDone: the episode has ended.
            EnvFailed: the environment broke; the turn was not taken and the session is over.
            StepIndeterminate: the server crashed in an unrepeatable step.
        """
        body = make_body(StepRequest, "step", turn=self.turn, action=action)
        view = await self._act("step", body)
        self._log.acted(action, view)
        self._client.stats.steps += 1
        return view

    async def finish(self, reason: str) -> StepView:
        """End the episode from outside (``context_overflow``, say) and have its state scored. Raises like step."""
        body = make_body(FinishRequest, "finish", turn=self.turn, reason=reason)
        view = await self._act("finish", body)
        self._log.finished(reason, view.log_hash)
        return view

    async def fork(self, count: int = 1, *, at_turn: int | None = None) -> list[Session]:
        """``count`` new sessions with the first ``at_turn`` actions of this one (default: all of them).

        Raises:
            InvalidRequest: ``at_turn`` lies ahead, or ``count`` is beyond the server's limit.
            NotForkable: the environment can neither be replayed nor copied.
        """

        async def call(home: _Home) -> tuple[Link, ForkView]:
            body = make_body(ForkRequest, "fork", at_turn=at_turn, count=count, key=uuid.uuid4().hex)
            return home.link, await home.link.post(f"{home.path}/fork", body, ForkView, movable=self._movable)

        link, forked = await self._call(call)
        self._client.stats.forks += len(forked.sessions)
        return [
            Session(self._client, self._request, link, view, self._log.branch(view.turn, view.log_hash), self._movable)
            for view in forked.sessions
        ]

    async def history(self) -> HistoryView:
        """The first observation and all steps taken."""
        return await self._call(lambda home: home.link.get(f"{home.path}/history", HistoryView, movable=self._movable))

    async def reference(self) -> Reference:
        """Gold answers and what a scorer needs; never show it to a policy. Raises Forbidden without `trainer`."""
        return await self._call(lambda home: home.link.get(f"{home.path}/reference", Reference, movable=self._movable))

    async def close(self) -> None:
        """Free the session on its server, if it can still be told. Never raises for a session that is gone."""
        if self._closed:
            return
        self._closed = True
        self._home.link.sessions -= 1
        try:
            await self._home.link.delete(self._home.path, patience=_CLOSE_PATIENCE_S)
        except AgentError:
            return  # gone, or it will expire

    async def _act(self, verb: str, body: StepRequest | FinishRequest) -> StepView:
        try:
            view = await self._call(
                lambda home: home.link.post(f"{home.path}/{verb}", body, StepView, movable=self._movable)
            )
        except EnvFailed:
            self.status = "failed"
            raise
        self.observation = view.observation
        self.status = view.status
        return view

    async def _call(self, call: Callable[[_Home], Awaitable[T]]) -> T:
        """``call`` the session where it lives, rebuilding it first where that has become necessary."""
        for _ in range(_MAX_REBUILDS):
            home = self._home
            try:
                return await call(home)
            except (SessionGone, ServerUnreachable, TurnConflict) as error:
                await self._leave(home, error)
        return await call(self._home)

    async def _leave(self, home: _Home, error: SessionGone | ServerUnreachable | TurnConflict) -> None:
        """Move out of ``home``, which is lost; raises ``error`` if the session may not or cannot move."""
        async with self._rebuilding:
            if self._home is not home:
                return  # somebody else moved it while we waited
            if self._closed or self.status == "failed" or not await self._may_rebuild(error):
                raise error
            try:
                await self._rebuild()
            except ReplayMismatch as mismatch:
                self.status = "failed"
                await self._client._report_mismatch(self._request, self._log, mismatch)
                raise

    async def _may_rebuild(self, error: SessionGone | ServerUnreachable | TurnConflict) -> bool:
        if isinstance(error, ServerUnreachable) and not self._movable:
            return False
        if isinstance(error, SessionGone | TurnConflict) and error.type not in _REBUILDABLE:
            return False
        return await self._client._may_replay(self._request.env)

    async def _rebuild(self) -> None:
        """Replay the log in a new session, wherever there is room."""
        log = self._log
        link, view = await self._client._open(self._request, log.actions, log.live_hash)
        self._expect(log.live_hash, view.log_hash)
        home = _Home(link, view.session_id)
        if log.finish is not None:
            reason, final_hash = log.finish
            body = FinishRequest(turn=log.turn, reason=reason)
            ended = await link.post(f"{home.path}/finish", body, StepView)
            self._expect(final_hash, ended.log_hash)
        self._home.link.sessions -= 1
        link.sessions += 1
        self._home = home
        self.rebuilds += 1
        self._client.stats.rebuilds += 1
        self._client.stats.replayed_steps += log.turn

    def _expect(self, ours: str, theirs: str) -> None:
        if ours != theirs:
            detail = f"replaying {self.turn} actions of {self.task.id} gave hash {theirs[:12]}, not {ours[:12]}"
            raise ReplayMismatch(make_problem("replay-mismatch", detail), "POST /v1/sessions")
