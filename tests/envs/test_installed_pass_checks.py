"""What we ship, and what adapters make of others' worlds, passes the checks that everybody's environments are held to.

``sql`` has them among its own tests, MCP servers in test_mcp_foreign.py.
"""

from __future__ import annotations

import importlib.util

import pytest

from turnwise_envs import registry
from turnwise_envs.check import check_env


@pytest.mark.slow
@pytest.mark.parametrize("name", ["household", "search:easy", "airline-desk", "shop-desk", "calls"])
def test_it_keeps_the_contract(name: str) -> None:
    if name.startswith("search") and importlib.util.find_spec("bm25s") is None:
        pytest.skip("needs the package bm25s")
    report = check_env(registry.load(name), episodes=1)
    assert report.ok, str(report)
    assert not {finding.check for finding in report.findings if finding.status == "skipped"} & {
        "canary",
        "fork",
        "cost",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("gymnasium", "gymnasium:FrozenLake-v1"),
        ("gymnasium", "gymnasium:Taxi-v4"),
        ("reasoning_gym", "reasoning-gym:leg_counting"),
        ("reasoning_gym", "reasoning-gym:maze"),
        ("textarena", "textarena:GuessTheNumber-v0"),
        ("textarena", "textarena:TowerOfHanoi-v0"),
        ("textarena", "textarena:Mastermind-v0"),
    ],
)
def test_worlds_of_others_keep_it(package: str, name: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}")
    report = check_env(registry.load(name), episodes=1)
    assert report.ok, str(report)
    assert not {finding.check for finding in report.findings if finding.status == "skipped"} & {
        "determinism",
        "seeds",
        "fork",
        "cost",
    }
