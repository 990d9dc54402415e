"""Metrics to JSONL and TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """Appends one JSON object a call to ``metrics.jsonl`` and its numbers to TensorBoard.

    ``keep_steps``: drop what was logged after this many steps (a resumed run logs it again).
    """

    def __init__(self, file: Path, keep_steps: int = 0) -> None:
        self._file = file
        if file.exists():
            shorter = file.with_suffix(".partial")
            shorter.write_text("".join(_up_to(keep_steps, file.read_text("utf-8"))), "utf-8")
            shorter.replace(file)
        self._handle = file.open("a", encoding="utf-8")
        self._writer: SummaryWriter | None = None
        self._purge = keep_steps + 1

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """``kind`` is ``train`` or ``eval``; ``step`` is the number of finished training steps."""
        self._handle.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._handle.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    @property
    def _board(self) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # a second of imports: only when something is logged

            folder = self._file.parent / "tensorboard"
            self._writer = SummaryWriter(str(folder), purge_step=self._purge)
        return self._writer

    def close(self) -> None:
        self._handle.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _up_to(step: int, text: str) -> Iterator[str]:
    """The lines logged after at most ``step`` steps. A last line that a killed process did not finish is left out."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["step"] <= step:
            yield line
