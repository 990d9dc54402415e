"""``WS /v1/ws``: many sessions over one connection. Every frame is a call, every reply names the frame it answers.

A client that names the subprotocol :data:`~turnwise_envs.wire.MANY` sends lists of frames, and gets lists of replies:
what is ready at once travels as one message. Replies come in any order, a bad frame is answered like a bad request and
disturbs no other. What a connection may hold is bounded: frames in flight, bytes of a frame, seconds for a peer that
does not read. A step that was begun runs to its end even if the connection is lost; its result is there for whoever
asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from turnwise_envs.wire import MANY, PROTOCOL_VERSION, Frame
from turnwise_server.bodies import check_values, invalid, validate
from turnwise_server.dispatch import Carrier, refused
from turnwise_server.operations import Answer, Context
from turnwise_server.refusal import Refusal
from turnwise_server.sockets import dropper

logger = logging.getLogger(__name__)

PATH = "/v1/ws"
#: Frames of one connection whose replies are still to be sent. More are refused with 429 for a while (a client that
#: keeps that many sessions busy opens a second connection), and at twice as many nothing more is read.
IN_FLIGHT = 1024
#: Seconds after which a refused frame may be sent again: about the time in which some step ends.
RETRY_AFTER = 0.1
#: Seconds without progress after which a peer that does not read its replies is dropped.
SEND_TIMEOUT = 20.0
#: Frames of one message that are taken at a time. What they began is written down and answered, and the client goes on
#: with that, while the next ones are taken.
CHUNK = 16
#: Replies that are sent under one time limit.
SEND_CHUNK = 64


class Sockets:
    """The ASGI app behind :data:`PATH`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["app"].state
        known = scope["state"]
        carrier = Carrier(Context(state.store, known["caller"]), state.desk, known["request_id"])
        await receive()  # the handshake
        many = MANY in scope["subprotocols"]
        await send(
            {
                "type": "websocket.accept",
                "subprotocol": MANY if many else None,
                "headers": [(b"x-turnwise-protocol", PROTOCOL_VERSION.encode())],
            }
        )
        await Connection(carrier, state.settings.max_body, many, receive, send, dropper(scope)).run()


route = WebSocketRoute(PATH, Sockets())


class Connection:
    """One connection from its handshake to its end."""

    def __init__(
        self, carrier: Carrier, max_frame: int, many: bool, receive: Receive, send: Send, drop: Callable[[], None]
    ) -> None:
        self._carrier = carrier
        self._max_frame = max_frame
        self._many = many
        self._receive = receive
        self._send = send
        self._drop = drop
        self._calls: set[asyncio.Task[None]] = set()
        self._pending = 0  # frames in flight: taken, and their reply not yet sent
        self._outbox: deque[bytes] = deque()
        self._to_send = asyncio.Event()
        self._sent = asyncio.Event()

    async def run(self) -> None:
        """Serve until either end closes."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read(writer)
        finally:
            # Whoever waits for a step no longer does; the step itself is the session's own task.
            for task in (writer, *self._calls):
                task.cancel()
            await asyncio.gather(writer, *self._calls, return_exceptions=True)

    async def _read(self, writer: asyncio.Task[None]) -> None:
        while not writer.done():
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            await self._take(message.get("text") or message.get("bytes") or "")
            while self._pending >= 2 * IN_FLIGHT and not writer.done():
                self._sent.clear()
                await self._sent.wait()

    async def _take(self, data: str | bytes) -> None:
        try:
            frames = self._frames(data)
        except _Bad as bad:
            self._pending += 1
            self._reply(bad.id, refused(bad.refusal, PATH))
            return
        for number, frame in enumerate(frames, start=1):
            if number % CHUNK == 0:
                await asyncio.sleep(0)
            self._pending += 1
            if isinstance(frame, _Bad):
                self._reply(frame.id, refused(frame.refusal, PATH))
            elif self._pending > IN_FLIGHT:
                detail = f"{IN_FLIGHT} frames of this connection are in flight; wait for replies or open another"
                self._reply(frame.id, refused(Refusal("overloaded", detail, RETRY_AFTER), PATH))
            elif not self._carrier.begin(frame, partial(self._reply, frame.id)):
                task = asyncio.create_task(self._call(frame))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    def _frames(self, data: str | bytes) -> Sequence[Frame | _Bad]:
        """What came as frames. Raises _Bad for what is none at all."""
        try:
            check_values(data)
        except Refusal as refusal:
            raise _Bad(self._id_in(data), refusal) from None
        frames: Sequence[Frame | _Bad]
        try:
            frames = (
                _MANY.validate_json(data, strict=True) if self._many else [Frame.model_validate_json(data, strict=True)]
            )
        except ValidationError as error:
            frames = self._one_by_one(data, error)
        if len(data) > self._max_frame:
            too_large = Refusal("payload-too-large", f"the frame is larger than {self._max_frame} bytes")
            return [_Bad(frame.id, too_large) for frame in frames]
        return frames

    def _id_in(self, data: str | bytes) -> int | str | None:
        try:
            return _id_of(from_json(data))
        except ValueError:
            return None

    def _one_by_one(self, data: str | bytes, error: ValidationError) -> list[Frame | _Bad]:
        """The good frames among bad ones. Raises _Bad."""
        try:
            values = from_json(data)
        except ValueError:
            raise _Bad(None, invalid(error)) from None
        if not self._many:
            raise _Bad(_id_of(values), invalid(error))
        if not isinstance(values, list):
            raise _Bad(None, Refusal("invalid-request", "a message here is a list of frames"))
        frames: list[Frame | _Bad] = []
        for value in values:
            try:
                frames.append(validate(Frame, value))
            except Refusal as refusal:
                frames.append(_Bad(_id_of(value), refusal))
        return frames

    async def _call(self, frame: Frame) -> None:
        self._reply(frame.id, await self._carrier.perform(frame))

    def _reply(self, frame_id: int | str | None, answer: Answer) -> None:
        self._outbox.append(_encode(frame_id, answer))
        self._to_send.set()

    async def _write(self) -> None:
        """Send replies as they come."""
        try:
            while True:
                await self._to_send.wait()
                self._to_send.clear()
                while self._outbox:
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await self._send_some(
                            [self._outbox.popleft() for _ in range(min(len(self._outbox), SEND_CHUNK))]
                        )
                    self._sent.set()
        except TimeoutError:
            logger.warning("a peer did not read its replies for %g s: dropped", SEND_TIMEOUT)
            self._drop()
        except OSError:
            pass  # it hung up; the reader hears of it too
        finally:
            self._sent.set()

    async def _send_some(self, replies: list[bytes]) -> None:
        if self._many:
            await self._send({"type": "websocket.send", "text": (b"[%b]" % b",".join(replies)).decode()})
            self._pending -= len(replies)
            return
        for reply in replies:
            await self._send({"type": "websocket.send", "text": reply.decode()})
            self._pending -= 1


_MANY = TypeAdapter(list[Frame])


class _Bad(Exception):
    """What came is no frame that we take."""

    def __init__(self, frame_id: int | str | None, refusal: Refusal) -> None:
        self.id = frame_id
        self.refusal = refusal


def _id_of(value: object) -> int | str | None:
    """The id of something that is no frame, if it has one."""
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, int | str) and not isinstance(found, bool) else None


def _encode(frame_id: int | str | None, answer: Answer) -> bytes:
    name = b"%d" % frame_id if isinstance(frame_id, int) else to_json(frame_id)
    return b'{"id":%b,"status":%d,"body":%b}' % (name, answer.status, answer.body or b"null")
