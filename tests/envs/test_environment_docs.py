"""What docs/environments/your-own.md and wrappers.md show, runs, and says what they say it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from turnwise_envs.check import CHECKS
from turnwise_envs.wrappers import KINDS

PAGES = Path(__file__).parents[2] / "docs" / "environments"
OWN = (PAGES / "your-own.md").read_text(encoding="utf-8")
WRAPPERS = (PAGES / "wrappers.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def run(folder: Path, *words: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "160"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_your_own_environment_in_twenty_lines(tmp_path: Path) -> None:
    """Saved, checked, measured, and played as the page shows it."""
    (code,) = blocks(OWN, "python")
    body = code[code.index("class Capitals") :]
    assert sum(bool(line.strip()) for line in body.splitlines()) <= 20
    (tmp_path / "capitals.py").write_text(code, encoding="utf-8")
    commands, _ = blocks(OWN, "sh")
    said = run(tmp_path, "bash", "-euo", "pipefail", "-c", commands)
    assert "capitals: " in said
    assert " 0 failed" in said
    assert "100.0%" in said
    (transcript,) = blocks(OWN, "text")
    assert said.endswith(transcript), said


def test_all_checks_are_on_the_page() -> None:
    listed = re.findall(r"`([a-z-]+)`", OWN[OWN.index("| check |") : OWN.index("`--options` checks")])
    assert sorted(listed) == sorted(check.name for check in CHECKS)


def test_the_wrapped_episode_goes_as_shown(tmp_path: Path) -> None:
    (code,) = blocks(WRAPPERS, "python")
    (transcript,) = blocks(WRAPPERS, "text")
    assert run(tmp_path, sys.executable, "-c", code) == transcript


def test_the_wrapped_environment_can_be_played(tmp_path: Path) -> None:
    """The line that serves is the server's business."""
    (lines,) = blocks(WRAPPERS, "sh")
    (play,) = [line for line in lines.splitlines() if "play" in line]
    words = [sys.executable, "-m", "turnwise_envs", *shlex.split(play)[1:]]
    assert "you have 1." in run(tmp_path, "bash", "-c", f"echo hint | {shlex.join(words)}")


def test_all_wrappers_are_on_the_page_with_their_defaults() -> None:
    rows = {row[0]: row[1] for row in re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", WRAPPERS, flags=re.MULTILINE)}
    assert sorted(rows) == sorted(KINDS)
    for name, kind in KINDS.items():
        for field, settings in kind.model_fields.items():
            default = settings.get_default(call_default_factory=True)
            shown = "" if settings.is_required() else f" {json.dumps(default).removesuffix('.0')}"
            assert f"`{field}`{shown}" in rows[name], name
