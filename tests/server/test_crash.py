"""It must show, 2: servers that are killed at any moment lose nothing that they acknowledged, and do nothing twice."""

from __future__ import annotations

import os

import pytest
from crashes import Plan, Server, crash_test, kills

KILLS = 50 if os.environ.get("TURNWISE_PROOF") == "full" else 5
#: A kill takes a second or two on a machine of one's own, ten on a busy one.
pytestmark = pytest.mark.timeout(120 * KILLS)
ENVIRONMENTS = ("toy_environments:Guess", "toy_environments:Slow")
#: So that sessions rest and come back between the kills too, and replays start from snapshots.
RESTLESS = ("--passivate-after", "0.3", "--snapshot-every", "4")


def plan(number: int) -> Plan:
    """Most sessions are quick; every eighth is in the middle of a slow step at most moments."""
    return Plan(number, "slow", turns=8) if number % 8 == 7 else Plan(number, "guess")


@pytest.mark.slow
@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_killed_under_load(tmp_path, sync):
    times = KILLS if sync == "normal" else max(2, KILLS // 10)
    server = Server(tmp_path / "journal", *ENVIRONMENTS, *RESTLESS, "--sync", sync)
    calm = Server(tmp_path / "calm", *ENVIRONMENTS)
    retries = await crash_test([server], calm, plan, lambda servers: kills(servers, times))
    assert retries > times  # the kills did hit somebody
