"""A turn in flight, and the requests that wait for it."""

from __future__ import annotations

import asyncio

from turnwise_server.log import Intent


class Flight:
    """A turn being taken: its task, and a future for each request that waits for it."""

    __slots__ = ("_waiting", "intent", "task")

    def __init__(self, intent: Intent) -> None:
        self.intent = intent
        self.task: asyncio.Task[None]
        self._waiting: list[asyncio.Future[bytes]] = []

    def join(self) -> asyncio.Future[bytes]:
        """The answer, for one request: if that is cancelled, the turn and the others go on."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future

    def land(self, answer: bytes) -> None:
        """The turn was taken."""
        for future in self._waiting:
            if not future.done():
                future.set_result(answer)

    def crash(self, error: Exception) -> None:
        """It was not: whoever still waits hears why, and nobody has to."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
