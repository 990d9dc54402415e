"""Many calls at once over a few WebSockets to one server: the way to step.

Calls that are made in one turn of the event loop travel as one message, where the server knows such messages
(:data:`~turnwise_envs.wire.MANY`), and so do replies. That costs no time and saves both ends most of what a message costs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import takewhile
from typing import Any

import aiohttp
from pydantic_core import from_json

from turnwise_agent.client.exchange import NotNow, Reply
from turnwise_agent.client.problems import as_problem
from turnwise_agent.client.tokens import BearerAuth
from turnwise_envs.wire import MANY

#: Calls in flight on one socket before another is opened; half of what the server takes.
_BUSY = 512
#: Sockets per server. A socket carries some ten thousand calls a second, so that this is for slow steps.
_MAX_SOCKETS = 8
#: Seconds for a handshake.
_CONNECT_S = 10.0
#: Seconds between pings; a server that answers none for half as long is gone.
_HEARTBEAT_S = 20.0
#: Seconds after which a server that refused a handshake is asked for another.
_REFUSED_S = 30.0
#: Bytes of an answer. A history may be long; beyond this something is wrong.
_MAX_ANSWER = 256 * 1024 * 1024
#: Characters of a body that still goes over the socket. The server ends a connection for a frame beyond its limit, which
#: would disturb all other calls on it, where an HTTP request is refused alone.
_MAX_CONTENT = 1024 * 1024
#: Characters of a message from which on no further call joins it: larger ones save nothing more.
_MAX_MESSAGE = 64 * 1024


class NoSocket(Exception):
    """This call cannot go over a socket; HTTP may carry it."""


class SocketWire:
    """Sockets to the server at ``url``, opened as needed.

    ``timeout`` bounds one exchange, in seconds; ``check`` is awaited before each handshake and raises if what answers at
    this address is not a server of this protocol.
    """

    def __init__(
        self, url: str, *, auth: BearerAuth, timeout: float, host: str | None, check: Callable[[], Awaitable[None]]
    ) -> None:
        self._url = url
        self._auth = auth
        self._timeout = timeout
        self._host = host
        self._check = check
        self._http: aiohttp.ClientSession | None = None
        self._lines: list[_Line] = []
        self._opening: asyncio.Task[_Line] | None = None
        self._refused_until = 0.0

    async def aclose(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        for line in list(self._lines):
            await line.aclose()
        if self._http is not None:
            await self._http.close()

    async def exchange(self, method: str, target: str, content: str | None) -> Reply:
        """Raises NoSocket where HTTP must do, NotNow where another attempt may."""
        if time.monotonic() < self._refused_until or (content is not None and len(content) > _MAX_CONTENT):
            raise NoSocket
        line = self._pick() or await self._open()
        return await line.call(method, target, content)

    def _pick(self) -> _Line | None:
        """The socket with the fewest calls in flight, unless all are busy and another may be opened."""
        line = min(self._lines, key=lambda line: line.in_flight, default=None)
        if line is not None and line.in_flight >= _BUSY and len(self._lines) < _MAX_SOCKETS:
            return None
        return line

    async def _open(self) -> _Line:
        """A new socket; whoever asks meanwhile gets the same one, or the same refusal."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, task: asyncio.Task[_Line]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # those who wait have it; if nobody does any more, nobody needs it

    async def _connect(self) -> _Line:
        await self._check()
        line = _Line(await self._shake_hands(), self._timeout, self._lines.remove)
        self._lines.append(line)
        return line

    async def _shake_hands(self) -> aiohttp.ClientWebSocketResponse:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=_MAX_SOCKETS)
            )
        headers = self._auth.headers()
        if self._host is not None:
            headers["host"] = self._host
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await self._http.ws_connect(
                    f"{self._url}/v1/ws",
                    headers=headers,
                    protocols=[MANY],
                    compress=0,
                    heartbeat=_HEARTBEAT_S,
                    max_msg_size=_MAX_ANSWER,
                )
        except (aiohttp.WSServerHandshakeError, TimeoutError) as error:
            # No such route, a proxy that does not know WebSockets, a token that must be read again: HTTP finds out.
            if getattr(error, "status", None) != 401:
                self._refused_until = time.monotonic() + _REFUSED_S
            raise NoSocket from error
        except (aiohttp.ClientError, OSError) as error:
            raise NotNow(str(error) or type(error).__name__) from error


