"""Crash tests with worker processes: the server is killed, or only its workers are, and histories do not show it.

And what is left of a server's workers when it ends, one way or another: nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from crashes import COMMAND, HERE, Plan, Server, crash_test, kills
from waiting import PATIENCE, eventually, until

KILLS = 50 if os.environ.get("TURNWISE_PROOF") == "full" else 5
PLAYERS = 16
ENVIRONMENTS = ("worker_environments:Rough", "worker_environments:Saving")
OPTIONS = ("--workers", "2", "--passivate-after", "0.5", "--snapshot-every", "4")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    # A kill takes a second or two on a machine of one's own, ten on a busy one.
    pytest.mark.timeout(120 * KILLS),
]


def plan(number: int) -> Plan:
    return Plan(number, "saving" if number % 2 else "rough")


def processes() -> dict[int, tuple[int, str]]:
    """Parent and state of every process that there is, zombies not counted."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *_ = (path / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found[int(path.name)] = (int(parent), state)
    return found


def workers_of(pid: int) -> list[int]:
    return [child for child, (parent, _) in processes().items() if parent == pid]


async def steps_of(server: Server) -> int:
    """How many steps it has answered."""
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as http:
        page = (await http.get("/metrics")).text
    return sum(int(float(number)) for number in re.findall(r"^turnwise_steps_total\{.*\} (\S+)$", page, re.M))


async def kill_workers(servers: Sequence[Server], times: int) -> None:
    """Kill the workers in turn, each long after the one before: a session whose call is lost twice fails, by rights.

    That long after is until every player has had answers again, and some time.
    """
    chance = random.Random(1)
    for _ in range(times):
        for server in servers:
            before = await steps_of(server)

            async def all_go_on(server=server, before=before) -> bool:
                return await steps_of(server) - before > 10 * PLAYERS and len(workers_of(server.pid)) == 2

            await eventually(all_go_on, 200)
        await asyncio.sleep(chance.uniform(1.0, 2.0))
        for server in servers:
            assert server.pid is not None
            os.kill(min(workers_of(server.pid)), signal.SIGKILL)  # the oldest


@pytest.mark.slow
async def test_the_server_is_killed_under_load(tmp_path):
    server = Server(tmp_path / "journal", *ENVIRONMENTS, *OPTIONS)
    calm = Server(tmp_path / "calm", *ENVIRONMENTS, "--workers", "1")
    retries = await crash_test([server], calm, plan, lambda servers: kills(servers, KILLS))
    assert retries > KILLS  # the kills did hit somebody


@pytest.mark.slow
async def test_workers_are_killed_under_load(tmp_path):
    """Nobody has to send anything again."""
    server = Server(tmp_path / "journal", *ENVIRONMENTS, *OPTIONS)
    calm = Server(tmp_path / "calm", *ENVIRONMENTS, "--workers", "1")
    assert await crash_test([server], calm, plan, lambda servers: kill_workers(servers, KILLS), players=PLAYERS) == 0


@pytest.fixture
def serving(tmp_path):
    """A server with two busy workers: the process, its URL, and the workers' process ids."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TURNWISE_")}
    process = subprocess.Popen(
        [*COMMAND, "worker_environments:Rough", "--port", "0", "--workers", "2", "--step-timeout", "3600"],
        cwd=HERE,
        env={**kept, "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    try:
        with httpx.Client(base_url=url, timeout=60) as http:
            for index in range(2):  # answered by both, so both are ready
                http.post("/v1/sessions", json={"env": "rough", "index": index}).raise_for_status()
        pids = workers_of(process.pid)
        assert len(pids) == 2
        yield process, url, pids
    finally:
        process.kill()
        process.communicate()


def step_and_leave(url: str, how: str, mark: Path) -> None:
    """Send a step that never ends, and hang up when it has begun, which ``mark`` tells."""
    with httpx.Client(base_url=url, timeout=60) as http:
        sid = http.post("/v1/sessions", json={"env": "rough", "index": 5}).json()["session_id"]
        action = {"text": f"once-{how} {mark}"}
        with pytest.raises(httpx.ReadTimeout):
            http.post(
                f"/v1/sessions/{sid}/step", json={"turn": 0, "action": action}, timeout=httpx.Timeout(60, read=0.3)
            )
    until(mark.exists)


def wait_for_the_end_of(pids: list[int]) -> None:
    until(lambda: not processes().keys() & set(pids))


def test_a_stopped_server_leaves_no_process(serving):
    process, _, pids = serving
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert err == ""
    wait_for_the_end_of(pids)


@pytest.mark.parametrize("how", ["idle", "hang", "spin", "clutch"])
def test_a_killed_server_leaves_no_process(serving, tmp_path, how):
    """Not even one that is busy with something that never ends."""
    process, url, pids = serving
    if how != "idle":
        step_and_leave(url, how, tmp_path / "mark")
    process.kill()
    process.wait()
    wait_for_the_end_of(pids)


def test_a_server_ends_although_a_worker_hangs(serving, tmp_path):
    process, url, pids = serving
    step_and_leave(url, "spin", tmp_path / "mark")
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    wait_for_the_end_of(pids)


def test_what_environments_print_is_kept_from_standard_output(serving):
    process, url, _ = serving
    with httpx.Client(base_url=url, timeout=60) as http:
        sid = http.post("/v1/sessions", json={"env": "rough"}).json()["session_id"]
        http.post(f"/v1/sessions/{sid}/step", json={"turn": 0, "action": {"text": "print"}}).raise_for_status()
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE)
    assert "noise" not in out
    assert "noise" in err
