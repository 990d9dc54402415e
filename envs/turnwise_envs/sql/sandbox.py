"""Run SQL that nobody has vetted, against a database that must stay as it is.

A statement meets, in this order: a look at its text (:mod:`.statement`), SQLite's own limits on lengths and depths, an
authorizer that allows reading the database's tables with a closed list of functions and nothing else, a deadline in
steps of SQLite's virtual machine, caps on rows and bytes of the result. All of that depends on the statement and the
database only, so the same query ends in the same way everywhere. Behind it stand two limits that do not: seconds on
the clock, and the heap of SQLite in this process; only a statement that is out to do harm meets them.

Whatever happens is an :class:`Outcome`; :meth:`Sandbox.run` does not raise. One statement runs at a time in a process,
so that the memory one may use does not depend on its neighbours.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from turnwise_envs.sql import functions
from turnwise_envs.sql.functions import Value
from turnwise_envs.sql.statement import MAX_LENGTH, refusal

Row = tuple[Value, ...]

#: SQLite's heap in this process, in bytes. It bounds sorts and temporary tables, which are kept off the disk.
HEAP_BYTES = 256 * 2**20
#: Virtual machine steps between two looks at the deadline.
_TICK = 2_000
#: Outcomes that a read-only database remembers, and most rows of one.
_OUTCOMES_KEPT = 256
_ROWS_KEPT = 100


@dataclass(frozen=True)
class Limits:
    """What one statement may use. The first three are exact; ``seconds`` only backs them up."""

    vm_steps: int = 5_000_000
    rows: int = 20_000
    bytes: int = 4_000_000
    value_length: int = 200_000
    seconds: float = 10.0


class Ending(StrEnum):
    """How a statement ended."""

    OK = "ok"
    ERROR = "error"  #: SQLite does not understand it, or it fails
    REFUSED = "refused"  #: it asks for something that is not allowed here
    STOPPED = "stopped"  #: it takes too much work or memory
    TOO_LARGE = "too_large"  #: its result, or a value in it, is too large; the rows so far are kept


@dataclass(frozen=True)
class Outcome:
    """What came of a statement. ``changed`` is the number of rows written, None for a query."""

    ending: Ending
    columns: tuple[str, ...] = ()
    rows: list[Row] = field(default_factory=list)
    message: str = ""
    changed: int | None = None

    @property
    def ok(self) -> bool:
        return self.ending is Ending.OK


class Sandbox:
    """A database behind all the guards. The connection is the sandbox's own from now on, in autocommit.

    ``today`` is what ``CURRENT_TIMESTAMP`` says; ``writable`` allows INSERT, UPDATE and DELETE.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, today: str, limits: Limits | None = None, writable: bool = False
    ) -> None:
        self.limits = limits or Limits()
        self.today = today
        self._connection = connection
        self.tables = _table_names(connection)
        self._guard = _Authorizer(self.tables, writable)
        self._ticks = 0
        self._writable = writable
        self._known: dict[str, Outcome] = {}  # members of a group often ask the same of a database that stays the same
        _harden(connection, self.limits, today, writable)
        connection.set_authorizer(self._guard)
        connection.set_progress_handler(self._tick, _TICK)

    def run(self, sql: str, max_rows: int | None = None) -> Outcome:
        """Run one statement. Never raises. ``max_rows`` lowers the cap on rows."""
        most = self.limits.rows if max_rows is None else min(max_rows, self.limits.rows)
        known = self._known.get(sql)
        if known is not None and len(known.rows) <= most:
            return known
        problem = refusal(sql)
        if problem is not None:
            return Outcome(Ending.REFUSED, message=problem)
        outcome = self._run(sql, most)
        if outcome.ok and not self._writable and len(outcome.rows) <= _ROWS_KEPT:
            if len(self._known) >= _OUTCOMES_KEPT:
                self._known.clear()
            self._known[sql] = outcome
        return outcome

    def _run(self, sql: str, most: int) -> Outcome:
        with _ONE_AT_A_TIME:
            self._ticks, self._guard.problem = 0, None
            before = self._connection.total_changes
            cursor = self._connection.cursor()
            try:
                with _WATCHDOG.watch(self._connection, self.limits.seconds):
                    cursor.execute(sql)
                    found = self._fetched(cursor, most)
                changed = self._connection.total_changes - before
                return replace(found, changed=changed) if changed or not found.columns else found
            except (sqlite3.Error, sqlite3.Warning, MemoryError, ValueError, OverflowError) as error:
                return self._failed(error)
            finally:
                cursor.close()

    def contents(self, table: str) -> list[Row]:
        """All rows of one of ``tables``, in SQLite's order: nobody's statement, so without deadline and caps."""
        with _ONE_AT_A_TIME:
            self._ticks = -(10**12)
            return self._connection.execute(f"SELECT * FROM {quoted(table)}").fetchall()

    @property
    def written(self) -> set[str]:
        """Tables that some statement was allowed to write to."""
        return self._guard.written

    def copy(self, *, spare_bytes: int = 4 * 2**20) -> Sandbox:
        """A private, writable copy in memory that may grow by ``spare_bytes``."""
        connection = connect_memory()
        with _ONE_AT_A_TIME:
            self._connection.backup(connection)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + spare_bytes // page_size}")
        return Sandbox(connection, today=self.today, limits=self.limits, writable=True)

    def close(self) -> None:
        self._connection.close()

    def _tick(self) -> bool:
        self._ticks += 1
        return self._ticks * _TICK > self.limits.vm_steps

    def _fetched(self, cursor: sqlite3.Cursor, most: int) -> Outcome:
        if cursor.description is None:
            return Outcome(Ending.OK)
        columns = tuple(column[0] for column in cursor.description)
        rows: list[Row] = []
        size = 0
        for row in cursor:
            size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if len(rows) == most or size > self.limits.bytes:
                what = f"more than {most} rows" if len(rows) == most else f"more than {self.limits.bytes} bytes"
                return Outcome(Ending.TOO_LARGE, columns, rows, f"The result has {what}.")
            rows.append(row)
        return Outcome(Ending.OK, columns, rows)

    def _failed(self, error: Exception) -> Outcome:
        if self._guard.problem is not None:
            return Outcome(Ending.REFUSED, message=self._guard.problem)
        if isinstance(error, MemoryError) or "interrupted" in str(error):
            return Outcome(
                Ending.STOPPED,
                message=f"The statement was stopped: it takes more than {self.limits.vm_steps} steps, or too much memory.",
            )
        if "string or blob too big" in str(error) or "user-defined function raised" in str(error):
            return Outcome(
                Ending.TOO_LARGE, message=f"A value would be longer than {self.limits.value_length} characters."
            )
        return Outcome(Ending.ERROR, message=f"{_said(error)}.")


