"""What the checker found, as data and for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; ``message`` is the contract that holds, what broke it, or why it was not checked."""

    check: str
    status: Status
    message: str


@dataclass(frozen=True)
class Report:
    """All findings about one environment, in the order of the checks."""

    env: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing failed. A skipped check is no failure."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.status == "failed")

    @property
    def verdict(self) -> str:
        count = {status: sum(f.status == status for f in self.findings) for status in ("ok", "failed", "skipped")}
        return f"{self.env}: {count['ok']} ok, {count['failed']} failed, {count['skipped']} skipped"

    def __str__(self) -> str:
        lines = [f"{finding.status:8} {finding.check:14} {finding.message}" for finding in self.findings]
        return "\n".join([*lines, self.verdict])

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        styles = {"ok": "green", "failed": "bold red", "skipped": "yellow"}
        table = Table.grid(padding=(0, 2))
        for finding in self.findings:
            mark = Text(finding.status, style=styles[finding.status])
            table.add_row(mark, Text(finding.check), Text(finding.message))
        return Group(table, Text(self.verdict, style="green" if self.ok else "bold red"))
