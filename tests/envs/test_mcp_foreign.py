"""MCP servers that nobody here wrote, from the npm registry and from PyPI, through `turnwise serve` over HTTP.

Each is installed into a folder of its own, so that its dependencies meet nobody else's. A machine without npm, or
without the registry, skips.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("mcp")
pytest.importorskip("uvicorn")

from turnwise_envs import load
from turnwise_envs.check import check_env

EVERYTHING = "@modelcontextprotocol/server-everything@2026.8.31"
FILESYSTEM = "@modelcontextprotocol/server-filesystem@2026.8.31"
TIME = "mcp-server-time==2026.10.19"

PAGE = Path(__file__).parents[2] / "docs" / "environments" / "plugins-tools.md"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of two reference servers from npm."""
    if shutil.which("npx") is None or shutil.which("npm") is None:
        pytest.skip("needs PROGRAM: npx")
    there = tmp_path_factory.mktemp("node")
    _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(there), EVERYTHING, FILESYSTEM])
    return there / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the program of a reference server from PyPI."""
    there = tmp_path_factory.mktemp("python")
    venv.create(there, with_pip=True)
    _run([str(there / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", TIME])
    return there / "bin"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"needs a package registry: {Path(command[0]).name} could not fetch: {done.stderr[-200:]}")


@contextmanager
def served(*words: str) -> Iterator[str]:
    """The address of a ``turnwise serve`` of these words."""
    command = [sys.executable, "-m", "turnwise_envs", "serve", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(60)


def play(address: str, env: str, calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A scripted agent: one call a turn. The results, and after them each turn's answer sent once more."""
    with httpx.Client(base_url=address, timeout=600) as http:
        opened = http.post("/v1/sessions", json={"env": env})
        assert opened.status_code == 201, opened.text
        session = f"/v1/sessions/{opened.json()['session_id']}"
        results = []
        for turn, (name, arguments) in enumerate(calls):
            call = {"id": f"c{turn}_0", "name": name, "arguments": arguments}
            body = {"turn": turn, "action": {"tool_calls": [call]}}
            results.append(http.post(f"{session}/step", json=body).json())
            assert http.post(f"{session}/step", json=body).json() == results[-1]  # from the journal: not called again
        return results


def texts(results: list[dict[str, Any]]) -> list[str]:
    return [one["observation"]["messages"][0]["content"] for one in results]


def tasks(folder: Path, **fields: Any) -> str:
    (folder / "tasks.jsonl").write_text(json.dumps(fields))
    return str(folder / "tasks.jsonl")


def test_the_everything_server_from_npm(node: Path, tmp_path: Path) -> None:
    sums = {"name": "get-sum", "arguments": {"a": 17, "b": 25}}
    wanted = tasks(tmp_path, instruction="What is 17 + 25? Use the tool.", answers=["42"], calls=[sums])
    words = ["mcp:everything", "--command", f"{node}/mcp-server-everything", "--tasks", wanted]
    with served(*words) as address:
        made = play(
            address,
            "mcp:everything",
            [("echo", {"message": "hello"}), ("get-sum", {"a": 17, "b": 25}), ("answer", {"answer": "42"})],
        )
    assert texts(made)[:2] == ["Echo: hello", "The sum of 17 and 25 is 42."]
    assert (made[-1]["reward"], made[-1]["info"]["end"]) == (1.0, "solved")


def transcript() -> list[tuple[str, dict[str, Any], str]]:
    """The calls that the page shows of the filesystem server, each with its answer."""
    block = next(b for b in PAGE.read_text(encoding="utf-8").split("```text\n") if b.startswith("> read_text_file"))
    turns = [turn.partition("\n") for turn in block.split("\n```")[0].removeprefix("> ").split("\n> ")]
    return [(call.split()[0], json.loads(call.partition(" ")[2]), shown) for call, _, shown in turns]


def test_the_filesystem_server_from_npm_in_a_private_folder(node: Path, tmp_path: Path) -> None:
    """The transcript of the page, with a look at the folder before its end."""
    start = tmp_path / "start"
    start.mkdir()
    (start / "note.txt").write_text("buy milk")
    move = {"name": "move_file", "arguments": {"source": "/world/note.txt", "destination": "/world/done/note.txt"}}
    wanted = tasks(tmp_path, instruction="Move note.txt into the folder done.", calls=[move])
    given = {
        "command": f"{node}/mcp-server-filesystem .",
        "tasks": wanted,
        "folder": str(start),
        "only": "read_text_file,create_directory,move_file,list_directory",
        "deterministic": "true",
    }
    words = ["mcp:files", *(word for name, value in given.items() for word in (f"--{name}", value))]
    shown = transcript()
    assert ("move_file", move["arguments"]) in [call[:2] for call in shown]
    script = [call[:2] for call in shown]
    script.insert(-1, ("list_directory", {"path": "/world"}))
    with served(*words) as address:
        made = play(address, "mcp:files", script)
        again = play(address, "mcp:files", script)
    said = texts(made)
    assert said.pop(-2) == "[DIR] done"
    assert said == [answer for _, _, answer in shown]
    assert made[-1]["reward"] == 1.0
    assert [one["log_hash"] for one in made] == [one["log_hash"] for one in again]  # the second one began afresh
    assert [one.name for one in start.iterdir()] == ["note.txt"]


def test_the_time_server_from_pypi(python: Path, tmp_path: Path) -> None:
    asked = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    wanted = tasks(
        tmp_path,
        instruction="It is 12:00 UTC. What time is it in Tokyo?",
        answers=["21:00"],
        calls=[{"name": "convert_time", "arguments": asked}],
    )
    with served("mcp:time", "--command", f"{python}/mcp-server-time", "--tasks", wanted) as address:
        made = play(address, "mcp:time", [("convert_time", asked), ("answer", {"answer": "21:00"})])
    assert "T21:00:00+09:00" in texts(made)[0]
    assert made[-1]["reward"] == 1.0


def test_what_the_checks_say_of_the_time_server(python: Path, tmp_path: Path) -> None:
    wanted = tasks(tmp_path, instruction="What time is it?", answers=["late"])
    report = check_env(
        load("mcp:time", {"command": f"{python}/mcp-server-time", "tasks": wanted, "only": "convert_time"}), episodes=1
    )
    assert report.ok, report
    said = {one.check: (one.status, one.message) for one in report.findings}
    assert said["determinism"][0] == said["fork"][0] == "skipped"  # it cannot be promised, and the checks say so
    assert said["junk"][0] == said["tool-messages"][0] == said["canary"][0] == "ok"


def test_what_the_checks_say_of_the_servers_from_npm(node: Path, tmp_path: Path) -> None:
    """The folder of the one is its whole state, so it is held to its promise; of the other nothing is promised."""
    wanted = tasks(tmp_path, instruction="What is 17 + 25?", answers=["42"])
    everything = {"command": f"{node}/mcp-server-everything", "tasks": wanted, "only": "echo,get-sum"}
    report = check_env(load("mcp:everything", everything), episodes=1)
    assert report.ok, report
    assert {one.check: one.status for one in report.findings}["determinism"] == "skipped"
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "note.txt").write_text("buy milk")
    files = {
        "command": f"{node}/mcp-server-filesystem .",
        "tasks": wanted,
        "folder": str(tmp_path / "start"),
        "only": "read_text_file,create_directory,move_file,list_directory",
        "deterministic": "true",
    }
    report = check_env(load("mcp:files", files), episodes=1)
    assert report.ok, report
    assert {one.check: one.status for one in report.findings}["fork"] == "ok"
