"""What a session writes down for itself, and where from it comes back: a journal's ledger, or none.

Whatever a method returns is awaited before the client hears of the deed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Literal, NamedTuple, Protocol

from turnwise_server.log import Entry

#: How a session can end other than by its own last turn.
Failure = Literal["failed", "lost"]


class Snapshot(NamedTuple):
    """The state of an environment after ``turn`` actions."""

    turn: int
    state: bytes


class Ledger(Protocol):
    """One session's page of the journal. Every write raises Refusal ``journal-full`` if it cannot be made."""

    #: Whether anything is kept at all.
    durable: bool

    def intend(self, position: int, action: bytes | None) -> Awaitable[None]:
        """An action with effects is about to be carried out."""
        ...

    def append(self, position: int, entry: Entry, state: bytes | None) -> Awaitable[None]:
        """A turn was taken; ``state`` is a snapshot after it."""
        ...

    def keep(self, snapshot: Snapshot) -> Awaitable[None]: ...

    def fail(self, failure: Failure) -> Awaitable[None]: ...

    async def nearest(self, turn: int) -> Snapshot | None:
        """The latest snapshot of at most ``turn`` actions."""
        ...


class _Done:
    """Nothing to wait for."""

    def __await__(self) -> Generator[None]:
        return
        yield


class NoLedger:
    """For sessions that live in memory only."""

    durable = False

    def intend(self, position: int, action: bytes | None) -> Awaitable[None]:
        return _DONE

    def append(self, position: int, entry: Entry, state: bytes | None) -> Awaitable[None]:
        return _DONE

    def keep(self, snapshot: Snapshot) -> Awaitable[None]:
        return _DONE

    def fail(self, failure: Failure) -> Awaitable[None]:
        return _DONE

    async def nearest(self, turn: int) -> Snapshot | None:
        return None


_DONE = _Done()
