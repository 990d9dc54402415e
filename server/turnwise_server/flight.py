"""A turn in flight, and the requests that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from turnwise_server.log import Intent

#: Hears the answer to a turn that was taken, or why it was not.
Heard = Callable[[bytes | Exception], None]


class Flight:
    """A turn being taken: its task, and who is to hear how it went."""

    __slots__ = ("_waiting", "intent", "task")

    def __init__(self, intent: Intent) -> None:
        self.intent = intent
        self.task: asyncio.Task[None]
        self._waiting: list[Heard] = []

    def tell(self, heard: Heard) -> None:
        """Call ``heard`` when the flight is over."""
        self._waiting.append(heard)

    def join(self) -> asyncio.Future[bytes]:
        """The answer, for one request: if that is cancelled, the turn and the others go on."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def heard(outcome: bytes | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, bytes):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

        self._waiting.append(heard)
        return future

    def over(self, outcome: bytes | Exception) -> None:
        """The turn was taken, or it was not: whoever still waits hears it, and nobody has to."""
        for heard in self._waiting:
            heard(outcome)
