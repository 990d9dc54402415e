"""Look into the journals of a directory, and make them smaller."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnwise_server import defaults

if TYPE_CHECKING:
    import sqlite3

app = typer.Typer(no_args_is_help=True)

Directory = Annotated[
    Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="What serve has as --journal.")
]

FIGURES = """
SELECT (SELECT count(*) FROM sessions) - (SELECT count(*) FROM ended) - (SELECT count(*) FROM gone)
         + (SELECT count(*) FROM ended JOIN gone USING (number)) AS live,
       (SELECT count(*) FROM ended WHERE how = 'done' AND number NOT IN (SELECT number FROM gone)) AS done,
       (SELECT count(*) FROM ended WHERE how <> 'done' AND number NOT IN (SELECT number FROM gone)) AS failed,
       (SELECT count(*) FROM gone) AS gone,
       (SELECT count(*) FROM steps) AS steps,
       (SELECT count(*) FROM snapshots) AS snapshots,
       (SELECT min(at) FROM sessions) AS oldest,
       (SELECT max(at) FROM sessions) AS newest,
       (SELECT group_concat(env, ' ') FROM envs) AS envs
"""


@app.callback()
def journal() -> None:
    """Look into the journals of a directory, and make them smaller.

    \b
    Example:
      turnwise journal info ~/.local/state/turnwise/journals/household-8000
    """


@app.command()
def info(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Show what each journal holds, and whether a server uses it.

    \b
    Example:
      turnwise journal info ~/.local/state/turnwise/journals/household-8000
    """
    from turnwise_server.journal.files import journals
    from turnwise_server.journal.schema import JournalRefused

    figures, refused = [], []
    for path in journals(directory):
        try:
            figures.append(_figures(path))
        except JournalRefused as error:
            refused.append(error)
    if as_json:
        typer.echo(json.dumps(figures))
    elif figures:
        _show(figures)
    elif not refused:
        typer.echo(f"no journals in {directory}")
    for complaint in refused:
        typer.echo(f"turnwise: {complaint}", err=True)
    if refused:
        raise typer.Exit(1)


@app.command()
def prune(
    directory: Directory,
    retain: Annotated[
        str,
        typer.Option(help="Keep what has finished within this time: 12h, 7d, or seconds; 0 keeps nothing finished."),
    ] = defaults.RETAIN,
) -> None:
    """Forget finished sessions and give their space back to the disk. A journal in use is left to its server.

    \b
    Example:
      turnwise journal prune ~/.local/state/turnwise/journals/household-8000 --retain 1d
    """
    import sqlite3

    from turnwise_server.journal.files import claimed, file_size, journals
    from turnwise_server.journal.schema import JournalRefused, check
    from turnwise_server.settings import seconds

    try:
        kept = seconds(retain)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--retain") from None
    refused = False
    for path in journals(directory):
        with claimed(path) as ours:
            if not ours:
                typer.echo(f"{path.name}: in use; its server prunes it by its own --retain")
                continue
            before = file_size(path)
            try:
                check(path, thorough=False)
                gone = _prune(path, kept)
            except (JournalRefused, sqlite3.Error) as error:
                refused = True
                told = error if isinstance(error, JournalRefused) else f"{path} is damaged ({error}); move it away"
                typer.echo(f"turnwise: {told}", err=True)
                continue
            freed = max(0, before - file_size(path))
            typer.echo(f"{path.name}: {gone} sessions forgotten, {_bytes(freed)} freed, {_bytes(before - freed)} left")
    if refused:
        raise typer.Exit(1)


def _figures(path: Path) -> dict[str, Any]:
    import sqlite3

    from sqlite_utils import Database

    from turnwise_server.journal.files import claimed, file_size
    from turnwise_server.journal.schema import JournalRefused, check, connect

    with claimed(path) as free:
        if free:
            check(path, thorough=False)
        try:
            with closing(connect(path, write=False)) as connection:
                found = next(iter(Database(connection).query(FIGURES)))
        except sqlite3.Error as error:
            raise JournalRefused(f"{path} is damaged ({error})") from error
    return {
        "file": path.name,
        "in_use": not free,
        "bytes": file_size(path),
        **found,
        "envs": (found["envs"] or "").split(),
    }


def _prune(path: Path, retain: float) -> int:
    """How many sessions went."""
    import time

    from turnwise_server.journal.retention import tidy
    from turnwise_server.journal.schema import connect

    connection = connect(path, write=True)
    try:
        before = _held(connection)
        more = True
        while more:
            connection.execute("BEGIN IMMEDIATE")
            more = tidy(connection, time.time(), retain, 2**62)
            connection.execute("COMMIT")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return before - _held(connection)
    finally:
        connection.close()


def _held(connection: sqlite3.Connection) -> int:
    query = "SELECT count(*) FROM sessions WHERE number NOT IN (SELECT number FROM gone WHERE emptied = 1)"
    return int(connection.execute(query).fetchone()[0])


def _show(figures: list[dict[str, Any]]) -> None:
    from datetime import datetime

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("journal", "", "size", "live", "done", "failed", "gone", "steps", "since", "environments"):
        numeric = heading in {"size", "live", "done", "failed", "gone", "steps"}
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for one in figures:
        since = "" if one["oldest"] is None else f"{datetime.fromtimestamp(one['oldest']):%Y-%m-%d %H:%M}"
        table.add_row(
            one["file"],
            "in use" if one["in_use"] else "free",
            _bytes(one["bytes"]),
            *(f"{one[name]:,}" for name in ("live", "done", "failed", "gone", "steps")),
            since,
            ", ".join(one["envs"]),
        )
    Console().print(table)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
