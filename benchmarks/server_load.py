"""The environment server under load, beside OpenEnv's and beside bare FastAPI, in one run on this machine.

    python benchmarks/server_load.py            # about six minutes
    python benchmarks/server_load.py --quick    # seconds: that it works, not how fast it is

Prints a table, which aims were met, and in the last line everything as one JSON object. docs/benchmarks.md says what is
measured and how. The subjects take turns within every repetition, and ratios are taken within it, so a machine that is
busy with other things disturbs both sides of a ratio alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from load import http, idle, openenv_package
from load.processes import Player, Server, can_pin, python_server, turnwise_server
from load.report import Cell, Measured, ratios, readable

#: Steps that one measurement aims at, and at most per session.
STEPS, STEPS_EACH = 20_000, 4_000
LENGTHS = (10, 100)


@dataclass(frozen=True)
class Plan:
    """How much is measured; ``idle_sessions`` of zero leaves out what takes long and says little in short."""

    sessions: tuple[int, ...]
    repetitions: int
    steps: int
    http_seconds: float
    idle_sessions: int
    loop: str


def main() -> None:
    plan = _plan()
    load_before = os.getloadavg()
    with _subjects(plan.loop) as players:
        cells = list(_measure(plan, players))
    at_rest: Measured = {"import_seconds": round(idle.import_seconds(5 if plan.idle_sessions else 1), 3)}
    if plan.idle_sessions:
        sizes = idle.bytes_per_session(plan.idle_sessions, plan.loop)
        at_rest |= {f"{state}_session_bytes": size and round(size) for state, size in sizes.items()}
    aims = ratios(cells, at_rest)
    print(readable(cells, at_rest, aims))
    whole = {
        "benchmark": "server_load",
        "machine": _machine(plan, load_before),
        **{what: [cell.summary() for cell in cells if cell.what == what] for what in ("play", "open", "http")},
        **at_rest,
        "aims": [aim.as_json() for aim in aims],
    }
    print()
    print(json.dumps(whole))


def _plan() -> Plan:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    parser.add_argument("--sessions", type=int, nargs="+", metavar="N", help="1 16 64 256")
    parser.add_argument("--repetitions", type=int, metavar="N", help="5")
    parser.add_argument("--client-loop", choices=("asyncio", "uvloop"), default="asyncio", help="of all clients")
    given = parser.parse_args()
    usual = ((1, 4), 1, 200, 1.0, 0) if given.quick else ((1, 16, 64, 256), 5, STEPS, 2.0, 2000)
    sessions, repetitions, steps, seconds, idle_sessions = usual
    return Plan(
        tuple(given.sessions or sessions),
        given.repetitions or repetitions,
        steps,
        seconds,
        idle_sessions,
        given.client_loop,
    )


@contextmanager
def _subjects(loop: str) -> Iterator[dict[str, tuple[Server, Player]]]:
    """Every subject's server, stopped until it is measured, and its player."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))

        def started(server: Server) -> Server:
            stack.callback(server.end)
            return server

        servers = {
            "echo": started(turnwise_server(place / "echo")),
            "household": started(turnwise_server(place / "household", envs=["household"])),
            "bare": started(python_server("load.bare")),
        }
        if openenv_package.installed():
            servers["openenv"] = started(python_server("load.openenv_server"))
        players = {}
        for kind, server in servers.items():
            players[kind] = (server, Player(kind, server, loop))
            stack.callback(players[kind][1].end)
            server.stop()
        yield players


def _measure(plan: Plan, players: dict[str, tuple[Server, Player]]) -> Iterator[Cell]:
    for sessions in plan.sessions:
        for length in LENGTHS:
            total = min(plan.steps, plan.steps * STEPS_EACH // STEPS * sessions)
            episodes = max(1, round(total / (sessions * length)))
            command = {"do": "play", "sessions": sessions, "episodes": episodes, "length": length}
            yield from _cells(plan, players, list(players), sessions, length, command)
        one_each = {"do": "open", "sessions": sessions}
        yield from _cells(plan, players, [one for one in players if one != "bare"], sessions, 0, one_each)
        requests = {"do": "http", "connections": sessions, "seconds": plan.http_seconds}
        yield from _cells(plan, players, ["echo", "bare"], sessions, 1, requests)


def _cells(
    plan: Plan,
    players: dict[str, tuple[Server, Player]],
    subjects: list[str],
    sessions: int,
    length: int,
    command: Measured,
) -> Iterator[Cell]:
    """One measurement of all subjects, who take turns."""
    runs: dict[str, list[Measured]] = {subject: [] for subject in subjects}
    for repetition in range(-1, plan.repetitions):
        for subject in subjects:
            server, player = players[subject]
            with server.running():
                run = player.ask(**command)
            if repetition >= 0:  # the first one warms up
                runs[subject].append(run)
        print(f"{command['do']} {sessions} x {length or 1}: {repetition + 1}/{plan.repetitions}", file=sys.stderr)
    for subject, measured in runs.items():
        yield Cell(command["do"], subject, sessions, length, tuple(measured))


def _machine(plan: Plan, load_before: tuple[float, float, float]) -> Measured:
    return {
        "cpus": os.cpu_count(),
        "pinned": can_pin(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "turnwise": version("turnwise"),
        "openenv": openenv_package.VERSION if openenv_package.installed() else None,
        "http_driver": http.driver(),
        "client_loop": plan.loop,
        "repetitions": plan.repetitions,
        "load_before": [round(value, 2) for value in load_before],
        "load_after": [round(value, 2) for value in os.getloadavg()],
    }


if __name__ == "__main__":
    main()