class _Line:
    """One connection. ``timeout`` bounds a call, in seconds; ``on_end`` hears of it once it carries nothing more."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, timeout: float, on_end: Callable[[_Line], None]) -> None:
        self._ws = ws
        self._many = ws.protocol == MANY
        self._timeout = timeout
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._calls = 0
        #: The calls in flight, oldest first: when each began, and its answer.
        self._waiting: dict[int, tuple[float, asyncio.Future[Reply]]] = {}
        self._outbox: list[str] = []
        self._to_send = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._writing = asyncio.create_task(self._write())
        self._reading = asyncio.create_task(self._read())

    @property
    def in_flight(self) -> int:
        return len(self._waiting)

    async def call(self, method: str, target: str, content: str | None) -> Reply:
        """Raises NotNow if the connection ends before the answer, or there is none in time."""
        if self._ended:
            raise NotNow("connection lost")
        number = self._calls
        self._calls += 1
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[number] = self._loop.time(), answer
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._give_up_late)
        self._outbox.append(
            f'{{"id":{number},"method":"{method}","path":{json.dumps(target)},"body":{content or "null"}}}'
        )
        self._to_send.set()
        try:
            return await answer
        finally:
            del self._waiting[number]

    async def aclose(self) -> None:
        await self._ws.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, self._writing, return_exceptions=True)

    async def _write(self) -> None:
        """Send calls as they come."""
        with suppress(aiohttp.ClientError, OSError):  # the connection is lost, as the reader hears too
            while True:
                await self._to_send.wait()
                self._to_send.clear()
                calls, self._outbox = self._outbox, []
                for message in _joined(calls) if self._many else calls:
                    await self._ws.send_str(message)

    async def _read(self) -> None:
        try:
            async for message in self._ws:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                replies = from_json(message.data)
                for reply in replies if self._many else [replies]:
                    self._deliver(reply)
        except (ValueError, KeyError, TypeError):
            pass  # no frame of ours: whatever is at the other end, it cannot be talked to
        finally:
            self._ended = True
            self._on_end(self)
            self._writing.cancel()
            if self._timer is not None:
                self._timer.cancel()
            for _, answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(NotNow(f"connection lost (close code {self._ws.close_code})"))
            await self._ws.close()

    def _deliver(self, reply: Any) -> None:
        """Hand ``reply`` to whoever waits for it; late ones to calls that were given up are dropped."""
        number = reply["id"]
        if not 0 <= number < self._calls:
            raise ValueError(f"an answer to call {number}, which was never made")
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting[1].done():
            status, value = reply["status"], reply["body"]
            waiting[1].set_result(Reply(status, value, as_problem(value) if status >= 400 else None))

    def _give_up_late(self) -> None:
        """One timer does for all calls, since the oldest is the first that may be late."""
        now = self._loop.time()
        for _, answer in takewhile(lambda call: now - call[0] >= self._timeout, list(self._waiting.values())):
            if not answer.done():
                answer.set_exception(NotNow(f"no answer within {self._timeout:g} s"))
        unanswered = [began for began, answer in self._waiting.values() if not answer.done()]
        self._timer = None
        if unanswered:
            self._timer = self._loop.call_later(unanswered[0] + self._timeout - now, self._give_up_late)


def _joined(calls: list[str]) -> list[str]:
    """Messages of many calls each, in their order."""
    messages, size, first = [], 0, 0
    for number, call in enumerate(calls):
        if size and size + len(call) > _MAX_MESSAGE:
            messages.append(f"[{','.join(calls[first:number])}]")
            size, first = 0, number
        size += len(call)
    messages.append(f"[{','.join(calls[first:])}]")
    return messages
