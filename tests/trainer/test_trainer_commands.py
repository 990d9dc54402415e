"""The commands train, eval and imitate: what they print, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from serving import Server
from typer.testing import CliRunner, Result
from word_worlds import HERE, one_thread, served, settings, train_command, wait_for, write_policy

from turnwise_envs import cli


@dataclass
class World:
    server: Server
    policy: Path
    home: Path

    def settings(self, run: str, **changes: Any) -> list[str]:
        return settings(self.server.url, self.policy, self.home / run, **changes)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("world")
    with served(home, "Bandit", "Mute") as server:
        yield World(server, write_policy(home / "policy"), home)


def turnwise(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200"})


def complaint(result: Result) -> str:
    """The one line on standard error of a command that was refused."""
    assert result.exit_code not in (0, 130), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("turnwise: ")
    return line.removeprefix("turnwise: ")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"env.id": "bandid"}, ["bandid", "unknown-env"]),
        ({"optimizer.lrr": 0.1}, ["optimizer.lrr: unknown setting; did you mean 'lr'?"]),
        ({"eval.episodes": 3}, ["eval: episodes would have no effect while every = 0"]),
        ({"model": "/nowhere/at/all"}, ["/nowhere/at/all is not a Hugging Face checkpoint directory"]),
        ({"env.split": "trian"}, ["env.split: environment 'bandit' has no split 'trian'; did you mean 'train'?"]),
        ({"eval.every": 2, "eval.splits": ["valid_seen"]}, ["eval.splits: ", "'valid_seen'; did you mean 'valid'?"]),
        (
            {"eval.every": 2, "eval.splits": ["valid"]},
            ["eval.episodes: 64 episodes, but split 'valid'", "only 5 tasks"],
        ),
        ({"env.options.turn": 3}, ["turn", "invalid-request"]),
        ({"env.urls": ["localhost:8000"]}, ["is not the address of a server"]),
        ({"rollout.max_context_tokens": 10}, ["the prompt of bandit/train/", "max_context_tokens=10"]),
        ({"objective": "gropo"}, ["objective: no preset 'gropo'; did you mean 'grpo'"]),
    ],
)
def test_wrong_settings(world: World, wrong: dict[str, Any], says: list[str]) -> None:
    line = complaint(turnwise("train", *world.settings("wrong", **wrong)))
    for part in says:
        assert part in line
    assert len(line) < 300
    store = world.home / "wrong" / "trajectories.db"
    assert not store.exists() or "env.split" not in wrong  # nothing was drawn


def test_wrong_command_lines(world: World) -> None:
    assert "--set steps: write a.b=value" in complaint(turnwise("train", "--set", "steps"))
    assert "cannot read nowhere.toml" in complaint(turnwise("train", "--config", "nowhere.toml"))
    assert "holds no run" in complaint(turnwise("train", "--resume", str(world.home / "nowhere")))
    assert "leave out --config" in complaint(turnwise("train", "--resume", "x", "--config", "y.toml"))
    assert "env: required, but not set" in complaint(turnwise("train", "--set", "model=m"))


def test_a_run_in_use(world: World) -> None:
    busy = world.home / "busy"
    busy.mkdir()
    with FileLock(busy / ".lock"):
        assert "in use by another process" in complaint(turnwise("train", *world.settings("busy")))
        shutil.copy(HERE.parents[1] / "examples" / "demo.toml", busy / "config.toml")
        line = complaint(turnwise("train", "--resume", str(busy), "--set", "model=m"))
        assert f"run {busy} is in use by another process" in line


def test_broken_models(world: World) -> None:
    broken, mute = world.home / "broken", world.home / "no-template"
    shutil.copytree(world.policy, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    shutil.copytree(world.policy, mute)
    (mute / "chat_template.jinja").unlink()
    assert f"cannot load the checkpoint {broken}" in complaint(turnwise("train", *world.settings("b", model=broken)))
    assert "the tokenizer has no chat template" in complaint(turnwise("train", *world.settings("c", model=mute)))
    evaluation = ["--env", "bandit", "--url", world.server.url, "--split", "valid", "--episodes", "2"]
    assert "cannot load the checkpoint" in complaint(turnwise("eval", str(broken), *evaluation))


def test_no_server_is_said_within_seconds_and_corrected_by_the_same_command(world: World) -> None:
    began = time.monotonic()
    result = turnwise("train", *world.settings("late", **{"env.urls": ["http://127.0.0.1:9"], "steps": 1}))
    assert time.monotonic() - began < 60  # in the middle of a run a client waits for minutes
    line = complaint(result)
    assert "no answer from http://127.0.0.1:9" in line
    assert "turnwise serve" in line
    result = turnwise("train", *world.settings("late", steps=1))
    assert result.exit_code == 0, result.output


def test_eval_shows_a_table(world: World) -> None:
    result = turnwise(
        "eval", str(world.policy), "--env", "bandit", "--url", world.server.url, "--split", "valid", "--episodes", "5",
        "--option", "turns=3", "--max-context-tokens", "64", "--max-action-tokens", "3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert [word.strip() for word in result.stdout.splitlines()[1].strip("┃").split("┃")] == [
        "split", "episodes", "success", "reward", "turns",
    ]  # fmt: skip
    row = [word.strip() for word in result.stdout.splitlines()[3].strip("│").split("│")]
    assert (row[0], row[1], row[4]) == ("valid", "5", "3.0")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--split", "test"], "split: environment 'bandit' has no split 'test'; known: train, valid"),
        (["--split", "valid"], "episodes: 200 episodes, but split 'valid' of 'bandit' has only 5 tasks"),
        (["--split", "valid", "--episodes", "2", "--option", "turns"], "--option turns: write name=value"),
    ],
)
def test_eval_with_wrong_arguments(world: World, wrong: list[str], says: str) -> None:
    arguments = ["eval", str(world.policy), "--env", "bandit", "--url", world.server.url, *wrong]
    assert says in complaint(turnwise(*arguments))


def test_imitate_writes_a_policy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    out = world.home / "imitated"
    result = turnwise("imitate", "household", "--out", str(out), "--demos", "2", "--epochs", "1", "--hidden", "16", "--layers", "1")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith(f"turnwise: wrote {out}, imitation loss ")
    assert (out / "config.json").is_file()
    monkeypatch.chdir(HERE)
    assert "environment 'mute' has no expert to imitate" in complaint(
        turnwise("imitate", "word_worlds:Mute", "--out", str(out), "--demos", "1")
    )
    assert "no environment 'hausehold'" in complaint(turnwise("imitate", "hausehold", "--out", str(out)))


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(world: World) -> None:
    """Also in the middle of an episode; the newest periodic checkpoint stays and the run can be resumed from it."""
    changes = {"steps": 500, "checkpoint.every": 1, "env.options.delay": 0.05}
    run = world.home / "interrupted"
    command = train_command(*world.settings("interrupted", **changes))
    with subprocess.Popen(
        command, env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_sigint
    ) as process:
        wait_for(lambda: list((run / "checkpoints").glob("step-*")), process)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    (line,) = err.splitlines()
    newest = max(path.name for path in (run / "checkpoints").iterdir())
    assert line == f"turnwise: interrupted; continue with: turnwise train --resume {run} (from {newest})"
    assert "Traceback" not in out
    result = turnwise("train", "--resume", str(run), "--set", f"steps={int(newest[5:]) + 1}")
    assert result.exit_code == 0, result.output
    logged = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert logged == list(range(1, int(newest[5:]) + 2))


def _heed_sigint() -> None:
    """A shell's background jobs, and all that they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
