"""The journal as the session store sees it: sessions are begun, go on, end, and are found again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from turnwise_envs.wire import SessionSummary, Status
from turnwise_server.journal import retention
from turnwise_server.journal.files import Claim, claim
from turnwise_server.journal.reader import BeginRow, Gone, Reader, Stored, StoredKey
from turnwise_server.journal.schema import connect
from turnwise_server.journal.writer import Figures, Row, Sync, Writer
from turnwise_server.ledger import Failure, Ledger, Snapshot
from turnwise_server.log import Entry, Log

#: Seconds between two slices of retention: nine tenths of the writer's time are left to commits.
PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Birth:
    """A session to be written down; ``state`` is a snapshot of where it is, if it could not live without."""

    session_id: str
    owner: str
    log: Log
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """The idempotency key that sessions are made under."""

    owner: str
    scope: str
    key: str
    fingerprint: bytes


class Journal:
    """The journal file of this process. ``opened_at`` is when it was opened, in Unix seconds."""

    def __init__(self, taken: Claim, sync: Sync) -> None:
        self.path = taken.path
        self.opened_at = time.time()
        self._closed = False
        self._claim = taken
        with closing(connect(taken.path, write=False)) as connection:
            (last,) = connection.execute("SELECT max(number) FROM sessions").fetchone()
        self._next = (last or 0) + 1
        self._writer = Writer(taken.path, sync)
        self._reader = Reader(taken.path)

    @classmethod
    def open(cls, directory: Path, served: Collection[str], sync: Sync) -> Journal:
        """Take over a journal that nobody uses, or make one. Raises JournalRefused."""
        return cls(claim(directory, served), sync)

    @property
    def figures(self) -> Figures:
        return self._writer.figures

    def begin(self, births: Sequence[Birth], key: NewKey | None) -> tuple[list[Ledger], Awaitable[None]]:
        """Write new sessions down, all or none: their ledgers, and what ends when they are durable.

        Raises, when awaited:
            Refusal: journal-full.
        """
        now = time.time()
        numbers = range(self._next, self._next + len(births))
        self._next = numbers.stop
        rows: list[Row] = []
        for number, birth in zip(numbers, births, strict=True):
            log = birth.log
            begin = BeginRow.of(log.begin).model_dump_json()
            rows.append(("env", (log.env,)))
            rows.append(("session", (number, birth.session_id, birth.owner, log.env, log.env_version, now, begin)))
            rows.extend(_step(number, position, now, entry) for position, entry in enumerate(log.entries))
            if birth.state is not None:
                rows.append(("snapshot", (number, log.turn, birth.state)))
            if log.done:
                rows.append(("ended", (number, "done", now)))
        if key is not None:
            ids = " ".join(birth.session_id for birth in births)
            rows.append(("key", (key.owner, key.scope, key.key, numbers[0], key.fingerprint, ids)))
        return [self._ledger(number) for number in numbers], self._writer.record(rows)

    async def find(self, session_id: str) -> tuple[Stored, Ledger] | Gone | None:
        """A session with its ledger, or that it is gone; None if it never was."""
        stored = await self._reader.session(session_id)
        return (stored, self._ledger(stored.number)) if isinstance(stored, Stored) else stored

    async def find_key(self, owner: str, scope: str, key: str) -> StoredKey | None:
        return await self._reader.key(owner, scope, key)

    async def page(
        self, owners: Sequence[str] | None, status: Status | None, offset: int, limit: int
    ) -> tuple[list[SessionSummary], int]:
        """Sessions of these owners (None: of all), oldest first, and how many there are in all."""
        return await self._reader.page(owners, status, offset, limit)

    def used(self, ledger: Ledger, at: float) -> Awaitable[None]:
        """Somebody asked for this session at ``at``, and it changed nothing that would tell so."""
        return self._writer.record([("used", (_number(ledger), at))])

    def give_up(self, ledger: Ledger, why: str) -> Awaitable[None]:
        """The session is gone: ``why`` is what a late request hears."""
        return self._writer.record([("gone", (_number(ledger), why, time.time()))])

    async def expire_overdue(self, idle: float, lifetime: float, awake: Collection[str]) -> None:
        """Give up live sessions that nobody has used for ``idle`` seconds, or older than ``lifetime``, except ``awake``.

        Nobody is idle for the time that the server was away.
        """
        now = time.time()
        used_before = now - idle if now - idle > self.opened_at else 0.0
        after = 0
        while True:
            overdue, after = await self._reader.overdue(after, max(used_before, now - lifetime), now - lifetime)
            rows: list[Row] = [
                ("gone", (number, "session-expired", now)) for number, sid in overdue if sid not in awake
            ]
            if rows:
                await self._writer.record(rows)
            if not after:
                return
            await asyncio.sleep(PAUSE)

    async def tidy(self, retain: float, budget: int) -> None:
        """Forget what nobody can ask for any more; see :mod:`.retention`."""
        more = True
        while more:
            more = await self._writer.perform(lambda one: retention.tidy(one, time.time(), retain, budget))
            await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        """Write what is left and let the file go. The second time, nothing is left to do."""
        if self._closed:
            return
        self._closed = True
        self._writer.stop()
        loop = asyncio.get_running_loop()
        closed = loop.create_future()

        def close() -> None:
            self._reader.close()
            self._writer.close()
            self._claim.release()
            loop.call_soon_threadsafe(closed.set_result, None)

        # A thread of its own: those of the loop may all hang in environments.
        threading.Thread(target=close, name="journal-close").start()
        await closed

    def _ledger(self, number: int) -> Ledger:
        return JournalLedger(number, self._writer, self._reader)


class JournalLedger:
    """One session's page of the journal: see :class:`turnwise_server.ledger.Ledger`."""

    durable = True
    __slots__ = ("_reader", "_writer", "number")

    def __init__(self, number: int, writer: Writer, reader: Reader) -> None:
        self.number = number
        self._writer = writer
        self._reader = reader

    def intend(self, position: int, action: bytes | None) -> Awaitable[None]:
        return self._writer.record([("intent", (self.number, position, action))])

    def append(self, position: int, entry: Entry, state: bytes | None) -> Awaitable[None]:
        now = time.time()
        rows = [_step(self.number, position, now, entry)]
        if state is not None:
            rows.append(("snapshot", (self.number, position + 1, state)))
        if entry.done:
            rows.append(("ended", (self.number, "done", now)))
        return self._writer.record(rows)

    def keep(self, snapshot: Snapshot) -> Awaitable[None]:
        return self._writer.record([("snapshot", (self.number, *snapshot))])

    def fail(self, failure: Failure) -> Awaitable[None]:
        return self._writer.record([("ended", (self.number, failure, time.time()))])

    async def nearest(self, turn: int) -> Snapshot | None:
        return await self._reader.nearest(self.number, turn)


def _step(number: int, position: int, now: float, entry: Entry) -> Row:
    log_hash = bytes.fromhex(entry.log_hash)
    return ("step", (number, position, now, entry.action, entry.result, log_hash, entry.done))


def _number(ledger: Ledger) -> int:
    assert isinstance(ledger, JournalLedger)
    return ledger.number
