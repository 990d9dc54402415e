"""Read sessions back from a journal, in threads of their own so that no read holds up the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from turnwise_envs.types import JsonObject, Noun, Observation, Task
from turnwise_envs.wire import SessionSummary, Status
from turnwise_server.hosts import Beginning
from turnwise_server.journal.schema import connect
from turnwise_server.ledger import Failure, Snapshot
from turnwise_server.log import Entry, Log

T = TypeVar("T")

#: Reads at a time. They are short, and mostly of pages that the system has in memory.
THREADS = 2
#: Sessions looked at in one search for overdue ones: some ten milliseconds.
WINDOW = 5000


class BeginRow(Noun):
    """How a session began, as it stands in its row."""

    task: Task
    seed: int
    options: JsonObject
    initial: Observation
    initial_hash: str

    @classmethod
    def of(cls, begin: Beginning) -> BeginRow:
        return cls(
            task=begin.task,
            seed=begin.seed,
            options=begin.options,
            initial=begin.initial,
            initial_hash=begin.initial_hash,
        )

    def beginning(self) -> Beginning:
        return Beginning(self.task, self.seed, self.options, self.initial, self.initial_hash)


@dataclass(frozen=True, slots=True)
class Stored:
    """A session as the journal has it. ``used_at`` is when somebody last asked for it, as far as was written down."""

    number: int
    owner: str
    log: Log
    begun_at: float
    used_at: float
    failure: Failure | None
    indeterminate: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """A session that was given up."""

    owner: str
    why: str


@dataclass(frozen=True, slots=True)
class StoredKey:
    fingerprint: bytes
    sessions: list[str]


class Reader:
    """Reads the journal at ``path``, also while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="journal-reader")
        self._keys: list[tuple[str, str, str]] = []  # to be looked up next
        self._looking_up: asyncio.Task[list[StoredKey | None]]

    async def session(self, session_id: str) -> Stored | Gone | None:
        return await self._run(lambda connection: load_session(connection, session_id))

    async def key(self, owner: str, scope: str, key: str) -> StoredKey | None:
        """What was made under an idempotency key. Those asked for in one turn of the event loop are read together."""
        if not self._keys:
            # A task of its own: whoever is first to ask may be cancelled, and the others wait on.
            self._looking_up = asyncio.create_task(self._look_up())
        self._keys.append((owner, scope, key))
        number, looking_up = len(self._keys) - 1, self._looking_up
        return (await asyncio.shield(looking_up))[number]

    async def _look_up(self) -> list[StoredKey | None]:
        keys, self._keys = self._keys, []
        return await self._run(lambda connection: [_load_key(connection, *key) for key in keys])

    async def nearest(self, number: int, turn: int) -> Snapshot | None:
        return await self._run(lambda connection: _nearest(connection, number, turn))

    async def page(
        self, owners: Sequence[str] | None, status: Status | None, offset: int, limit: int
    ) -> tuple[list[SessionSummary], int]:
        """Sessions that were not given up, of these owners (None: of all), oldest first; and how many there are."""
        return await self._run(lambda connection: _page(connection, owners, status, offset, limit))

    async def overdue(self, after: int, used_before: float, begun_before: float) -> tuple[list[tuple[int, str]], int]:
        """Live sessions (number, id) last used before the one time, or begun before the other.

        Looks at a window of the sessions numbered above ``after``, and says where the next one begins (0: all over).
        """
        return await self._run(lambda connection: _overdue(connection, after, used_before, begun_before))

    def close(self) -> None:
        """Blocks until the reads under way have ended."""
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()

    async def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._query, query)

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect(self._path, write=False)
            self._connections.append(connection)
        connection.execute("BEGIN")  # one state of the file for all that one answer needs
        try:
            return query(connection)
        finally:
            connection.execute("COMMIT")


