"""``benchmarks/info_gain.py`` works, and its last line says it all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "info_gain.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_run():
    done = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["benchmark"] == "info_gain"
    assert [point["tokens"] for point in said["curve"]] == [4, 8]
    assert all(point["without_s"] > 0 and point["with_s"] > 0 for point in said["curve"])
    assert said["aim"] == {"from": 32, "at_most": 0.25, "met": None}
