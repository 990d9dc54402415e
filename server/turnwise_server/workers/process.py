"""One worker as the server sees it: a child process from spawn to death, and the calls that wait for it.

The child does one call at a time, in the order of asking. So the oldest call without an answer is the one that is
running: its time is measured from the answer before it, and when the process ends, that call failed and no other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from turnwise_envs.errors import EnvironmentFault
from turnwise_server.hosts import EnvironmentGone, EnvironmentLost
from turnwise_server.workers.errors import WorkerDied
from turnwise_server.workers.frames import FrameReader, FrameTooLarge, frame
from turnwise_server.workers.messages import Hello

logger = logging.getLogger(__name__)

#: Calls on their way at a time: the next one waits in the child's socket, so that the child never waits for the server.
WINDOW = 2
#: Seconds for the child to import its environments; heavy ones take a while on a busy machine.
START_LIMIT = 120.0
#: Seconds in which an answer may still lie in the socket when its time is up, because the server itself was busy.
LATE = 0.05
#: Seconds that a hung child gets to write down where it hangs; on a busy machine it has to wait for its turn.
LAST_WORDS = 1.0
#: Seconds that what a dead child wrote gets to arrive.
LAST_ANSWERS = 0.2

Ending = Literal["hang", "crash", "stopped"]


@dataclass(eq=False)
class Call:
    """``what`` names it in messages; ``payload`` is the request, ``answer`` its reply's bytes."""

    what: str
    payload: bytes
    answer: asyncio.Future[bytes]