def load_session(connection: sqlite3.Connection, session_id: str) -> Stored | Gone | None:
    """The session with this id, with its whole log."""
    row = connection.execute(
        "SELECT number, owner, env, env_version, at, begin FROM sessions WHERE id = ?", (session_id,)
    ).fetchone()
    if row is None:
        return None
    number, owner, env, env_version, begun_at, begin = row
    gone = connection.execute("SELECT why FROM gone WHERE number = ?", (number,)).fetchone()
    if gone is not None:
        return Gone(owner, gone[0])
    steps = connection.execute(
        "SELECT at, action, result, log_hash, done FROM steps WHERE number = ? ORDER BY position", (number,)
    ).fetchall()
    entries = [Entry(action, result, log_hash.hex(), bool(done)) for _, action, result, log_hash, done in steps]
    ended = connection.execute("SELECT how FROM ended WHERE number = ?", (number,)).fetchone()
    used = connection.execute("SELECT at FROM used WHERE number = ?", (number,)).fetchone()
    intent = connection.execute(
        "SELECT 1 FROM intents WHERE number = ? AND position = ?", (number, len(entries))
    ).fetchone()
    return Stored(
        number,
        owner,
        Log(env, env_version, BeginRow.model_validate_json(begin).beginning(), entries),
        begun_at,
        max(begun_at, steps[-1][0] if steps else 0.0, used[0] if used else 0.0),
        cast(Failure, ended[0]) if ended is not None and ended[0] != "done" else None,
        intent is not None,
    )


def _load_key(connection: sqlite3.Connection, owner: str, scope: str, key: str) -> StoredKey | None:
    row = connection.execute(
        "SELECT fingerprint, sessions FROM keys WHERE owner = ? AND scope = ? AND key = ?", (owner, scope, key)
    ).fetchone()
    return None if row is None else StoredKey(row[0], row[1].split())


def _nearest(connection: sqlite3.Connection, number: int, turn: int) -> Snapshot | None:
    row = connection.execute(
        "SELECT turn, state FROM snapshots WHERE number = ? AND turn <= ? ORDER BY turn DESC LIMIT 1", (number, turn)
    ).fetchone()
    return None if row is None else Snapshot(*row)


_STATUS = {
    None: "",
    "live": "AND how IS NULL",
    "done": "AND how = 'done'",
    "failed": "AND how IN ('failed', 'lost')",
}


def _page(
    connection: sqlite3.Connection, owners: Sequence[str] | None, status: Status | None, offset: int, limit: int
) -> tuple[list[SessionSummary], int]:
    mine = "" if owners is None else f"AND owner IN ({','.join('?' * len(owners))})"
    chosen = (
        "FROM sessions LEFT JOIN ended USING (number) "
        f"WHERE NOT EXISTS (SELECT 1 FROM gone WHERE gone.number = sessions.number) {mine} {_STATUS[status]}"
    )
    (total,) = connection.execute(f"SELECT count(*) {chosen}", owners or ()).fetchone()
    rows = connection.execute(
        "SELECT id, env, json_extract(begin, '$.task.id'), coalesce(how, 'live'), "
        "(SELECT count(action) FROM steps WHERE steps.number = sessions.number) "
        f"{chosen} ORDER BY sessions.number LIMIT ? OFFSET ?",
        (*(owners or ()), limit, offset),
    )
    items = [
        SessionSummary(
            session_id=session_id, env=env, task_id=task_id, turn=turn, status="failed" if how == "lost" else how
        )
        for session_id, env, task_id, how, turn in rows
    ]
    return items, total


def _overdue(
    connection: sqlite3.Connection, after: int, used_before: float, begun_before: float
) -> tuple[list[tuple[int, str]], int]:
    window = connection.execute(
        "SELECT max(number) FROM (SELECT number FROM sessions WHERE number > ? ORDER BY number LIMIT ?)",
        (after, WINDOW),
    ).fetchone()[0]
    if window is None:
        return [], 0
    found = connection.execute(
        "SELECT number, id FROM sessions WHERE number > ?1 AND number <= ?2 AND at < ?3 "
        "AND NOT EXISTS (SELECT 1 FROM ended WHERE ended.number = sessions.number) "
        "AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.number = sessions.number) "
        "AND (at < ?4 OR max(coalesce((SELECT at FROM used WHERE used.number = sessions.number), 0), coalesce((SELECT"
        " at FROM steps WHERE steps.number = sessions.number ORDER BY position DESC LIMIT 1), 0)) < ?3)",
        (after, window, used_before, begun_before),
    ).fetchall()
    return found, window
