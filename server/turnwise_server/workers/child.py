"""The loop of a worker: requests in, one at a time, answers out, until the server closes the socket.

Everything an environment does wrong is an answer; only the end of the process is not, and the server sees that.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from turnwise_envs.address import Address, find
from turnwise_envs.environment import Environment
from turnwise_envs.errors import EnvironmentFault, InvalidOptions, UnknownTask
from turnwise_server.hosts import Beginning, Episode, LocalHost, placeholder
from turnwise_server.workers.frames import HEADER, MAX_FRAME, FrameTooLarge, frame
from turnwise_server.workers.messages import (
    REQUEST,
    Answer,
    Close,
    Fault,
    FaultType,
    Finish,
    GetReference,
    Hello,
    ListTasks,
    Message,
    Nothing,
    Ready,
    Reply,
    Request,
    Restore,
    Start,
    Started,
    Step,
    Stepped,
    Taken,
    TakeSnapshot,
)

logger = logging.getLogger(__name__)

#: Seconds for the environments to close after the server has gone; a little less than it waits for that.
CLOSING = 1.5
#: Characters of a traceback that are sent on: its end says most.
MAX_TRACE = 8192


async def serve(sock: socket.socket) -> None:
    """Serve one server over ``sock``, and return when it closes its end. A call that hangs is then left running."""
    # One thread: calls come one at a time anyway, and libraries that insist on their thread are content.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="environment"))
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    writer.transport.set_write_buffer_limits(0)  # an answer is on its way before the next call begins
    requests: asyncio.Queue[bytes] = asyncio.Queue()
    episodes: Episodes | None = None
    work: asyncio.Task[None] | None = None
    try:
        hello = Hello.model_validate_json(await _received(reader))
        sys.path[:] = hello.sys_path
        importlib.invalidate_caches()
        episodes = Episodes(hello.environments)
        writer.write(frame(Ready(pid=os.getpid()).model_dump_json().encode()))
        work = asyncio.create_task(_work(episodes, requests, writer))
        while True:
            requests.put_nowait(await _received(reader))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the server is done with us
    if work is not None and episodes is not None:
        await _finish(work, requests, episodes)


class Episodes:
    """The episodes in this process, by handle, and the environments that they are of."""

    def __init__(self, addresses: Mapping[str, Address]) -> None:
        self._host = LocalHost()
        self._episodes: dict[int, Episode] = {}
        self._addresses = addresses
        self._classes: dict[str, type[Environment]] = {}
        for env in addresses:
            try:
                self._class(env)
            except Exception:
                logger.exception("environment %s cannot be imported here", env)

    async def answer(self, request: Request) -> Answer:
        """Do what is asked. Raises what the environment raises."""
        match request:
            case Start():
                started = await self._host.start(
                    self._class(request.env), request.split, request.index, request.seed, request.options
                )
                self._episodes[request.handle] = started
                return Started(task=started.task, observation=started.initial, initial_hash=started.initial_hash)
            case Restore():
                begin = Beginning(request.task, request.seed, request.options, request.initial, request.initial_hash)
                self._episodes[request.handle] = await self._host.restore(
                    self._class(request.env), begin, request.turn, request.log_hash, request.snapshot
                )
                return Nothing()
            case Step():
                episode = self._episodes[request.handle]
                result = await episode.step(request.action)
                if not result.done:  # the server keeps the content
                    episode.records[-1] = placeholder(episode.log_hash)
                return Stepped(result=result, log_hash=episode.log_hash)
            case Finish():
                episode = self._episodes[request.handle]
                result = await episode.finish(request.reason)
                return Stepped(result=result, log_hash=episode.log_hash)
            case TakeSnapshot():
                return Taken(snapshot=await self._host.snapshot(self._episodes[request.handle]))
            case Close():
                closing = self._episodes.pop(request.handle, None)  # None: its start has failed
                if closing is not None:
                    await closing.close()
                return Nothing()
            case ListTasks():
                return await self._host.tasks(self._class(request.env), request.split, request.offset, request.limit)
            case GetReference():
                return await self._host.reference(self._class(request.env), request.task)

    async def close(self) -> None:
        for episode in self._episodes.values():
            try:
                await episode.close()
            except Exception:
                logger.exception("close of %s", episode.task.id)

    def _class(self, env: str) -> type[Environment]:
        if env not in self._classes:
            self._classes[env] = find(self._addresses[env])
        return self._classes[env]


async def _received(reader: asyncio.StreamReader) -> bytes:
    (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
    if length > MAX_FRAME:
        raise FrameTooLarge(f"a frame of {length} bytes was announced; {MAX_FRAME} is the limit")
    return await reader.readexactly(length)


async def _work(episodes: Episodes, requests: asyncio.Queue[bytes], writer: asyncio.StreamWriter) -> None:
    while payload := await requests.get():
        reply = await _reply(episodes, payload)
        writer.write(reply)
        await writer.drain()


async def _reply(episodes: Episodes, payload: bytes) -> bytes:
    """The framed reply to a request, whatever happens. No environment can end this loop by raising."""
    try:
        answer = await episodes.answer(REQUEST.validate_json(payload))
        # Not through Reply, which would check once more what has just been made.
        return frame(b'{"answer":' + answer.model_dump_json().encode() + b"}")
    except BaseException as error:  # an environment may well raise SystemExit or CancelledError
        return frame(Reply[Message](fault=_fault(error)).model_dump_json().encode())


def _fault(error: BaseException) -> Fault:
    match error:
        case UnknownTask():
            return _told("unknown-task", error, error)
        case InvalidOptions():
            return _told("invalid-options", error, error)
        case EnvironmentFault():
            return _told("environment", error, error.__cause__ or error)
        case _:
            return _told("unexpected", error, error)


def _told(kind: FaultType, error: BaseException, cause: BaseException) -> Fault:
    text = _clean(str(error)[:MAX_TRACE])
    trace = _clean("".join(traceback.format_exception(cause))[-MAX_TRACE:])
    return Fault(type=kind, kind=type(cause).__name__, text=text, trace=trace)


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON in UTF-8 cannot carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


async def _finish(work: asyncio.Task[None], requests: asyncio.Queue[bytes], episodes: Episodes) -> None:
    """Answer what was received, close the environments, and take at most CLOSING seconds for it."""
    requests.put_nowait(b"")

    async def finish() -> None:
        await asyncio.wait({work})
        await episodes.close()

    _, late = await asyncio.wait({asyncio.create_task(finish())}, timeout=CLOSING)
    if late:
        logger.warning("environments were not closed in %g s", CLOSING)
