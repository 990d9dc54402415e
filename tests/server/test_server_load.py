"""``benchmarks/server_load.py`` works: every subject is measured, nothing fails, and the last line says it all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "server_load.py"
OPENENV = Path(sys.prefix) / "openenv" / "0.10.0" / "openenv"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_run():
    done = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    subjects = {"echo", "household", "bare"} | ({"openenv"} if OPENENV.is_dir() else set())
    assert {row["subject"] for row in said["play"]} == subjects
    assert {(row["sessions"], row["length"]) for row in said["play"]} == {(1, 10), (1, 100), (4, 10), (4, 100)}
    assert {row["subject"] for row in said["open"]} == subjects - {"bare"}
    assert {row["subject"] for row in said["http"]} == {"echo", "bare"}
    rows = said["play"] + said["open"] + said["http"]
    assert [row for row in rows if row["failures"]] == []
    assert all(row["steps_per_s"] > 0 and 0 < row["p50_ms"] <= row["p99_ms"] for row in said["play"] + said["http"])
    assert said["import_seconds"] > 0
    assert len(said["aims"]) == 13
    assert {aim["met"] for aim in said["aims"][:11]} == {None}  # they are set for more sessions
    assert "aim" in done.stdout
