"""The directory of journals: one file a server process, locked while it runs.

A server takes a file that nobody holds, if all environments with sessions in it are served, and makes a new one
otherwise; so replicas share a directory, and a restarted server finds what it, or another one, left behind. The lock
is on a file beside the journal (SQLite has its own ways with locks on its file) and ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from turnwise_server.journal.schema import JournalRefused, check, connect, create

PATTERN = "journal-*.sqlite"
#: Bytes up to which a whole file is read before it is trusted: about a second.
SMALL = 256 * 1024 * 1024


@dataclass(frozen=True)
class Claim:
    """A journal file that belongs to this process until :meth:`release`."""

    path: Path
    lock: int

    def release(self) -> None:
        os.close(self.lock)


def claim(directory: Path, served: Collection[str]) -> Claim:
    """Lock a journal in ``directory`` for a server of the environments ``served``; the latest used, or a new one.

    Raises:
        JournalRefused: the directory cannot be used, or a free file in it is damaged or foreign.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(journals(directory), key=_last_written, reverse=True):
            lock = _lock(path)
            if lock is None:
                continue
            try:
                check(path, thorough=path.stat().st_size <= SMALL)
                fits = environments(path) <= set(served)
            except BaseException:
                os.close(lock)
                raise
            if fits:
                return Claim(path, lock)
            os.close(lock)
        return _new(directory)
    except OSError as error:
        raise JournalRefused(
            f"journal directory {directory}: {error.strerror or error}; choose another with --journal"
        ) from error


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold the lock of one file; False if a server has it."""
    lock = _lock(path)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def journals(directory: Path) -> list[Path]:
    """The journal files of a directory, by name."""
    return sorted(directory.glob(PATTERN))


def file_size(path: Path) -> int:
    """Bytes of a journal with its log."""
    return sum(status.st_size for status in _status(path))


def environments(path: Path) -> set[str]:
    """The environments that ever had a session in this journal. Raises JournalRefused."""
    try:
        with closing(connect(path, write=False)) as connection:
            return {env for (env,) in connection.execute("SELECT env FROM envs")}
    except sqlite3.Error as error:
        raise JournalRefused(f"{path} cannot be read ({error})") from error


def _new(directory: Path) -> Claim:
    path = directory / f"journal-{secrets.token_hex(4)}.sqlite"
    lock = _lock(path)
    assert lock is not None, "the name is new"
    try:
        create(path)
    except sqlite3.Error as error:
        os.close(lock)
        raise JournalRefused(f"{path} cannot be made ({error}); choose another directory with --journal") from error
    return Claim(path, lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock of the journal at ``path``; None if somebody else does. Raises OSError."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _last_written(path: Path) -> float:
    return max((status.st_mtime for status in _status(path)), default=0.0)


def _status(path: Path) -> Iterator[os.stat_result]:
    """Of a journal and its log, which is gone as soon as the server that has it stops."""
    for each in (path, _log_of(path)):
        with suppress(FileNotFoundError):
            yield each.stat()


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
