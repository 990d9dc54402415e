"""Servers and players as processes: started, pinned to a core each, stopped while another is measured, and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
#: ``turnwise``, from the environment that this runs in.
TURNWISE = [sys.executable, "-m", "turnwise_envs"]
SERVER_CORE, CLIENT_CORE = 0, 1
#: Seconds for a server to end by itself.
PATIENCE = 15.0


def can_pin() -> bool:
    return hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) >= 2


class Process:
    """A child whose standard output is read line by line. ``core`` counts those that this process may use."""

    def __init__(self, command: Sequence[str], core: int, **variables: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TURNWISE_")}
        self._process = subprocess.Popen(
            command,
            cwd=BENCHMARKS,
            env={**kept, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        if can_pin():
            os.sched_setaffinity(self._process.pid, {sorted(os.sched_getaffinity(0))[core]})

    def line(self) -> str:
        """Raises RuntimeError if the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        return line

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def cpu_seconds(self) -> float | None:
        """Of all its threads so far; None where the system does not say."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int | None:
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return None

    def end(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Server(Process):
    """A server, pinned to the first core. Its first line ends with its address."""

    def __init__(self, command: Sequence[str], **variables: str) -> None:
        super().__init__(command, SERVER_CORE, **variables)
        self.url = self.line().split()[-1]

    def stop(self) -> None:
        """What it still has to do would be at the cost of others that are measured."""
        self.send(signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """A stopped server goes on in here."""
        self.send(signal.SIGCONT)
        try:
            yield
        finally:
            self.stop()


class Player(Process):
    """A player, pinned to the second core: see :mod:`load.player`."""

    def __init__(self, kind: str, server: Server, loop: str) -> None:
        super().__init__([sys.executable, "-m", "load.player", kind, server.url, loop], CLIENT_CORE)
        self._server = server

    def ask(self, **command: Any) -> dict[str, Any]:
        """Have a command carried out, with the server's CPU seconds beside what the player says."""
        before = self._server.cpu_seconds()
        self.write(json.dumps(command))
        result: dict[str, Any] = json.loads(self.line())
        after = self._server.cpu_seconds()
        result["server_cpu_s"] = None if before is None or after is None else after - before
        return result


def turnwise_server(place: Path, *arguments: str, envs: Sequence[str] = ("load.echo:Echo",)) -> Server:
    """Ours, with a journal in ``place``."""
    journal = place / "journal"
    command = [*TURNWISE, "serve", *envs, "--port", "0", "--journal", str(journal), *arguments]
    return Server(command, XDG_STATE_HOME=str(place / "state"))


def python_server(module: str) -> Server:
    return Server([sys.executable, "-m", module])