def connect_memory() -> sqlite3.Connection:
    """An empty database in memory, in autocommit, usable from any thread that holds the sandbox's lock."""
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


def connect_file(path: Path) -> sqlite3.Connection:
    """A database file, opened read-only and taken not to change. Raises sqlite3.OperationalError if there is none."""
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    return connection


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _table_names(connection: sqlite3.Connection) -> list[str]:
    """Tables and views in the order of their making, without SQLite's own."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid")
    return [name for (name,) in found if not name.startswith("sqlite_")]


def _harden(connection: sqlite3.Connection, limits: Limits, today: str, writable: bool) -> None:
    functions.install(connection, today, limits.value_length)
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute(f"PRAGMA hard_heap_limit = {HEAP_BYTES}")
    connection.execute("PRAGMA cell_size_check = ON")
    if not writable:
        connection.execute("PRAGMA query_only = ON")
    for category, limit in (
        (sqlite3.SQLITE_LIMIT_LENGTH, limits.value_length),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 4 * MAX_LENGTH),
        (sqlite3.SQLITE_LIMIT_COLUMN, 400),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200),
        (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50),
        (sqlite3.SQLITE_LIMIT_VDBE_OP, 200_000),
        (sqlite3.SQLITE_LIMIT_FUNCTION_ARG, 32),
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
        (sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 0),
        (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 5),
        (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
    ):
        connection.setlimit(category, limit)


_CATALOGUE = {"sqlite_master", "sqlite_schema"}
_SAFE_PRAGMAS = {"table_info", "table_xinfo", "foreign_key_list", "index_list", "index_info"}
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}
_WRITING = {sqlite3.SQLITE_INSERT: "INSERT", sqlite3.SQLITE_UPDATE: "UPDATE", sqlite3.SQLITE_DELETE: "DELETE"}
_REFUSED = {
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_TRANSACTION: "A transaction",
    sqlite3.SQLITE_SAVEPOINT: "SAVEPOINT",
    sqlite3.SQLITE_ANALYZE: "ANALYZE",
    sqlite3.SQLITE_REINDEX: "REINDEX",
}


class _Authorizer:
    """SQLite asks it about each thing that a statement would do. ``problem`` is why it said no."""

    def __init__(self, tables: Iterable[str], writable: bool) -> None:
        self.problem: str | None = None
        self._tables = {name.lower(): name for name in tables}
        self._writable = writable
        self.written: set[str] = set()

    def __call__(self, what: int, first: str | None, second: str | None, schema: str | None, _: str | None) -> int:
        problem = self._problem(what, (first or "").lower(), (second or "").lower(), schema)
        if problem is None:
            return sqlite3.SQLITE_OK
        self.problem = self.problem or problem
        return sqlite3.SQLITE_DENY

    def _problem(self, what: int, first: str, second: str, schema: str | None) -> str | None:
        if what in _READING:
            return None
        if what == sqlite3.SQLITE_READ:
            # Names of WITH queries come without a schema; so do virtual tables, which UPDATE the catalogue before.
            known = first in self._tables or first in _CATALOGUE or schema is None
            return None if known else f"There is no table {first[:60]} here."
        if what == sqlite3.SQLITE_FUNCTION:
            return None if second in functions.ALLOWED else f"The function {second[:60]} is not available here."
        if what == sqlite3.SQLITE_PRAGMA:
            return None if first in _SAFE_PRAGMAS and second else f"PRAGMA {first[:60]} is not allowed here."
        if what in _WRITING and self._writable and first in self._tables:
            self.written.add(self._tables[first])
            return None
        if what in _WRITING:
            return (
                "Only tables of the database can be read here."
                if first in _CATALOGUE
                else f"{_WRITING[what]} is not allowed: this database can only be read."
            )
        return f"{_REFUSED.get(what, 'A change of the schema')} is not allowed here."


class _Watchdog:
    """Interrupts a statement that outlives its seconds. One thread, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: tuple[sqlite3.Connection, float] | None = None
        self._thread: threading.Thread | None = None

    def watch(self, connection: sqlite3.Connection, seconds: float) -> _Watchdog:
        if self._thread is None or not self._thread.is_alive():  # threads do not survive a fork
            self._thread = threading.Thread(target=self._patrol, name="sql-watchdog", daemon=True)
            self._thread.start()
        with self._lock:
            self._watched = (connection, time.monotonic() + seconds)
        return self

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._watched = None

    def _patrol(self) -> None:
        while True:
            time.sleep(0.25)
            with self._lock:
                if self._watched is not None and time.monotonic() > self._watched[1]:
                    self._watched[0].interrupt()


_ONE_AT_A_TIME = threading.RLock()
_WATCHDOG = _Watchdog()


def _said(error: Exception) -> str:
    text = str(error).strip().rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
