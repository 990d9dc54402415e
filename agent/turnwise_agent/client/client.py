"""The asynchronous client: environments, tasks and sessions of one or several environment servers."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import quote

import httpx

from turnwise_agent.client.link import ClientStats, Link
from turnwise_agent.client.log import ActionLog
from turnwise_agent.client.problems import make_body
from turnwise_agent.client.session import Session
from turnwise_agent.client.tokens import BearerAuth
from turnwise_agent.errors import AgentError, Overloaded, ServerUnreachable
from turnwise_envs.types import Action, EnvSpec, JsonObject
from turnwise_envs.wire import CreateRequest, EnvPage, SessionView, TaskPage

T = TypeVar("T")


class TurnwiseClient:
    """Talks to environment servers::

        async with TurnwiseClient("http://127.0.0.1:8000") as client:
            async with await client.create("household", index=3) as session:
                result = await session.step(Action(text="look"))

    With several addresses, sessions are spread over the servers, and a session whose server falls silent is
    rebuilt on another by replaying its actions.

    Args:
        servers: address of a server, or of several that serve the same environments.
        token: bearer token; without it the first one of ``token_file``, else ``$TURNWISE_TOKEN``.
        patience: seconds of retrying before a server counts as gone.
        timeout: seconds that one attempt may take; a step that takes longer is asked for again, not repeated.
        transport: an httpx transport for all traffic, ``httpx.ASGITransport(app)`` in tests for instance.

    Raises:
        AgentError: an address is not one, or the token cannot be used.
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        patience: float = 120.0,
        timeout: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        urls = [servers] if isinstance(servers, str) else list(servers)
        if not urls:
            raise AgentError("a client needs the address of at least one server")
        auth = BearerAuth(token, token_file)
        self.stats = ClientStats()
        self._specs: dict[str, EnvSpec] = {}
        self._links = [
            Link(url, auth=auth, patience=patience, timeout=timeout, transport=transport, stats=self.stats)
            for url in urls
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Sessions stay open on their servers until closed or expired."""
        for link in self._links:
            await link.aclose()

    async def envs(self) -> list[EnvSpec]:
        """Specs of all environments served. Raises like :meth:`create`."""
        page = await self._anywhere(lambda link: link.get("/v1/envs", EnvPage))
        self._specs.update({spec.id: spec for spec in page.items})
        return page.items

    async def spec(self, env: str) -> EnvSpec:
        """Spec of one environment, asked for once. Raises like :meth:`create`."""
        if env not in self._specs:
            path = f"/v1/envs/{quote(env, safe='')}"
            self._specs[env] = await self._anywhere(lambda link: link.get(path, EnvSpec))
        return self._specs[env]

    async def tasks(self, env: str, split: str = "train", *, offset: int = 0, limit: int = 100) -> TaskPage:
        """``limit`` public tasks from ``offset`` on, and how many there are. Raises like :meth:`create`."""
        path = f"/v1/envs/{quote(env, safe='')}/tasks"
        return await self._anywhere(lambda link: link.get(path, TaskPage, split=split, offset=offset, limit=limit))

    async def create(
        self,
        env: str,
        *,
        split: str = "train",
        index: int = 0,
        seed: int = 0,
        options: JsonObject | None = None,
        actions: Sequence[Action] = (),
        expect_hash: str | None = None,
    ) -> Session:
        """Open a session; with ``actions``, go on after them (``expect_hash`` is the hash they must lead to).

        Raises:
            ServerUnreachable: no server answered within the patience.
            InvalidRequest: unknown environment or task, or options that do not fit.
            ReplayMismatch: the actions led to another hash.
            ProtocolError, IncompatibleServer: see :mod:`turnwise_agent.errors`.
        """
        request = make_body(
            CreateRequest, "create", env=env, split=split, index=index, seed=seed, options=options or {}
        )
        link, view = await self._open(request, actions, expect_hash)
        return Session(self, request, link, view, ActionLog(view.log_hash, list(actions)))

    @property
    def _has_several_servers(self) -> bool:
        return len(self._links) > 1

    async def _open(
        self, request: CreateRequest, actions: Sequence[Action], expect_hash: str | None
    ) -> tuple[Link, SessionView]:
        """Open a session of ``request`` where there is room, after ``actions``."""
        update = {"actions": list(actions), "expect_hash": expect_hash, "key": uuid.uuid4().hex}
        body = request.model_copy(update=update)

        async def post(link: Link) -> tuple[Link, SessionView]:
            return link, await link.post("/v1/sessions", body, SessionView)

        return await self._anywhere(post)

    async def _anywhere(self, call: Callable[[Link], Awaitable[T]]) -> T:
        """``call`` the least loaded server that answers; one that does not hands over to the next."""
        *others, last = sorted(self._links, key=lambda link: (not link.answering, link.sessions))
        for link in others:
            try:
                return await call(link)
            except (ServerUnreachable, Overloaded):
                continue
        return await call(last)
