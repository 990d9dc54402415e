"""A server on a real port, in the event loop of a test, run as the command line runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvicorn

from turnwise_envs import Environment
from turnwise_server.app import create_app
from turnwise_server.auth import Token
from turnwise_server.running import configured, listen
from turnwise_server.settings import Settings

TOKENS = [
    Token(name="ann", token="ann-token-0123456789", scopes=frozenset({"act"})),
    Token(name="bob", token="bob-token-0123456789", scopes=frozenset({"act"})),
    Token(name="coach", token="coach-token-0123456789", scopes=frozenset({"act", "trainer"})),
    Token(name="root", token="root-token-0123456789", scopes=frozenset({"admin"})),
    Token(name="graph", token="graph-token-0123456789", scopes=frozenset({"metrics"})),
]


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}-token-0123456789"}


class Quiet(uvicorn.Server):
    """Leaves signals to the test runner."""

    def install_signal_handlers(self) -> None:
        pass


@asynccontextmanager
async def live(
    envs: Sequence[type[Environment]], tokens: Sequence[Token] = (), **settings
) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """``host:port`` of the server, and the server."""
    known = Settings(**settings)
    listener = listen("127.0.0.1", 0)
    server = Quiet(configured(create_app(envs, known, tokens), known))
    serving = asyncio.create_task(server._serve([listener]))
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        await serving
        listener.close()
