"""A server in a process of its own, which tests of clients kill and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ports import held


class Server:
    """``turnwise serve`` with these arguments, in ``folder`` (whose modules it can import), on a port of its own.

    ``kill`` is SIGKILL, ``start`` starts it again on the same port. All that it stores is below ``home``.
    """

    def __init__(self, home: Path, folder: Path, *arguments: str) -> None:
        self._holder = held()
        self.port = self._holder.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._state = home / "state"
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        turnwise = Path(sys.executable).with_name("turnwise")
        self._process = subprocess.Popen(
            [turnwise, "serve", *self._arguments, "--port", str(self.port)],
            cwd=self._folder,
            env={**os.environ, "XDG_STATE_HOME": str(self._state)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert self.url in line, line

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def forget(self) -> None:
        """Throw away what it stored: the next start knows nothing of earlier sessions."""
        shutil.rmtree(self._state)

    @property
    def token_file(self) -> Path:
        """Where its trainer token is, another one after each start."""
        return self._state / "turnwise" / f"tokens-{self.port}.jsonl"


@contextlib.contextmanager
def serving(home: Path, folder: Path, *arguments: str) -> Iterator[Server]:
    server = Server(home, folder, *arguments)
    server.start()
    try:
        yield server
    finally:
        server.kill()
