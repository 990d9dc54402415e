"""What docs/environments/plugins-tools.md shows, is so."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from turnwise_envs.plugins.errands import Errand, read_errands

PAGE = (Path(__file__).parents[2] / "docs" / "environments" / "plugins-tools.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_tasks_are_read(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text(blocks("json")[0])
    assert len(read_errands(tmp_path / "tasks.jsonl")) == 3
    rows = re.findall(
        r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?`) \|", PAGE[: PAGE.index("## Python")], re.MULTILINE))
    )
    assert sorted(rows) == sorted(Errand.model_fields)


def test_the_functions_play_as_shown(tmp_path: Path) -> None:
    (tmp_path / "kitchen.py").write_text(blocks("python")[0])
    said, answers = blocks("text")[0].splitlines()[::2], blocks("text")[0].splitlines()[1::2]
    played = subprocess.run(
        [sys.executable, "-m", "turnwise_envs", "play", "kitchen:Market"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        input="".join(f"{line.removeprefix('> ')}\n" for line in said),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert played.returncode == 0, played.stderr
    shown = [line.removeprefix("> ") for line in played.stdout.splitlines() if line.startswith("> ")]
    assert shown == answers
    assert "Total reward 1." in played.stdout


def test_all_options_are_on_the_page() -> None:
    pytest.importorskip("mcp")
    from turnwise_envs.plugins.mcp import mcp
    from turnwise_envs.plugins.openapi import openapi

    for adapter, title in [(mcp, "## MCP servers"), (openapi, "## OpenAPI services")]:
        section = PAGE[PAGE.index(title) :]
        for option in set(inspect.signature(adapter).parameters) - {"name"}:
            assert f"`--{option.replace('_', '-')}" in section, option
