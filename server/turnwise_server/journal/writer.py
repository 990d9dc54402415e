"""The one thread that writes a journal: group commit, and checkpoints beside it.

The event loop hands over what one turn of it has produced; the thread takes everything that has piled up meanwhile,
writes it in one transaction and reports back once. So a commit carries one row when little goes on and hundreds under
load, without a timer. Rows are inserted many at a time, since each call into SQLite gives the interpreter lock away
and has to wait for it again.

In WAL mode a commit appends to the log file. With ``sync="normal"`` that survives the death of the process, since the
operating system has it; with ``sync="full"`` each commit waits for the disk and survives a power cut. Moving the log
into the database file (a checkpoint, which always waits for the disk) is another thread's job.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, Literal, TypeVar

from turnwise_server.journal.schema import INSERTS, connect
from turnwise_server.metrics import Latency
from turnwise_server.refusal import Refusal

logger = logging.getLogger(__name__)
T = TypeVar("T")

Sync = Literal["normal", "full"]
#: What kind of row (a key of :data:`~turnwise_server.journal.schema.INSERTS`), and its values.
Row = tuple[str, tuple[Any, ...]]

#: Rows of one INSERT, largest first; each size is one prepared statement.
CHUNKS = (64, 16, 4, 1)
#: Seconds between checkpoints while something is written.
CHECKPOINT_EVERY = 1.0
#: Pages of the log (128 MiB) after which the writer itself finishes a checkpoint, so that the log begins anew. Under
#: constant load a checkpoint beside the writer never catches up with it.
LONG_LOG = 32_768
#: Seconds after which a client that met a full disk may try again.
RETRY_AFTER = 5.0


@dataclass(slots=True)
class Job:
    """``work`` is done in a transaction of its own; otherwise ``rows`` are written, together with other jobs'."""

    future: asyncio.Future[Any]
    rows: Sequence[Row]
    handed_over: float
    work: Callable[[sqlite3.Connection], Any] | None = None


@dataclass(slots=True)
class Figures:
    """What the writer did so far; ``waiting`` jobs are not yet durable, ``lag`` is how long others were not."""

    commits: int = 0
    rows: int = 0
    failures: int = 0
    waiting: int = 0
    lag: Latency = field(default_factory=Latency)


