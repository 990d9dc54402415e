"""The sockets: ``/ws``, where episodes are played, and ``/mcp`` for JSON-RPC alone.

Their protocol has no ids: a reply belongs to a request by its place. OpenEnv's older client goes on after a timeout as if
nothing had happened and takes the late reply for the answer to its next request, and so on for ever. So a request that
comes before the last one was answered says that its sender gave up on that one: only the newest is answered. And a
reply that is so late that a client has given up by default is not sent: the connection ends instead, which no client
can mistake. The episode goes on either way, and ``?session_id=`` leads back to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from turnwise_envs.environment import Environment
from turnwise_envs.types import JsonObject
from turnwise_server.dispatch import Carrier
from turnwise_server.openenv import mcp
from turnwise_server.openenv.frames import Failed, ResetData, failure, frame, read, read_action, read_message
from turnwise_server.openenv.seat import Seat, Seats
from turnwise_server.operations import Context
from turnwise_server.settings import Settings
from turnwise_server.sockets import dropper

logger = logging.getLogger(__name__)

#: Seconds after which a reply is too late. OpenEnv's clients wait 60 unless told otherwise.
REPLY_WITHIN = 50.0
#: Requests that may wait for their turn; a client that sends more is not one of OpenEnv's.
WAITING = 16
#: Seconds for a peer to take a reply.
SEND_TIMEOUT = 20.0
#: Seconds that an unfinished episode is kept for a client that was cut off, if it cannot rest in a journal.
GRACE = 60.0
#: Close codes: normal, policy violation, internal error.
NORMAL, VIOLATION, TOO_LATE = 1000, 1008, 1011


Handler = Callable[[str | bytes], Coroutine[Any, Any, str]]


class Closed(Exception):
    """The client said that it is done."""


class Socket:
    """The ASGI app of one environment's ``/ws``, or of its ``/mcp`` if ``rpc_only``."""

    def __init__(self, env_class: type[Environment], seats: Seats, rpc_only: bool) -> None:
        self._env_class = env_class
        self._seats = seats
        self._rpc_only = rpc_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state, known = scope["app"].state, scope["state"]
        carrier = Carrier(Context(state.store, known["caller"]), state.desk, known["request_id"])
        await receive()  # the handshake
        await send({"type": "websocket.accept"})
        line = Line(receive, send, dropper(scope))
        with Seat(self._env_class, carrier, self._seats) as seat:
            if asked := parse_qs(scope["query_string"].decode("latin-1")).get("session_id"):
                try:
                    await seat.attach(asked[0])
                except Failed as error:
                    await line.refuse(failure(error))
                    return
            await self._serve(seat, line, state.settings)

    async def _serve(self, seat: Seat, line: Line, settings: Settings) -> None:
        handle = partial(_rpc, seat) if self._rpc_only else partial(_play, seat)
        keeping = asyncio.create_task(_keep(seat, settings.idle_timeout / 3))
        try:
            await line.serve(handle)
            seat.leave_later(None if settings.journal is not None else GRACE)
        except Closed:
            with suppress(Failed):
                await seat.leave()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


class Line:
    """Requests in, replies out, one at a time."""

    def __init__(self, receive: Receive, send: Send, drop: Callable[[], None]) -> None:
        self._receive = receive
        self._send = send
        self._drop = drop
        self._inbox: deque[str | bytes] = deque()
        self._news = asyncio.Event()

    async def refuse(self, reply: str) -> None:
        """Say why and hang up."""
        with suppress(OSError):
            await self._send({"type": "websocket.send", "text": reply})
            await self._send({"type": "websocket.close", "code": NORMAL})

    async def serve(self, handle: Handler) -> None:
        """Answer until the connection ends. Raises Closed if the client said goodbye."""
        reader = asyncio.create_task(self._read())
        try:
            while True:
                while self._inbox:
                    await self._answer(handle, self._inbox.popleft())
                if reader.done():
                    return
                self._news.clear()
                await self._news.wait()
        except _TooLate:
            await self._hang_up(TOO_LATE, "the answer came too late; connect with ?session_id= to go on")
        except OSError:
            pass  # the client hung up
        except Closed:
            await self._hang_up(NORMAL, "")
            raise
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _answer(self, handle: Handler, text: str | bytes) -> None:
        work = asyncio.create_task(handle(text))
        done, _ = await asyncio.wait({work}, timeout=REPLY_WITHIN)
        if not done:
            work.cancel()  # the step is the session's own task and goes on
            raise _TooLate
        reply = work.result()
        if self._inbox:
            return  # its sender gave up on it: nobody would know what it belongs to
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._send({"type": "websocket.send", "text": reply})
        except TimeoutError:
            logger.warning("a peer did not read its replies for %g s: dropped", SEND_TIMEOUT)
            self._drop()
            raise ConnectionError from None

    async def _read(self) -> None:
        try:
            while True:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    return
                if len(self._inbox) >= WAITING:
                    await self._hang_up(VIOLATION, "wait for an answer before the next request")
                    return
                self._inbox.append(message.get("text") or message.get("bytes") or "")
                self._news.set()
        finally:
            self._news.set()

    async def _hang_up(self, code: int, reason: str) -> None:
        with suppress(OSError):
            await self._send({"type": "websocket.close", "code": code, "reason": reason})


class _TooLate(Exception):
    """A client that waits no longer than usual has given up."""


async def _play(seat: Seat, text: str | bytes) -> str:
    """What is said to one frame on ``/ws``. Raises Closed."""
    try:
        message = read_message(text)
        match message.type:
            case "reset":
                return frame("observation", await seat.reset(read(ResetData, message.data, "Invalid reset")))
            case "step":
                return frame("observation", await _step(seat, message.data))
            case "state":
                return frame("state", await seat.state())
            case "mcp":
                return frame("mcp", await mcp.answer(seat, message.data, alone=False))
            case "close":
                raise Closed
            case unknown:
                raise Failed("UNKNOWN_TYPE", f"Unknown message type: {unknown}")
    except Failed as error:
        return failure(error)


async def _step(seat: Seat, data: JsonObject) -> JsonObject:
    if data.get("type") == "list_tools":
        return seat.list_tools()
    action = read_action(data, seat.spec, seat.turn)
    told = await seat.step(action)
    if data.get("type") == "call_tool":
        seen = told["observation"]
        seen.update(tool_name=data["tool_name"], result=seen["text"], error=None)
    return told


async def _rpc(seat: Seat, text: str | bytes) -> str:
    return await mcp.answer_text(seat, text, alone=False)


async def _keep(seat: Seat, every: float) -> None:
    """While somebody sits there, the seat's session does not expire of idleness."""
    while True:
        await asyncio.sleep(every)
        with suppress(Failed):
            await seat.keep()
