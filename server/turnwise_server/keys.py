"""Idempotency keys: what was asked under a key is done once, however often and however simultaneously it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from turnwise_server.journal.journal import Journal
from turnwise_server.refusal import Refusal

#: Whose key it is, what it is for ("create" or the id of a forked session), and the key.
KeyName = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Keyed:
    """What was asked under a key, and the task that makes its sessions (ids, in order; were they new)."""

    fingerprint: bytes
    task: asyncio.Task[tuple[list[str], bool]]


class Keys:
    """The keys of a server. With a journal, memory holds only those whose sessions are being made."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._known: dict[KeyName, Keyed] = {}

    async def once(
        self, name: KeyName | None, fingerprint: bytes, make: Callable[[], Coroutine[Any, Any, list[str]]]
    ) -> tuple[list[str], bool]:
        """The ids that ``make`` gives, or gave, under this key (None: no key), and whether they are new.

        The work goes on if the request that began it is cancelled. If it fails, the key is free again.

        Raises:
            Refusal: invalid-request for another ``fingerprint`` than the first time; what ``make`` raises.
        """
        keyed = None if name is None else self._known.get(name)
        first = keyed is None
        if keyed is None:
            keyed = Keyed(fingerprint, asyncio.create_task(self._found_or_made(name, fingerprint, make)))
            keyed.task.add_done_callback(lambda task: self._made(name, task))
            if name is not None:
                self._known[name] = keyed
        elif keyed.fingerprint != fingerprint:
            raise _used()
        ids, fresh = await asyncio.shield(keyed.task)
        return ids, fresh and first

    def forget(self, names: Iterable[KeyName]) -> None:
        """Their sessions are not even remembered as gone any more."""
        for name in names:
            self._known.pop(name, None)

    def cancel(self) -> list[asyncio.Task[Any]]:
        """Give up what is being made; the tasks that end now."""
        makers = [keyed.task for keyed in self._known.values() if not keyed.task.done()]
        for maker in makers:
            maker.cancel()
        return makers

    async def _found_or_made(
        self, name: KeyName | None, fingerprint: bytes, make: Callable[[], Coroutine[Any, Any, list[str]]]
    ) -> tuple[list[str], bool]:
        if name is not None and self._journal is not None:
            found = await self._journal.find_key(*name)
            if found is not None:
                if found.fingerprint != fingerprint:
                    raise _used()
                return found.sessions, False
        return await make(), True

    def _made(self, name: KeyName | None, task: asyncio.Task[Any]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if name is not None and (failed or self._journal is not None):
            self._known.pop(name, None)


def _used() -> Refusal:
    return Refusal("invalid-request", "key: it was used before, for another request")
