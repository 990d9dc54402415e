"""What we ship passes the checks that everybody's environments are held to (``sql`` has its own among its tests)."""

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
