"""What a person sees while a run goes on: a live bar in a terminal, a line a step elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from turnwise_agent.trajectory import Turn


class Progress:
    """Shows steps, success, reward, tokens per second and the time that is left."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bar = Bar(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("train", facts="")
        self._turns = 0
        self._facts = ""
        self._total = 0

    @contextmanager
    def live(self, done: int, total: int) -> Iterator[None]:
        self._total = total
        self._bar.update(self._task, completed=done, total=total)
        with self._bar:
            yield

    def turn(self, turn: Turn) -> None:
        self._turns += 1
        if self._turns % 50 == 0:
            self._bar.update(self._task, facts=f"{self._facts} [dim]{self._turns} turns[/dim]")

    def step(self, done: int, values: Mapping[str, float]) -> None:
        self._turns = 0
        self._facts = (
            f"success [green]{values['success']:.2f}[/green] reward {values['reward']:.2f} "
            f"turns {values['turns']:.1f} {values['tokens_per_second']:.0f} tok/s"
        )
        self._bar.update(self._task, completed=done, facts=self._facts)
        if not self.console.is_terminal:
            self.console.print(
                f"step {done}/{self._total}  {self._facts}  {values['seconds/step']:.1f} s/step",
                highlight=False,
                soft_wrap=True,
            )

    def evaluation(self, done: int, split: str, mode: str, success: float, episodes: int) -> None:
        self.console.print(
            f"step {done}: success [bold]{success:.3f}[/bold] on {episodes} episodes of {split} ({mode})",
            highlight=False,
            soft_wrap=True,
        )
