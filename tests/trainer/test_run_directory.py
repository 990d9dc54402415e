"""Run directories: one process each, nothing overwritten, checkpoints whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forests import tiny_model, tokenizer

from turnwise_trainer.config import TrainConfig, load
from turnwise_trainer.errors import ConfigError, RunError
from turnwise_trainer.metrics import MetricsLog
from turnwise_trainer.models import load_model
from turnwise_trainer.run_directory import RunDirectory


def config(path: Path, *overrides: str) -> TrainConfig:
    return load(None, ["model=m", "env.id=bandit", f"run={path}", *overrides])


def save(run: RunDirectory, step: int, **state: Any) -> Path:
    return run.save(step, tiny_model(seed=step, layers=1), tokenizer(), {"optimizer": {}, **state})


class TestLock:
    def test_a_second_process_is_told(self, tmp_path: Path) -> None:
        code = f"""
from pathlib import Path
from turnwise_trainer.errors import RunError
from turnwise_trainer.run_directory import RunDirectory
try:
    RunDirectory.resume(Path({str(tmp_path)!r}))
except RunError as error:
    print("refused:", error)
"""
        with RunDirectory.create(config(tmp_path)):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            assert done.stdout.startswith("refused:")
            assert "in use by another process" in done.stdout
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == ""

    def test_released_when_refused(self, tmp_path: Path) -> None:
        with RunDirectory.create(config(tmp_path)) as run:
            save(run, 1)
        with pytest.raises(RunError, match="already holds a run; continue it with --resume"):
            RunDirectory.create(config(tmp_path))
        RunDirectory.resume(tmp_path).close()


class TestBeginning:
    def test_what_never_finished_a_step_is_no_run(self, tmp_path: Path) -> None:
        """A wrong address is corrected by running the same command again, not by removing directories."""
        RunDirectory.create(config(tmp_path, "steps=1")).close()
        with RunDirectory.create(config(tmp_path, "steps=2")) as run, MetricsLog(run.metrics_file) as metrics:
            assert not run.begun
            metrics.add("train", 1, {"success": 0.0})
            assert run.begun
        assert load(tmp_path / "config.toml").steps == 2
        with pytest.raises(RunError, match="already holds a run"):
            RunDirectory.create(config(tmp_path, "steps=3"))
        assert load(tmp_path / "config.toml").steps == 2

    def test_nothing_to_resume(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="holds no run"):
            RunDirectory.resume(tmp_path / "nowhere")
        assert not (tmp_path / "nowhere").exists()

    def test_resume_changes_settings_and_says_so_on_disk(self, tmp_path: Path) -> None:
        RunDirectory.create(config(tmp_path, "steps=3", "objective=empg")).close()
        moved = tmp_path.rename(tmp_path.with_name("moved"))
        with RunDirectory.resume(moved, ("steps=9",)) as run:
            assert (run.config.steps, run.config.run, run.config.objective.preset) == (9, str(moved), "empg")
        assert load(moved / "config.toml") == run.config
        with pytest.raises(ConfigError, match="did you mean"):
            RunDirectory.resume(moved, ("stepz=9",))

    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_where_no_directory_can_be(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match=r"cannot use .* for a run"):
            RunDirectory.create(config(tmp_path / place))


class TestCheckpoints:
    def test_what_is_saved_is_loaded(self, tmp_path: Path) -> None:
        with RunDirectory.create(config(tmp_path)) as run:
            saved = save(run, 7, totals={"env_steps": 3})
            assert saved == tmp_path / "checkpoints" / "step-000007"
            assert run.checkpoints() == [saved]
            assert run.load_state(saved) == {"step": 7, "optimizer": {}, "totals": {"env_steps": 3}}
        model, _ = load_model(saved)
        assert torch.equal(model.lm_head.weight, tiny_model(seed=7, layers=1).lm_head.weight)

    def test_the_newest_are_kept(self, tmp_path: Path) -> None:
        with RunDirectory.create(config(tmp_path, "checkpoint.keep=2")) as run:
            for step in (9, 10, 100):
                save(run, step)
            assert [path.name for path in run.checkpoints()] == ["step-000010", "step-000100"]

    def test_half_a_checkpoint_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with RunDirectory.create(config(tmp_path)) as run:
            save(run, 1)
            with monkeypatch.context() as patch:
                patch.setattr(torch, "save", _interrupted)  # the weights are written, the optimizer is not
                with pytest.raises(KeyboardInterrupt):
                    save(run, 2)
            assert [path.name for path in run.checkpoints()] == ["step-000001"]
            assert (tmp_path / "checkpoints" / ".partial-000002" / "model.safetensors").exists()
            save(run, 3)
        assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000001", "step-000003"]

    @pytest.mark.parametrize("damage", [b"", b"no zip", None])
    def test_damage_is_said_in_one_line(self, tmp_path: Path, damage: bytes | None) -> None:
        with RunDirectory.create(config(tmp_path)) as run:
            saved = save(run, 1)
            state = saved / "trainer.pt"
            if damage is None:
                torch.save({"step": Path("not allowed")}, state)
            else:
                state.write_bytes(damage)
            with pytest.raises(RunError, match=r"step-000001 is damaged .*delete it") as caught:
                run.load_state(saved)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def _interrupted(*arguments: Any) -> None:
    raise KeyboardInterrupt


class TestMetricsLog:
    def test_a_resumed_run_logs_again_what_came_after_its_checkpoint(self, tmp_path: Path) -> None:
        file = tmp_path / "metrics.jsonl"
        with MetricsLog(file) as log:
            for step in (1, 2, 3):
                log.add("train", step, {"success": step / 4, "split": "text"})
        with file.open("a") as torn:
            torn.write('{"kind": "train", "st')
        with MetricsLog(file, keep_steps=2) as log:
            log.add("train", 3, {"success": 1.0})
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [(row["step"], row["success"]) for row in rows] == [(1, 0.25), (2, 0.5), (3, 1.0)]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]
