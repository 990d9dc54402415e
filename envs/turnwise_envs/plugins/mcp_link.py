"""Sessions with MCP servers, for whoever waits for them on another event loop.

All sessions of this process live on the loop of one thread. There the MCP client may start processes and parse large
messages without holding up the loop of the environment server, and a session is entered and left by one task, as its
cancel scopes demand.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import mcp
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT, CallToolResult, Tool

from turnwise_envs.errors import EnvironmentFault
from turnwise_envs.plugins.private import Headers, child_environment, hidden
from turnwise_envs.tools_api import ToolMistake, clip
from turnwise_envs.types import JsonObject

T = TypeVar("T")

#: Bytes of a server's standard error that are kept: its last words say why it died.
LAST_WORDS = 4000
#: Seconds for a session to end; the client itself kills a process that does not go.
CLOSING = 10.0
#: Pages of a list of tools.
MAX_PAGES = 100


@dataclass(frozen=True)
class Server:
    """How to reach an MCP server: an ``argv`` to start, or else a ``url``."""

    argv: tuple[str, ...]
    url: str | None
    passed: str | None
    headers: Headers

    def hide(self, text: str) -> str:
        """``text`` without the values of the variables that the server was given."""
        names = (self.passed or "").split(",")
        return hidden(self.headers.hide(text), (os.environ.get(name.strip(), "") for name in names))


@dataclass
class Link:
    """One MCP session. All methods may be called from any event loop."""

    server: Server
    folder: Path | None
    _client: mcp.Client | None = None
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _heard: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_WORDS // 100))

    @classmethod
    async def open(cls, server: Server, limit: float, folder: Path | None = None) -> Link:
        """Start or reach the server, in ``folder`` if it is a process. Raises EnvironmentFault."""
        link = cls(server, folder)
        try:
            await _there(link._open(limit))
        except BaseException:
            await link.close()
            raise
        return link

    async def tools(self) -> list[Tool]:
        """All tools of the server. Raises EnvironmentFault."""
        return await _there(self._tools())

    async def call(self, name: str, arguments: JsonObject, limit: float) -> CallToolResult:
        """Call a tool.

        Raises:
            ToolMistake: the server refused the call, or it took longer than ``limit`` seconds.
            EnvironmentFault: the server is gone, or does not speak MCP.
        """
        return await _there(self._call(name, arguments, limit))

    async def close(self) -> None:
        """End the session, and with it the process. Never raises."""
        await _there(self._close())

    # on the loop of the sessions

    async def _open(self, limit: float) -> None:
        ready: asyncio.Future[mcp.Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(ready))
        try:
            async with asyncio.timeout(limit):
                self._client = await asyncio.shield(ready)
        except TimeoutError as error:
            raise self._fault(f"it did not answer within {limit:g} s") from error

    async def _live(self, ready: asyncio.Future[mcp.Client]) -> None:
        """The session from its first to its last moment, in one task."""
        try:
            async with AsyncExitStack() as stack:
                transport = await self._transport(stack)
                client = await stack.enter_async_context(mcp.Client(transport, cache=None))
                ready.set_result(client)
                await self._closing.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(self._fault(_innermost(error)))
                ready.exception()  # nobody may be waiting any more
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if self.server.url is not None:
            http = httpx2.AsyncClient(headers=self.server.headers.values(), timeout=httpx2.Timeout(30, read=300))
            return streamable_http_client(self.server.url, http_client=await stack.enter_async_context(http))
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()
        loop.add_reader(reading, self._hear, reading)
        stack.callback(os.close, reading)
        stack.callback(loop.remove_reader, reading)
        errors = stack.enter_context(os.fdopen(writing, "w"))
        started = StdioServerParameters(
            command=self.server.argv[0],
            args=list(self.server.argv[1:]),
            env=child_environment(self.server.passed),
            cwd=self.folder,
        )
        return stdio_client(started, errlog=errors)

    def _hear(self, pipe: int) -> None:
        said = os.read(pipe, 65536)
        if not said:
            asyncio.get_running_loop().remove_reader(pipe)
        self._heard.extend(line[:200] for line in said.decode(errors="replace").splitlines() if line.strip())

    async def _tools(self) -> list[Tool]:
        assert self._client is not None
        found: list[Tool] = []
        cursor: str | None = None
        try:
            for _ in range(MAX_PAGES):
                page = await self._client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if not cursor:
                    return found
        except Exception as error:
            raise self._fault(_innermost(error)) from error
        raise self._fault(f"its list of tools has more than {MAX_PAGES} pages")

    async def _call(self, name: str, arguments: JsonObject, limit: float) -> CallToolResult:
        assert self._client is not None
        try:
            async with asyncio.timeout(limit + 1):  # the client's own limit is per message
                return await self._client.call_tool(name, arguments, read_timeout_seconds=limit)
        except TimeoutError as error:
            raise ToolMistake(f"{name} took longer than {limit:g} s and was given up.") from error
        except mcp.MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                raise ToolMistake(f"{name} took longer than {limit:g} s and was given up.") from error
            if error.code == CONNECTION_CLOSED or self._task is None or self._task.done():
                raise self._fault("it has ended") from error
            raise ToolMistake(f"{name}: {self.server.hide(clip(error.message, 2000))}") from error
        except Exception as error:
            raise self._fault(_innermost(error)) from error

    async def _close(self) -> None:
        self._closing.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSING)
            self._task.cancel()

    def _fault(self, what: str) -> EnvironmentFault:
        last = f"; its last words: {self._heard[-1]}" if self._heard else ""
        name = self.server.url or self.server.argv[0]
        return EnvironmentFault(self.server.hide(f"MCP server {name}: {clip(what, 500)}{last}"))


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, done on the loop of the sessions, while the caller's thread waits."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


async def _there(work: Coroutine[Any, Any, T]) -> T:
    loop = _loop()
    if asyncio.get_running_loop() is loop:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="mcp sessions", daemon=True).start()
    return loop


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
