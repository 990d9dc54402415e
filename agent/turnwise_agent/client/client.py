"""The asynchronous client: environments, tasks and sessions of one or several environment servers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

import httpx

from turnwise_agent.client.link import ClientStats, Link, Query
from turnwise_agent.client.log import ActionLog
from turnwise_agent.client.mismatch import Mismatch, Mismatches, Told
from turnwise_agent.client.pool import Pool
from turnwise_agent.client.problems import make_body
from turnwise_agent.client.session import Session
from turnwise_agent.client.tokens import BearerAuth
from turnwise_agent.errors import AgentError, ReplayMismatch
from turnwise_envs.types import Action, EnvSpec, JsonObject
from turnwise_envs.wire import CreateRequest, EnvPage, SessionView, StepRequest, StepView, TaskPage

logger = logging.getLogger("turnwise.client")

#: Seconds for giving back a session that nobody needs any more.
_CLOSE_PATIENCE_S = 5.0


class TurnwiseClient:
    """Talks to environment servers::

        async with TurnwiseClient("http://127.0.0.1:8000") as client:
            async with await client.create("household", index=3) as session:
                result = await session.step(Action(text="look"))

    With several addresses, sessions are spread over the servers, and a session whose server falls silent is
    rebuilt on another by replaying its actions.

    Args:
        servers: address of a server, or of several that serve the same environments. ``dns+http://NAME:PORT`` stands
            for a server at every address that the name has, now and later.
        token: bearer token; without it the first one of ``token_file``, else ``$TURNWISE_TOKEN``, else the first one of
            the file ``$TURNWISE_TOKEN_FILE``.
        patience: seconds of retrying before a server counts as gone.
        timeout: seconds that one attempt may take; a step that takes longer is asked for again, not repeated.
        mismatch_rate: the share of sessions whose rebuild may lead to another history; beyond it every further one
            raises ``TooManyMismatches``.
        mismatch_dir: where both transcripts of each such session are written, as JSON; ``mismatches.kept`` has the
            newest in any case.
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
        mismatch_rate: float = 0.01,
        mismatch_dir: str | Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        auth = BearerAuth(token, token_file)
        self.stats = ClientStats()
        self.mismatches = Mismatches(mismatch_rate, None if mismatch_dir is None else Path(mismatch_dir))
        self._specs: dict[str, EnvSpec] = {}

        def connect(url: str, host: str | None) -> Link:
            return Link(
                url, auth=auth, patience=patience, timeout=timeout, transport=transport, stats=self.stats, host=host
            )

        self._pool = Pool([servers] if isinstance(servers, str) else list(servers), connect, patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Sessions stay open on their servers until closed or expired."""
        await self._pool.aclose()

    async def envs(self) -> list[EnvSpec]:
        """Specs of all environments served. Raises like :meth:`create`."""
        page = await self._pool.anywhere(lambda link, others: link.get("/v1/envs", EnvPage, hand_over=others))
        self._specs.update({spec.id: spec for spec in page.items})
        return page.items

    async def spec(self, env: str) -> EnvSpec:
        """Spec of one environment, asked for once. Raises like :meth:`create`."""
        if env not in self._specs:
            path = f"/v1/envs/{quote(env, safe='')}"
            self._specs[env] = await self._pool.anywhere(lambda link, others: link.get(path, EnvSpec, hand_over=others))
        return self._specs[env]

    async def tasks(self, env: str, split: str = "train", *, offset: int = 0, limit: int = 100) -> TaskPage:
        """``limit`` public tasks from ``offset`` on, and how many there are. Raises like :meth:`create`."""
        path = f"/v1/envs/{quote(env, safe='')}/tasks"
        query: Query = {"split": split, "offset": offset, "limit": limit}
        return await self._pool.anywhere(lambda link, others: link.get(path, TaskPage, query, hand_over=others))

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
        movable = self._pool.plural and await self._may_replay(env)
        return Session(self, request, link, view, ActionLog.begun(view.log_hash, actions), movable)

    async def _may_replay(self, env: str) -> bool:
        """Taking an episode's actions again elsewhere gives the same episode, and nobody is harmed."""
        spec = await self.spec(env)
        return spec.deterministic or spec.stateless_tools

    async def _open(
        self, request: CreateRequest, actions: Sequence[Action], expect_hash: str | None
    ) -> tuple[Link, SessionView]:
        """Open a session of ``request`` where there is room, after ``actions``."""
        update = {"actions": list(actions), "expect_hash": expect_hash, "key": uuid.uuid4().hex}
        body = request.model_copy(update=update)

        async def post(link: Link, others: bool) -> tuple[Link, SessionView]:
            link.opening += 1  # so that a hundred at once do not all find the same server empty
            try:
                return link, await link.post("/v1/sessions", body, SessionView, hand_over=others)
            finally:
                link.opening -= 1

        return await self._pool.anywhere(post)

    async def _report_mismatch(self, request: CreateRequest, log: ActionLog, mismatch: ReplayMismatch) -> None:
        """Keep what the episode was and what it became where it was rebuilt. Raises TooManyMismatches."""
        actions, answers = log.actions, log.answers
        acted = actions[len(actions) - len(answers) :]
        ours = [Told(action=action, answer=answer) for action, answer in zip(acted, answers, strict=True)]
        theirs: list[Told] = []
        try:
            link, view = await self._open(request, (), None)
            path = f"/v1/sessions/{view.session_id}"
            for turn, action in enumerate(actions):
                answer = await link.post(f"{path}/step", StepRequest(turn=turn, action=action), StepView)
                theirs.append(Told(action=action, answer=answer))
            await link.delete(path, patience=_CLOSE_PATIENCE_S)
        except AgentError as error:
            logger.info("the replay for the transcript ended early: %s", error)
        detail = f"{request.env}/{request.split}/{request.index}: {mismatch.problem.detail}"
        self.mismatches.add(Mismatch(session=request, detail=detail, ours=ours, theirs=theirs), self.stats.sessions)
