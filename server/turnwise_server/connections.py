"""Connections that cannot be held open, or made to hold more, than was agreed: uvicorn's protocol with bounds added.

uvicorn waits for ever for a request that was begun and for a client that does not read its answer, takes heads of any
length, and any number of connections. Each of them is a way to fill a server without a single valid request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import ClassVar

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from turnwise_server.limits import RETRY_AFTER
from turnwise_server.metrics import Metrics
from turnwise_server.problems import problem_response, refused
from turnwise_server.refusal import Refusal
from turnwise_server.settings import Settings

logger = logging.getLogger(__name__)

#: Bytes of a request's line and headers, or of the trailers and the framing around its body.
MAX_HEAD = 64 * 1024
#: Connections beyond the limit that are told why before they are closed, as a share of it: the next ones are dropped.
TOLD = 1 / 8


class Connection(HttpToolsProtocol):
    """One HTTP connection; made by :func:`bounded`, which sets the limits."""

    most: ClassVar[int]
    most_received: ClassVar[int]
    metrics: ClassVar[Metrics]
    #: A request's head has begun, or is still to begin for the first time.
    in_head = True
    _received = 0  # bytes since the last whole request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        there = len(self.connections)
        if there > self.most:
            self.metrics.rejections["overloaded"] += 1
            if there > self.most * (1 + TOLD):
                transport.abort()
            else:
                self.app = self._turn_away

    def data_received(self, data: bytes) -> None:
        # What arrives at once may be a head and a body: where it could be more than a head, the parser says.
        while self.in_head and 0 < (room := MAX_HEAD - self._received) < len(data):
            self._take(data[:room])
            data = data[room:]
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return  # refused, or a socket by now
        self._take(data)

    def _take(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > (MAX_HEAD if self.in_head else self.most_received):
            self._refuse(431 if self.in_head else 413, "the request is larger than this server takes")
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self.in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._received = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not HTTP/1.1")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer what never became a request, and hang up."""
        if self.transport.is_closing():
            return
        self.metrics.rejections["malformed"] += 1
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:  # else: in the middle of an answer
            response = problem_response("about:blank", status, detail, "/")
            lines = [f"HTTP/1.1 {status} Refused".encode(), *(b": ".join(raw) for raw in response.raw_headers)]
            self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", bytes(response.body)]))
        self.transport.close()

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = refused(Refusal("overloaded", f"{self.most} connections are open here", RETRY_AFTER), scope["path"])
        response.headers["connection"] = "close"
        await response(scope, receive, send)


def bounded(settings: Settings, metrics: Metrics, most: int) -> type[Connection]:
    """The protocol for ``uvicorn.Config(http=...)``: at most ``most`` connections at a time."""
    # Twice the body: what comes in chunks has a frame around each.
    limits = {"most": most, "most_received": 2 * settings.max_body + MAX_HEAD, "metrics": metrics}
    return type("BoundedConnection", (Connection,), limits)


class Patience:
    """Drops connections whose client has not got on for ``limit`` seconds.

    A client must send a request within the time, all of it, and must take something of its answer within it. Between
    requests an idle connection is uvicorn's business, and while a request is being worked on it is nobody's.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._waiting: dict[object, tuple[object, float]] = {}

    def sweep(self, connections: Iterable[object]) -> None:
        now = self._clock()
        waiting: dict[object, tuple[object, float]] = {}
        for connection in connections:
            if not isinstance(connection, Connection) or (state := waits_for(connection)) is None:
                continue
            before, since = self._waiting.get(connection, (None, now))
            if before != state:
                since = now
            if now - since > self._limit:
                logger.info("dropped a client that kept this server waiting for %g s", self._limit)
                connection.transport.abort()
            else:
                waiting[connection] = (state, since)
        self._waiting = waiting

    async def run(self, connections: Iterable[object]) -> None:
        """Sweep for ever, so often that nobody overstays by more than a quarter of the time."""
        while True:
            await asyncio.sleep(min(self._limit / 4, 5.0))
            self.sweep(list(connections))


def waits_for(connection: Connection) -> object:
    """What the server waits for its client to do: a value that stays equal until the client does it. None: nothing."""
    cycle = connection.cycle
    if connection.transport.is_closing() or connection.flow.write_paused:
        return "read", connection.transport.get_write_buffer_size()
    if cycle is None:
        return "begin"
    if cycle.response_complete:
        # A stray line break stops uvicorn's timer and begins nothing.
        idle = not connection.in_head and connection.timeout_keep_alive_task is not None
        return None if idle else ("head", id(cycle))
    return ("body", id(cycle)) if cycle.more_body else None
