"""What it costs to have sessions that nobody asks for, and to have the server in a process at all."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load.processes import Player, Server, turnwise_server

_IMPORT = """
import time
began = time.perf_counter()
import turnwise_server.commands, turnwise_server.running
print(time.perf_counter() - began)
"""
#: Seconds of rest after which the sessions of the second server leave memory, and how long is waited for that.
REST_AFTER, REST_WITHIN = 1.0, 30.0
WAVES = 4
#: Seconds between two looks.
SETTLE = 0.5


def import_seconds(times: int) -> float:
    """Of the whole server, in a fresh process: the median."""

    def once() -> float:
        done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
        return float(done.stdout)

    once()  # compiles
    return statistics.median(once() for _ in range(times))


def bytes_per_session(sessions: int, loop: str) -> dict[str, float | None]:
    """Resident bytes that an idle echo session of five steps costs, in memory and passivated.

    Taken over several waves of ``sessions`` each, without the first, in which the process finds its size.
    """
    with tempfile.TemporaryDirectory() as place:
        awake = _slope(turnwise_server(Path(place), "--max-sessions", "1000000"), sessions, loop, rest=False)
    with tempfile.TemporaryDirectory() as place:
        server = turnwise_server(Path(place), "--max-sessions", "1000000", "--passivate-after", str(REST_AFTER))
        passivated = _slope(server, sessions, loop, rest=True)
    return {"in_memory": awake, "passivated": passivated}


def _slope(server: Server, sessions: int, loop: str, *, rest: bool) -> float | None:
    player = Player("echo", server, loop)
    sizes = []
    try:
        for _ in range(WAVES):
            player.ask(do="leave", sessions=sessions)
            time.sleep(SETTLE)
            until = time.monotonic() + REST_WITHIN
            while rest and player.ask(do="awake")["awake"] and time.monotonic() < until:
                time.sleep(SETTLE)
            sizes.append(server.resident_bytes())
    finally:
        player.end()
        server.end()
    first, last = sizes[0], sizes[-1]
    return None if first is None or last is None else max(0, last - first) / (sessions * (WAVES - 1))
