"""What the README shows, runs: its Python is examples/guess.py, and its commands are run as they stand (but smaller)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ports import held

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Sizes that make the training commands a matter of seconds.
SMALLER = {"--demos 1000": "--demos 8 --hidden 16 --layers 1", "steps=50": "steps=1 --set rollout.groups_per_step=2"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def bash(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_environment_is_the_example() -> None:
    (shown,) = blocks("python")
    _, _, code = (ROOT / "examples" / "guess.py").read_text(encoding="utf-8").partition("\n\n")
    assert shown == code
    body = shown[shown.index("class Guess") :]
    assert sum(bool(line.strip()) for line in body.splitlines()) <= 20


def test_make_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"make ([a-z-]+)", README)
    assert {"demo", "test", "demo-control"} <= set(targets)
    assert all(f"\n{target}:" in makefile for target in targets)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_check_and_play_the_example() -> None:
    (script,) = [block for block in blocks("sh") if "check-env" in block]
    assert "max_turns" not in bash(script, ROOT)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_training_in_three_commands(tmp_path: Path) -> None:
    (script,) = [block for block in blocks("sh") if "turnwise imitate" in block]
    (look,) = [block for block in blocks("sh") if "sqlite-utils" in block]
    for said, smaller in SMALLER.items():
        assert said in script
        script = script.replace(said, smaller)
    holder = held()
    port = str(holder.getsockname()[1])
    serve, *others = [line for line in script.replace("8000", port).splitlines() if line]
    server = subprocess.Popen(
        serve.partition("#")[0].split(), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert f":{port}" in server.stdout.readline()
        bash("\n".join(others), tmp_path)
        assert "action" in bash(look, tmp_path)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
