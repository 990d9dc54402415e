"""How much work is let in at a time. No HTTP and no sessions in here.

Nothing ever waits for admission: what does not fit is refused at once, with a hint when to come back, and what was let
in goes on undisturbed.
"""

from __future__ import annotations

import asyncio
import resource

from turnwise_server.refusal import Refusal

#: Seconds after which a refused client may try again: a few steps' time.
RETRY_AFTER = 1.0
#: Seconds until a server that is stopping has been replaced, if somebody does that.
RETRY_AFTER_STOP = 5.0


class Intake:
    """Counts operations in flight, in all and for each client, and the bytes of large bodies on their way.

    ``most`` operations in all, ``most_each`` for one client (a token's name), ``most_bytes`` of bodies.
    """

    def __init__(self, most: int, most_each: int, most_bytes: int) -> None:
        self._most = most
        self._most_each = most_each
        self._most_bytes = most_bytes
        self._each: dict[str, int] = {}
        self._in_flight = 0
        self._bytes = 0
        self._stopping = False
        self._idle = asyncio.Event()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def enter(self, client: str) -> None:
        """Let one operation in; :meth:`leave` must follow. Raises Refusal ``overloaded``."""
        if self._stopping:
            raise Refusal("overloaded", "this server is stopping", RETRY_AFTER_STOP)
        if self._in_flight >= self._most:
            raise Refusal("overloaded", f"{self._most} operations are in flight here; try again", RETRY_AFTER)
        mine = self._each.get(client, 0)
        if mine >= self._most_each:
            raise Refusal("overloaded", f"you have {mine} operations in flight, as many as you may", RETRY_AFTER)
        self._each[client] = mine + 1
        self._in_flight += 1

    def leave(self, client: str) -> None:
        self._in_flight -= 1
        mine = self._each[client] - 1
        if mine:
            self._each[client] = mine
        else:
            del self._each[client]  # so that clients who left take no room
        if self._stopping and not self._in_flight:
            self._idle.set()

    def reserve(self, size: int) -> None:
        """Make room for a body of ``size`` bytes; :meth:`free` must follow. Raises Refusal ``overloaded``."""
        if self._bytes + size > self._most_bytes:
            raise Refusal("overloaded", f"{self._bytes} bytes of large bodies are on their way; try again", RETRY_AFTER)
        self._bytes += size

    def free(self, size: int) -> None:
        self._bytes -= size

    def stop(self) -> None:
        """Let nothing in from now on."""
        self._stopping = True
        if not self._in_flight:
            self._idle.set()

    async def idle(self, patience: float) -> bool:
        """After :meth:`stop`: whether everything that was let in has ended within ``patience`` seconds."""
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def descriptors(wanted: int) -> int:
    """Ask the system for ``wanted`` open files for this process, and say how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