class Worker(asyncio.Protocol):
    """A child process. ``limit`` bounds each call, in seconds; ``on_end`` hears once that there is no process any more."""

    def __init__(
        self, hello: Hello, environ: Mapping[str, str], limit: float, on_end: Callable[[Worker, Ending], None]
    ) -> None:
        """Start the process; it is asked at once and answers when it is ready. Raises OSError.

        Must be called in the thread that runs the event loop: the child dies when the thread that made it does.
        """
        self.episodes: set[int] = set()
        self.ready = False
        self.ended: Ending | None = None
        self.gone = asyncio.Event()
        self._limit = limit
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._waiting: deque[Call] = deque()
        self._sent: deque[Call] = deque()
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "turnwise_server.workers.main", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # the server's own standard output is for its one line
                env=dict(environ),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the server; and what an environment starts dies with its worker
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self.pid = self._process.pid
        self._watched = _watch(self.pid)
        if self._watched is not None:
            self._loop.add_reader(self._watched, self._on_exit)
        self._timer = self._loop.call_later(START_LIMIT, self._end, "hang", f"was not ready in {START_LIMIT:g} s")
        self._tasks = {self._loop.create_task(self._connect(ours, hello))}

    @property
    def queued(self) -> int:
        """Calls without an answer."""
        return len(self._sent) + len(self._waiting)

    async def call(self, what: str, payload: bytes) -> bytes:
        """The reply to a request, which waits for its turn and then has ``limit`` seconds.

        Raises:
            EnvironmentGone: the process ended before the call began.
            EnvironmentLost: the process ended in this call.
            EnvironmentFault: it was killed for the time that this call took.
        """
        call = self._ask(what, payload)
        try:
            return await call.answer
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._waiting.remove(call)  # one that was sent is answered to nobody
            raise

    def post(self, what: str, payload: bytes) -> None:
        """Like :meth:`call`, for a request whose reply nobody waits for."""
        if self.ended is None:
            self._ask(what, payload).answer.add_done_callback(_forget)

    async def stop(self, grace: float) -> None:
        """Let the calls in hand end and the environments close, then the process; after ``grace`` seconds it is killed."""
        if self.ended is None:
            for call in self._waiting:
                _refuse(call, EnvironmentGone(f"{call.what}: the server is stopping"))
            self._waiting.clear()
            self._stopping = True
            if self._transport is not None and self.ready:
                self._transport.write_eof()
                with suppress(TimeoutError):
                    async with asyncio.timeout(grace):
                        await self.gone.wait()
            self._end("stopped", "was stopped")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        try:
            replies = self._frames.feed(data)
        except FrameTooLarge as error:
            self._end("crash", f"wrote what is no reply: {error}")
            return
        for reply in replies:
            self._arrived(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("crash", "ended")

    # inside

    async def _connect(self, ours: socket.socket, hello: Hello) -> None:
        try:
            transport, _ = await self._loop.create_unix_connection(lambda: self, sock=ours)
        except OSError as error:
            ours.close()
            self._end("crash", f"could not be reached: {error}")
            return
        if self.ended is None:
            transport.write(frame(hello.model_dump_json().encode()))
        else:
            transport.abort()

    def _ask(self, what: str, payload: bytes) -> Call:
        if self.ended is not None:
            raise EnvironmentGone(f"{what}: its worker has ended")
        call = Call(what, payload, self._loop.create_future())
        self._waiting.append(call)
        self._send()
        return call

    def _send(self) -> None:
        while self.ready and self.ended is None and self._waiting and len(self._sent) < WINDOW:
            call = self._waiting.popleft()
            try:
                data = frame(call.payload)
            except FrameTooLarge as error:
                _refuse(call, EnvironmentFault(f"{call.what}: {error}"))
                continue
            self._sent.append(call)
            assert self._transport is not None
            self._transport.write(data)
            if len(self._sent) == 1:
                self._begin()

    def _begin(self) -> None:
        """The oldest call, if there is one, runs from now."""
        if self._timer is not None:
            self._timer.cancel()
        running = self._sent[0] if self._sent else None
        self._timer = None if running is None else self._loop.call_later(self._limit, self._late, running)

    def _late(self, call: Call) -> None:
        self._timer = self._loop.call_later(LATE, self._too_late, call)

    def _too_late(self, call: Call) -> None:
        if self._sent and self._sent[0] is call:
            self._end("hang", f"took longer than {self._limit:g} s")

    def _arrived(self, reply: bytes) -> None:
        if not self.ready:
            self.ready = True  # the first frame says so, and nothing else
        elif not self._sent:
            self._end("crash", "answered what was not asked")
            return
        else:
            call = self._sent.popleft()
            if not call.answer.done():
                call.answer.set_result(reply)
        self._begin()
        self._send()

    def _on_exit(self) -> None:
        """The process has ended. Its last answers may still be in the socket, so the end of that is waited for."""
        self._unwatch()
        self._loop.call_later(LAST_ANSWERS, self._end, "crash", "ended")

    def _end(self, ending: Ending, how: str) -> None:
        if self.ended is not None:
            return
        if self._stopping:
            ending = "stopped"
        self.ended = ending
        self._unwatch()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        if ending == "hang":
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGUSR1)  # "where are you?", see main.py
        self._tasks.add(self._loop.create_task(self._bury(ending)))
        if ending != "stopped":
            logger.warning("worker %d %s; %d sessions move", self.pid, how, len(self.episodes))
        running = self._sent.popleft() if self._sent else None
        if running is not None:
            kind = EnvironmentFault if ending == "hang" else EnvironmentLost
            fault = kind(f"{running.what}: worker {self.pid} {how}")
            fault.__cause__ = TimeoutError(how) if ending == "hang" else WorkerDied(how)
            _refuse(running, fault)
        for call in (*self._sent, *self._waiting):
            if self.ready:
                _refuse(call, EnvironmentGone(f"{call.what}: worker {self.pid} {how} before that"))
            else:
                _refuse(call, EnvironmentFault(f"{call.what}: worker {self.pid} {how} before it was ready"))
        self._sent.clear()
        self._waiting.clear()
        self._on_end(self, ending)

    async def _bury(self, ending: Ending) -> None:
        """Kill the process and what it started, and wait until the system has forgotten it."""
        if ending == "hang":
            await asyncio.sleep(LAST_WORDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # not yet waited for, so the number is still this group's
        while self._process.poll() is None:  # noqa: ASYNC110  # nothing tells, and it takes some milliseconds
            await asyncio.sleep(0.01)
        if ending == "crash":
            logger.warning("worker %d had exit status %d", self.pid, self._process.returncode)
        self.gone.set()

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None


def _watch(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends, even if a grandchild keeps its socket open."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or an old one: the end of the socket has to do
        return None


def _refuse(call: Call, error: EnvironmentFault) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)


def _forget(answer: asyncio.Future[bytes]) -> None:
    if not answer.cancelled():
        answer.exception()
