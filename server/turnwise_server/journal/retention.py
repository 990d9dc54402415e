"""Forget what nobody can ask for any more, a slice at a time, so that no commit waits long behind it.

A session passes through three stages. *Ended* (done or failed): its answers are kept for the time of ``--retain``.
*Gone* (deleted, expired, or ended that long ago): a request hears 410, so its steps and snapshots go at once, and only
its name is kept, for as long again. *Forgotten*: a request hears 404. Freed pages are used again by new sessions.
"""

from __future__ import annotations

import sqlite3

#: Rows of one slice: some milliseconds of the writer's time.
SLICE = 500


def tidy(connection: sqlite3.Connection, now: float, retain: float, budget: int) -> bool:
    """One slice of work, in a transaction of the caller's; True if there may be more.

    ``retain`` is in seconds; ``budget`` bounds the file in bytes, beyond which the oldest ended sessions go early.
    """
    if _empty(connection):
        return True
    ended_before = now if file_use(connection) > budget else now - retain
    return _expire(connection, now, ended_before) or _forget(connection, now - retain)


def file_use(connection: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    count, free, size = (
        connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
    )
    return int((count - free) * size)


def _expire(connection: sqlite3.Connection, now: float, before: float) -> bool:
    """Sessions that ended before a time are gone; a few, so that a file over its budget loses no more than it must."""
    numbers = connection.execute("SELECT number FROM ended WHERE at < ? ORDER BY at LIMIT 20", (before,)).fetchall()
    rows = [(number, now) for (number,) in numbers]
    connection.executemany("INSERT OR IGNORE INTO gone (number, why, at) VALUES (?, 'session-expired', ?)", rows)
    connection.executemany("DELETE FROM ended WHERE number = ?", numbers)
    return bool(rows)


def _empty(connection: sqlite3.Connection) -> bool:
    """Take the content of sessions that are gone."""
    left = SLICE
    gone = connection.execute("SELECT number FROM gone WHERE emptied = 0 ORDER BY at LIMIT 100").fetchall()
    for (number,) in gone:
        left -= connection.execute(
            "DELETE FROM steps WHERE entry IN (SELECT entry FROM steps WHERE number = ? LIMIT ?)", (number, left)
        ).rowcount
        if left <= 0:
            break
        for table in ("snapshots", "intents", "used", "ended"):
            connection.execute(f"DELETE FROM {table} WHERE number = ?", (number,))
        connection.execute("UPDATE sessions SET begin = '' WHERE number = ?", (number,))
        connection.execute("UPDATE gone SET emptied = 1 WHERE number = ?", (number,))
    return bool(gone)


def _forget(connection: sqlite3.Connection, before: float) -> bool:
    """Forget the names of sessions that went before a time."""
    numbers = connection.execute(
        "SELECT number FROM gone WHERE emptied = 1 AND at < ? ORDER BY at LIMIT ?", (before, SLICE)
    ).fetchall()
    for table in ("keys", "sessions", "gone"):
        connection.executemany(f"DELETE FROM {table} WHERE number = ?", numbers)
    return bool(numbers)
