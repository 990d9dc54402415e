"""A run on disk: its configuration, lock, checkpoints and metrics.

runs/demo/
    config.toml            everything that decides the run
    metrics.jsonl          one JSON object a training step or evaluation
    tensorboard/
    trajectories.db        see turnwise_agent.store
    checkpoints/step-000040/   Hugging Face checkpoint, plus trainer.pt (optimizer and counters)
    .lock                  held by the process that runs it
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from turnwise_trainer.config import TrainConfig, dump, load
from turnwise_trainer.errors import RunError
from turnwise_trainer.models import save_model


class RunDirectory:
    """Open one with :meth:`create` or :meth:`resume`; it is locked until :meth:`close`."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path = path
        self.config = config
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"run {path} is in use by another process; wait for it, or choose another run=") from None
        except OSError as error:
            raise RunError(f"cannot use {path} for a run: {error.strerror}") from error

    @classmethod
    def create(cls, config: TrainConfig) -> RunDirectory:
        """A new run. Raises RunError if the directory already holds one (that has finished a step)."""
        path = Path(config.run)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot use {path} for a run: {error.strerror}") from error
        run = cls(path, config)
        if run.begun:
            run.close()
            raise RunError(f"{path} already holds a run; continue it with --resume {path}, or choose another run=")
        (path / "config.toml").write_text(dump(config), encoding="utf-8")
        return run

    @classmethod
    def resume(cls, path: Path, overrides: tuple[str, ...] = ()) -> RunDirectory:
        """An existing run, with settings changed if ``overrides`` say so. Raises RunError, ConfigError."""
        if not (path / "config.toml").is_file():
            raise RunError(f"{path} holds no run (it has no config.toml); start one without --resume")
        config = load(path / "config.toml", [*overrides, f"run={json.dumps(str(path))}"])
        run = cls(path, config)
        (path / "config.toml").write_text(dump(config), encoding="utf-8")
        return run

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def begun(self) -> bool:
        """Whether a step was finished. What stopped before, on a wrong address say, leaves nothing to lose."""
        return bool(self.checkpoints()) or (self.metrics_file.is_file() and self.metrics_file.stat().st_size > 0)

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def store_file(self) -> Path:
        return self.path / "trajectories.db"

    def checkpoints(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def save(self, step: int, model: Any, tokenizer: Any, state: dict[str, Any]) -> Path:
        """Write the checkpoint after ``step`` steps, all or nothing, and delete those that are too old."""
        final = self.path / "checkpoints" / f"step-{step:06d}"
        partial = self.path / "checkpoints" / f".partial-{step:06d}"
        for leftover in partial.parent.glob(".partial-*"):  # of a process that was killed while it wrote
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)
        save_model(model, tokenizer, partial)
        torch.save({"step": step, **state}, partial / "trainer.pt")
        for file in partial.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in self.checkpoints()[: -self.config.checkpoint.keep]:
            shutil.rmtree(old)
        return final

    def load_state(self, checkpoint: Path) -> dict[str, Any]:
        """What :meth:`save` was given as ``state``, with ``step``. Raises RunError."""
        try:
            return dict(torch.load(checkpoint / "trainer.pt", weights_only=True))
        except Exception as error:  # truncated zip, wrong types: torch raises many kinds, most with a page of advice
            raise RunError(
                f"checkpoint {checkpoint} is damaged ({type(error).__name__} in trainer.pt); "
                "delete it to resume from the one before"
            ) from error