class Writer:
    """Writes the journal at ``path``, of which it must be the only writer. Call it on one event loop only."""

    def __init__(self, path: Path, sync: Sync) -> None:
        self.figures = Figures()
        self._path = path
        self._connection = connect(path, write=True)
        self._connection.execute(f"PRAGMA synchronous = {sync}")
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._connection.execute("PRAGMA cache_size = -32768")
        self._connection.execute("PRAGMA journal_size_limit = 67108864")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._incoming: list[Job] = []
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._finish_checkpoint = threading.Event()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, name="journal-writer", daemon=True),
            threading.Thread(target=self._checkpoint, name="journal-checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def record(self, rows: Sequence[Row]) -> Awaitable[None]:
        """Write ``rows``, all or none; what is returned ends when they are durable.

        Raises, when awaited:
            Refusal: journal-full.
        """
        return self._submit(Job(self._new_future(), rows, perf_counter()))

    async def perform(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` in the writer's thread, in a transaction of its own. It must be short: commits wait for it."""
        result: T = await self._submit(Job(self._new_future(), (), perf_counter(), work))
        return result

    def stop(self) -> None:
        """Take nothing more; what was taken is still written."""
        self._closing.set()
        self._hand_over()
        self._queue.put(None)

    def close(self) -> None:
        """After :meth:`stop`: wait until all is written, and close the file. It blocks, so call it in a thread."""
        for thread in self._threads:
            thread.join()
        self._connection.close()

    def _new_future(self) -> asyncio.Future[Any]:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.create_future()

    def _submit(self, job: Job) -> asyncio.Future[Any]:
        assert self._loop is not None
        if self._closing.is_set():
            job.future.set_exception(Refusal("journal-full", "the journal is closed: the server stops", RETRY_AFTER))
            job.future.exception()
            return job.future
        if not self._incoming:
            self._loop.call_soon(self._hand_over)
        self._incoming.append(job)
        self.figures.waiting += 1
        return job.future

    def _hand_over(self) -> None:
        if self._incoming:
            self._queue.put(self._incoming)
            self._incoming = []

    def _landed(self, jobs: Sequence[Job], results: Sequence[Any]) -> None:
        now = perf_counter()
        self.figures.waiting -= len(jobs)
        for job, result in zip(jobs, results, strict=True):
            self.figures.lag.observe(now - job.handed_over)
            if job.future.cancelled():
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
                job.future.exception()  # who does not wait for it need not hear of it
            else:
                job.future.set_result(result)

    def _write(self) -> None:
        """The writer's thread."""
        while (jobs := self._queue.get()) is not None:
            with suppress(Empty):
                while (more := self._queue.get_nowait()) is not None:
                    jobs.extend(more)
                self._queue.put(None)  # the end was met: meet it again after these
            plain = [job for job in jobs if job.work is None]
            if plain:
                self._report(plain, self._commit(plain))
            for job in jobs:
                if job.work is not None:
                    self._report([job], self._alone(job.work))
            if self._finish_checkpoint.is_set():
                self._finish_checkpoint.clear()
                with suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def _commit(self, jobs: Sequence[Job]) -> list[BaseException | None]:
        """Write the rows of all jobs in one transaction; if that fails, each in its own, for one may be to blame."""
        try:
            self._transaction(lambda connection: _insert(connection, chain.from_iterable(job.rows for job in jobs)))
        except Exception as error:
            if len(jobs) > 1 and not _from_outside(error):
                return [outcome for job in jobs for outcome in self._commit([job])]
            self.figures.failures += 1
            logger.error("the journal %s cannot be written: %s", self._path, error)
            refusal = Refusal("journal-full", f"the journal cannot be written: {error}", RETRY_AFTER)
            return [refusal] * len(jobs)
        self.figures.commits += 1
        self.figures.rows += sum(len(job.rows) for job in jobs)
        return [None] * len(jobs)

    def _alone(self, work: Callable[[sqlite3.Connection], Any]) -> list[Any]:
        try:
            return [self._transaction(work)]
        except Exception as error:
            return [error]

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _report(self, jobs: Sequence[Job], results: Sequence[Any]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._landed, jobs, results)

    def _checkpoint(self) -> None:
        """The checkpointer's thread."""
        connection = connect(self._path, write=True)
        done = 0
        try:
            while not self._closing.wait(CHECKPOINT_EVERY):
                if self.figures.commits == done:
                    continue
                done = self.figures.commits
                try:
                    _, log, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                except sqlite3.Error as error:
                    logger.warning("checkpoint of %s: %s", self._path, error)
                    continue
                if log > LONG_LOG:
                    self._finish_checkpoint.set()
        finally:
            connection.close()


def _insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    by_kind: dict[str, list[tuple[Any, ...]]] = {}
    for kind, values in rows:
        by_kind.setdefault(kind, []).append(values)
    for kind, table in by_kind.items():
        start = 0
        for size in CHUNKS:
            while len(table) - start >= size:
                connection.execute(_statement(kind, size), tuple(chain.from_iterable(table[start : start + size])))
                start += size


def _statement(kind: str, count: int) -> str:
    key = (kind, count)
    statement = _STATEMENTS.get(key)
    if statement is None:
        head, width = INSERTS[kind]
        row = f"({','.join('?' * width)})"
        statement = _STATEMENTS[key] = head + ",".join([row] * count)
    return statement


def _from_outside(error: BaseException) -> bool:
    """No row is to blame, and to try each alone would only take longer: the disk, or somebody who holds the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY)


_STATEMENTS: dict[tuple[str, int], str] = {}
