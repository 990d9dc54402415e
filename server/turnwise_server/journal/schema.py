"""Tables of a journal file, and the marks by which one is told from any other file.

Every table is append-only: a session is what its rows say, and rows go only when the whole session is forgotten.
``number`` is a session's short name inside the file. Times are Unix seconds.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from turnwise_envs.errors import TurnwiseError

#: "TwJl" in SQLite's header: ``file`` and other tools can tell a journal by it.
APPLICATION_ID = 0x54774A6C
FORMAT = 1

TABLES = """
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, env TEXT NOT NULL,
    env_version TEXT NOT NULL, at REAL NOT NULL, begin BLOB NOT NULL
);
CREATE TABLE steps (
    entry INTEGER PRIMARY KEY, number INTEGER NOT NULL, position INTEGER NOT NULL, at REAL NOT NULL,
    action BLOB, result BLOB NOT NULL, log_hash BLOB NOT NULL, done INTEGER NOT NULL
);
CREATE UNIQUE INDEX steps_by_session ON steps (number, position);
CREATE TABLE snapshots (entry INTEGER PRIMARY KEY, number INTEGER NOT NULL, turn INTEGER NOT NULL, state BLOB NOT NULL);
CREATE INDEX snapshots_by_session ON snapshots (number, turn);
CREATE TABLE intents (number INTEGER NOT NULL, position INTEGER NOT NULL, action BLOB);
CREATE INDEX intents_by_session ON intents (number, position);
CREATE TABLE ended (number INTEGER PRIMARY KEY, how TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX ended_by_time ON ended (at);
CREATE TABLE gone (number INTEGER PRIMARY KEY, why TEXT NOT NULL, at REAL NOT NULL, emptied INTEGER NOT NULL DEFAULT 0);
CREATE INDEX gone_by_time ON gone (emptied, at);
CREATE TABLE used (number INTEGER PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE keys (
    owner TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL, fingerprint BLOB NOT NULL,
    sessions TEXT NOT NULL, PRIMARY KEY (owner, scope, key)
) WITHOUT ROWID;
CREATE INDEX keys_by_session ON keys (number);
CREATE TABLE envs (env TEXT PRIMARY KEY) WITHOUT ROWID;
"""

#: How each kind of row is written: the statement's head and how many values a row has.
INSERTS: dict[str, tuple[str, int]] = {
    "session": ("INSERT INTO sessions (number, id, owner, env, env_version, at, begin) VALUES ", 7),
    "step": ("INSERT INTO steps (number, position, at, action, result, log_hash, done) VALUES ", 7),
    "snapshot": ("INSERT INTO snapshots (number, turn, state) VALUES ", 3),
    "intent": ("INSERT INTO intents (number, position, action) VALUES ", 3),
    "ended": ("INSERT OR IGNORE INTO ended (number, how, at) VALUES ", 3),
    "gone": ("INSERT OR IGNORE INTO gone (number, why, at) VALUES ", 3),
    "used": ("INSERT OR REPLACE INTO used (number, at) VALUES ", 2),
    "key": ("INSERT INTO keys (owner, scope, key, number, fingerprint, sessions) VALUES ", 6),
    "env": ("INSERT OR IGNORE INTO envs (env) VALUES ", 1),
}


#: Seconds to wait for somebody else who holds the file, such as a backup.
BUSY_S = 10.0


class JournalRefused(TurnwiseError):
    """A journal that cannot be used. The text names the file, says why, and what to do."""


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection in autocommit mode that any one thread at a time may use. It never makes a new file."""
    mode = "rw" if write else "ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_S,
        cached_statements=64,
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def create(path: Path) -> None:
    """Make an empty journal at ``path``, at once and in full. Raises OSError, sqlite3.Error."""
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600, exist_ok=False)
    try:
        connection = connect(draft, write=True)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("COMMIT")
        finally:
            connection.close()
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def check(path: Path, *, thorough: bool) -> None:
    """Whether ``path`` is a journal of ours that can be read; ``thorough`` reads all of it.

    Raises:
        JournalRefused: it is another file, of a newer format, or damaged.
    """
    advice = "move it away, or choose another --journal directory"
    try:
        with path.open("rb") as file:
            head = file.read(100)
        if not head.startswith(b"SQLite format 3\x00"):
            raise JournalRefused(f"{path} is not a journal, or its head is damaged; {advice}")
        connection = connect(path, write=True)  # a file that a killed server left needs its log read back
        try:
            if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                raise JournalRefused(f"{path} is a database, but not a journal; {advice}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != FORMAT:
                raise JournalRefused(
                    f"{path} has journal format {version}, and this is turnwise for format {FORMAT}; "
                    "serve it with the version that wrote it, or choose another --journal directory"
                )
            connection.execute("SELECT count(*) FROM envs").fetchone()
            if thorough:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise JournalRefused(f"{path} is damaged ({' '.join(verdict.split())}); {advice}")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise JournalRefused(f"{path} is damaged ({error}); {advice}") from error
    except OSError as error:
        raise JournalRefused(f"{path} cannot be read ({error.strerror or error}); {advice}") from error
