"""The client for code that is not asynchronous: the same methods, run in an event loop of a thread of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from turnwise_agent.client.client import TurnwiseClient
from turnwise_agent.client.link import ClientStats
from turnwise_agent.client.session import Session
from turnwise_envs.types import Action, EnvSpec, JsonObject, Observation, Reference, Task, ToolSpec
from turnwise_envs.wire import HistoryView, Status, StepView, TaskPage

T = TypeVar("T")


class SyncClient:
    """A :class:`TurnwiseClient` without ``await``; same arguments, methods and errors::

        with SyncClient("http://127.0.0.1:8000") as client, client.create("household") as session:
            result = session.step(Action(text="look"))

    Close it (or use ``with``): it owns a thread.
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        patience: float = 120.0,
        timeout: float = 60.0,
        mismatch_rate: float = 0.01,
        mismatch_dir: str | Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = TurnwiseClient(
            servers,
            token=token,
            token_file=token_file,
            patience=patience,
            timeout=timeout,
            mismatch_rate=mismatch_rate,
            mismatch_dir=mismatch_dir,
            transport=transport,
        )
        self._portal_context = start_blocking_portal("asyncio", name="turnwise-client")
        self._portal = self._portal_context.__enter__()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def stats(self) -> ClientStats:
        return self._client.stats

    def close(self) -> None:
        """Close all connections and end the thread. Sessions stay open on their servers until they expire."""
        if self._closed:
            return
        self._closed = True
        try:
            _wait(self._portal, self._client.aclose)
        finally:
            # As after an error: an ordinary end would wait for a call that an interrupt left behind.
            closed = ConnectionAbortedError("the client is closed")
            self._portal_context.__exit__(type(closed), closed, None)

    def envs(self) -> list[EnvSpec]:
        return _wait(self._portal, self._client.envs)

    def spec(self, env: str) -> EnvSpec:
        return _wait(self._portal, lambda: self._client.spec(env))

    def tasks(self, env: str, split: str = "train", *, offset: int = 0, limit: int = 100) -> TaskPage:
        return _wait(self._portal, lambda: self._client.tasks(env, split, offset=offset, limit=limit))

    def create(
        self,
        env: str,
        *,
        split: str = "train",
        index: int = 0,
        seed: int = 0,
        options: JsonObject | None = None,
        actions: Sequence[Action] = (),
        expect_hash: str | None = None,
    ) -> SyncSession:
        async def create() -> Session:
            return await self._client.create(
                env,
                split=split,
                index=index,
                seed=seed,
                options=options,
                actions=actions,
                expect_hash=expect_hash,
            )

        return SyncSession(_wait(self._portal, create), self._portal)


class SyncSession:
    """A :class:`Session` without ``await``."""

    def __init__(self, session: Session, portal: BlockingPortal) -> None:
        self._session = session
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def session_id(self) -> str:
        return self._session.session_id

    @property
    def task(self) -> Task:
        return self._session.task

    @property
    def tools(self) -> list[ToolSpec]:
        return self._session.tools

    @property
    def max_turns(self) -> int:
        return self._session.max_turns

    @property
    def env_version(self) -> str:
        return self._session.env_version

    @property
    def observation(self) -> Observation:
        return self._session.observation

    @property
    def status(self) -> Status:
        return self._session.status

    @property
    def turn(self) -> int:
        return self._session.turn

    @property
    def done(self) -> bool:
        return self._session.done

    @property
    def log_hash(self) -> str:
        return self._session.log_hash

    @property
    def rebuilds(self) -> int:
        return self._session.rebuilds

    def step(self, action: Action) -> StepView:
        return _wait(self._portal, lambda: self._session.step(action))

    def finish(self, reason: str) -> StepView:
        return _wait(self._portal, lambda: self._session.finish(reason))

    def fork(self, count: int = 1, *, at_turn: int | None = None) -> list[SyncSession]:
        children = _wait(self._portal, lambda: self._session.fork(count, at_turn=at_turn))
        return [SyncSession(child, self._portal) for child in children]

    def history(self) -> HistoryView:
        return _wait(self._portal, self._session.history)

    def reference(self) -> Reference:
        return _wait(self._portal, self._session.reference)

    def close(self) -> None:
        _wait(self._portal, self._session.close)


def _wait(portal: BlockingPortal, call: Callable[[], Awaitable[T]]) -> T:
    """Run ``call`` in the portal's loop; whatever interrupts the wait (Ctrl-C) also cancels the call."""
    future = portal.start_task_soon(call)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
