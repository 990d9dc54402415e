"""Whole runs against a served environment: end to end, killed and resumed, with a server that dies, and really learning."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from serving import Server
from typer.testing import CliRunner
from word_worlds import one_thread, served, settings, train_command, wait_for, write_policy

from turnwise_envs import cli
from turnwise_trainer.config import load
from turnwise_trainer.loop import task_order

#: What may differ between two runs of the same steps: time, and how often the network was asked again.
TIMINGS = (
    "seconds/rollout", "seconds/step", "tokens_per_second", "client/retries", "client/rebuilds",
    "engine/recomputed_tokens",
)  # fmt: skip

EXACT = {
    "steps": 6,
    "rollout.deterministic": True,
    "env.options.delay": 0.2,
    "optimizer.schedule": "cosine",
    "optimizer.epochs": 2,
    "eval.every": 3,
    "eval.splits": ["valid"],
    "eval.episodes": 3,
    "eval.modes": ["greedy", "sampled"],
}


@dataclass
class World:
    server: Server
    policy: Path
    home: Path

    def command(self, run: str, **changes: Any) -> list[str]:
        return train_command(*settings(self.server.url, self.policy, self.home / run, **changes))

    def train(self, run: str, **changes: Any) -> tuple[str, list[dict[str, Any]]]:
        """Train in this process; standard output, and the metrics of the training steps."""
        arguments = self.command(run, **changes)[1:]
        result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        return result.stdout, [row for row in metrics(self.home / run) if row["kind"] == "train"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("world")
    with served(home, "Bandit") as server:
        yield World(server, write_policy(home / "policy"), home)


@pytest.fixture(scope="module")
def whole(world: World) -> tuple[Path, str]:
    """A run from start to end, in a process of its own: its directory, and what it printed."""
    done = subprocess.run(
        world.command("whole", **EXACT), env=one_thread(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return world.home / "whole", done.stdout


def metrics(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.slow
class TestEndToEnd:
    def test_what_is_printed(self, whole: tuple[Path, str]) -> None:
        run, out = whole
        lines = out.splitlines()
        assert [line.split()[1] for line in lines if " s/step" in line] == [f"{step}/6" for step in range(1, 7)]
        assert len([line for line in lines if "on 3 episodes of valid (greedy)" in line]) == 2
        assert lines[-1].startswith(f"turnwise: {run}: ")
        assert lines[-1].endswith(f"newest checkpoint {run / 'checkpoints' / 'step-000006'}")

    def test_metrics(self, whole: tuple[Path, str]) -> None:
        rows = metrics(whole[0])
        train, evals = ([row for row in rows if row["kind"] == kind] for kind in ("train", "eval"))
        assert [row["step"] for row in train] == [1, 2, 3, 4, 5, 6]
        assert [(row["step"], row["mode"]) for row in evals] == [
            (3, "greedy"), (3, "sampled"), (6, "greedy"), (6, "sampled"),
        ]  # fmt: skip
        assert {row["episodes"] for row in evals} == {3}
        for row in train:
            assert row["logprob_gap_max"] < 1e-4
            assert row["turns"] == 2.0
            assert row["reward"] == row["success"] == row["reward/env"]
            assert row["total/env_steps"] == 32 * row["step"]
            assert row["client/rebuilds"] == row["total/dropped"] == row["saved_env_steps"] == 0
        assert train[0]["optimizer/lr"] == 1e-2
        assert train[3]["optimizer/lr"] == pytest.approx(0.5e-2)

    def test_what_lies_in_the_directory(self, world: World, whole: tuple[Path, str]) -> None:
        run, _ = whole
        assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-000004", "step-000006"]
        assert load(run / "config.toml").env.urls == (world.server.url,)
        assert list((run / "tensorboard").glob("events.out.tfevents.*"))
        with sqlite3.connect(run / "trajectories.db") as db:
            phases = dict(db.execute("SELECT phase, count(*) FROM groups GROUP BY phase"))
            assert phases == {"train": 24, "eval/valid/greedy": 6, "eval/valid/sampled": 6}
            per_step = dict(db.execute("SELECT step, count(*) FROM groups WHERE phase = 'train' GROUP BY step"))
            assert per_step == dict.fromkeys(range(6), 4)
            versions = db.execute(
                "SELECT DISTINCT step, value FROM turns JOIN groups ON groups.id = group_id, json_each(versions)"
                " WHERE phase = 'train'"
            )
            assert sorted(versions) == [(step, step) for step in range(6)]
            (texts,) = db.execute("SELECT count(*) FROM transcripts WHERE observation = 'over'").fetchone()
            assert texts == 24 * 4 + 12

    def test_weights_moved(self, world: World, whole: tuple[Path, str]) -> None:
        before = load_file(world.policy / "model.safetensors")
        after = load_file(whole[0] / "checkpoints" / "step-000006" / "model.safetensors")
        assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-3


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(world: World, whole: tuple[Path, str]) -> None:
    run = world.home / "killed"
    with subprocess.Popen(
        world.command("killed", **EXACT), env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # After step 3 the newest checkpoint is one step old, and the fourth is on its way (or just there).
        wait_for(lambda: any(row["step"] == 3 for row in metrics(run)), process)
        process.kill()
        process.communicate()
    kept = max(int(path.name[-6:]) for path in (run / "checkpoints").glob("step-??????"))
    assert kept in (2, 4)
    done = subprocess.run(
        train_command("--resume", str(run)), env=one_thread(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"step {kept + 1}/6" in done.stdout
    assert f"step {kept}/6" not in done.stdout
    assert weights(run) == weights(whole[0])
    assert without_timings(metrics(run)) == without_timings(metrics(whole[0]))
    assert said(run) == said(whole[0])


def weights(run: Path) -> str:
    """A hash, since pytest would take minutes to explain how two files differ."""
    return hashlib.sha256((run / "checkpoints" / "step-000006" / "model.safetensors").read_bytes()).hexdigest()


def without_timings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in rows]


def said(run: Path) -> Counter[tuple[Any, ...]]:
    """All that was ever said: phase, step, task, turn in its group, token ids."""
    sql = "SELECT phase, step, task_id, turn, action_ids, logprobs FROM turns JOIN groups ON id = group_id"
    with sqlite3.connect(run / "trajectories.db") as db:
        return Counter(db.execute(sql).fetchall())


@pytest.mark.slow
@pytest.mark.parametrize("forgets", [True, False])
def test_a_server_that_dies_does_not_end_the_run(world: World, forgets: bool) -> None:
    """With its journal it knows every session when it is back; without, the client rebuilds them by replay."""
    name = f"mortal-{forgets}"
    with served(world.home / name, "Bandit") as server:
        changes = {"env.urls": [server.url], "env.options.delay": 1.0, "steps": 3}
        with subprocess.Popen(
            world.command(f"{name}-run", **changes),
            env=one_thread(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            run = world.home / f"{name}-run"
            wait_for(lambda: metrics(run) and live_sessions(server), process)
            server.kill()
            if forgets:
                server.forget()
            time.sleep(2.0)
            server.start()
            out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    rows = metrics(run)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert (rows[-1]["client/rebuilds"] > 0) is forgets
    assert rows[-1]["total/env_steps"] == 3 * 32
    assert rows[-1]["total/dropped"] == 0
    assert "turnwise: " in out


def live_sessions(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/v1/sessions?status=live") as answer:
        return len(json.load(answer)["items"])


class TestObjectives:
    def test_empg(self, world: World) -> None:
        _, rows = world.train("empg", objective="empg", steps=2)
        assert len(rows) == 2
        assert all(row["optimizer/grad_norm"] > 0 for row in rows)

    def test_arpo_says_what_branching_saved(self, world: World) -> None:
        changes = {"objective": "arpo", "objective.sampling.base": 1.0, "env.options.turns": 3, "steps": 2}
        out, rows = world.train("arpo", **changes)
        assert all(row["saved_env_steps"] > 0 and row["saved_policy_tokens"] > 0 for row in rows)
        steps, tokens = (sum(row[f"saved_{what}"] for row in rows) for what in ("env_steps", "policy_tokens"))
        last = out.splitlines()[-1]
        assert last.startswith(f"turnwise: branching saved {steps} environment steps and {tokens} policy tokens")
        # 2 steps of 4 groups of 4 episodes of 3 turns, some of them shared.
        assert rows[-1]["total/env_steps"] + steps == 2 * 4 * 4 * 3
        assert max(row["logprob_gap_max"] for row in rows) < 1e-4

    def test_kl_to_the_starting_policy(self, world: World) -> None:
        _, rows = world.train(
            "kl", **{"objective.regularizers.kl.coefficient": 0.1, "steps": 3, "optimizer.minibatches": 1}
        )
        assert rows[0]["policy/reference_kl"] == pytest.approx(0.0, abs=1e-6)
        assert rows[2]["policy/reference_kl"] > 1e-4


@pytest.mark.slow
class TestLearning:
    """A policy that says one of four letters learns the one that is rewarded."""

    CHANGES = {
        "steps": 10,
        "env.options.turns": 1,
        "rollout.group_size": 6,
        "rollout.deterministic": True,
        "optimizer.minibatches": 1,
    }

    def success(self, world: World, run: str, **changes: Any) -> tuple[float, float]:
        """In the first and in the last three steps."""
        _, rows = world.train(run, **{**self.CHANGES, **changes})
        values = [row["success"] for row in rows]
        return sum(values[:3]) / 3, sum(values[-3:]) / 3

    def test_success_rises(self, world: World) -> None:
        before, after = self.success(world, "learn")
        assert before < 0.6
        assert after > 0.9

    def test_not_with_shuffled_rewards(self, world: World) -> None:
        """One run in four may drift to the rewarded letter, whatever it is paid for; one that learns always goes there."""
        changes = {"objective.rewards": ["shuffled_env"]}
        after = [self.success(world, f"shuffled{seed}", seed=seed, **changes)[1] for seed in range(1, 5)]
        assert min(after) < 0.6


class TestTaskOrder:
    @given(seed=st.integers(0, 99), count=st.integers(1, 7), size=st.integers(1, 9))
    def test_every_task_once_before_any_comes_twice(self, seed: int, count: int, size: int) -> None:
        drawn = [index for step in range(size) for index in task_order(seed, step, count, size)]
        for start in range(0, len(drawn), size):
            assert sorted(drawn[start : start + size]) == list(range(size))

    def test_an_unbounded_split_is_taken_in_order(self) -> None:
        assert task_order(0, 3, 4, None) == [12, 13, 14, 15]

    def test_seeds_and_passes_are_shuffled_anew(self) -> None:
        passes = [tuple(task_order(seed, step, 50, 50)) for seed in (0, 1) for step in (0, 1)]
        assert len(set(passes)) == 4
