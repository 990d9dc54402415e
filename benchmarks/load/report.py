"""From measurements to a report: medians, ratios within a repetition, and which aims were met. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Measured = dict[str, Any]

#: Sessions for which the aims are set.
AIMED = (64, 256)


@dataclass(frozen=True)
class Cell:
    """All repetitions of one measurement: ``what`` was done (play, open, http), by whom, with how many sessions."""

    what: str
    subject: str
    sessions: int
    length: int
    runs: tuple[Measured, ...]

    def summary(self) -> Measured:
        """Medians over the repetitions; failures are summed up."""
        found: Measured = {"subject": self.subject, "sessions": self.sessions}
        if self.what == "play":
            found["length"] = self.length
        if self.what == "open":
            found["seconds"] = round(median(_each(self.runs, "seconds")), 4)
        else:
            found["steps_per_s"] = round(median(map(rate, self.runs)), 1)
            for key in ("p50_ms", "p99_ms"):
                found[key] = round(median(_each(self.runs, key)), 3)
        for key in ("server_cpu_s", "client_cpu_s"):
            if (spent := [run[key] for run in self.runs if run.get(key) is not None]) and self.what != "open":
                found[key] = round(sum(spent), 2)
                found[key.replace("_s", "_us_per_step")] = round(
                    1e6 * sum(spent) / max(1, sum(_each(self.runs, "steps")))
                )
        found["failures"] = sum(int(run["failures"]) for run in self.runs)
        if why := next((run["first_failure"] for run in self.runs if run.get("first_failure")), None):
            found["first_failure"] = why
        return found


@dataclass(frozen=True)
class Aim:
    """``value`` must be at least (or at most) ``bound``; it is None if there was nothing to measure it by."""

    name: str
    value: float | None
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def as_json(self) -> Measured:
        value = None if self.value is None else round(self.value, 3)
        return {"aim": self.name, "bound": self.bound, "value": value, "met": self.met}


def rate(run: Measured) -> float:
    """Steps a second, opening and closing included."""
    return float(run["steps"] / run["seconds"])


def ratios(cells: Sequence[Cell], idle: Measured) -> list[Aim]:
    """What was aimed at, in the order of the issue."""
    index = {(cell.what, cell.subject, cell.sessions, cell.length): cell for cell in cells}

    def ratio(
        of: Callable[[Measured], float], ours: tuple[str, str], base: str, sessions: int, length: int
    ) -> float | None:
        """The median over repetitions, each against the one beside it."""
        what, subject = ours
        one, two = index.get((what, subject, sessions, length)), index.get((what, base, sessions, length))
        if one is None or two is None:
            return None
        return median(of(a) / of(b) for a, b in zip(one.runs, two.runs, strict=True))

    aims = []
    for length, bound in ((10, 2.5), (100, 1.3)):
        for sessions in AIMED:
            value = ratio(rate, ("play", "echo"), "openenv", sessions, length)
            aims.append(Aim(f"steps/s over OpenEnv's, {length}-step episodes, {sessions} sessions", value, bound))
    for length in (10, 100):
        for sessions in AIMED:
            value = ratio(lambda run: run["p99_ms"], ("play", "echo"), "openenv", sessions, length)
            name = f"p99 over OpenEnv's, {length}-step episodes, {sessions} sessions"
            aims.append(Aim(name, value, 0.5, at_least=False))
    slower = ratio(lambda run: run["seconds"], ("open", "echo"), "openenv", 256, 0)
    aims.append(Aim("OpenEnv's time to create 256 sessions over ours", slower and 1 / slower, 5.0))
    for sessions in AIMED:
        value = ratio(rate, ("http", "echo"), "bare", sessions, 1)
        aims.append(Aim(f"single-step HTTP over the bare FastAPI echo, {sessions} connections", value, 0.7))
    kib = idle.get("passivated_session_bytes")
    aims.append(Aim("KiB a passivated session", None if kib is None else kib / 1024, 20.0, at_least=False))
    aims.append(Aim("seconds to import turnwise_server", idle.get("import_seconds"), 1.0, at_least=False))
    return aims


def table(rows: Iterable[Sequence[object]], head: Sequence[str]) -> str:
    """Plain text: the first column to the left, numbers to the right."""
    lines = [list(head), *([_shown(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if not column else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def readable(cells: Sequence[Cell], idle: Measured, aims: Sequence[Aim]) -> str:
    """The whole report for people."""
    parts = []
    for length in sorted({cell.length for cell in cells if cell.what == "play"}):
        rows = [cell.summary() for cell in cells if cell.what == "play" and cell.length == length]
        parts += [f"{length}-step episodes, opening and closing included", _steps(rows)]
    if rows := [cell.summary() for cell in cells if cell.what == "http"]:
        parts += ["single steps as HTTP requests (sessions = connections)", _steps(rows)]
    if rows := [cell.summary() for cell in cells if cell.what == "open"]:
        head = ("opening all at once", "sessions", "ms", "failures")
        parts.append(
            table(((row["subject"], row["sessions"], 1e3 * row["seconds"], row["failures"]) for row in rows), head)
        )
    parts.append(table(((key.replace("_", " "), value) for key, value in idle.items()), ("at rest", "")))
    verdicts = {True: "met", False: "MISSED", None: "not measured"}
    limits = (
        (aim.name, aim.value, f"{'>=' if aim.at_least else '<='} {aim.bound:g}", verdicts[aim.met]) for aim in aims
    )
    parts.append(table(limits, ("aim", "value", "bound", "")))
    return "\n\n".join(parts)


def _steps(rows: Sequence[Measured]) -> str:
    head = ("", "sessions", "steps/s", "p50 ms", "p99 ms", "server us", "client us", "failures")
    keys = (
        "sessions",
        "steps_per_s",
        "p50_ms",
        "p99_ms",
        "server_cpu_us_per_step",
        "client_cpu_us_per_step",
        "failures",
    )
    return table(((row["subject"], *(row.get(key) for key in keys)) for row in rows), head)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _each(runs: Iterable[Measured], key: str) -> list[float]:
    return [run[key] for run in runs]
