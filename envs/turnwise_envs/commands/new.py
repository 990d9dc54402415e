"""``turnwise new-env``: a package to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from turnwise_envs.scaffold import scaffold

app = typer.Typer()


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Lower-case words and dashes; the id of the environment.")],
    into: Annotated[Path | None, typer.Option(help="Directory to write; by default NAME, here.")] = None,
) -> None:
    """Write an installable package with an environment, its tasks, tests and Dockerfile.

    \b
    Example:
      turnwise new-env my-maze
      pip install -e './my-maze[test]'
      turnwise check-env my-maze
    """
    folder = Path(name) if into is None else into
    for path in scaffold(name, folder):
        typer.echo(f"  {folder / path}")
    typer.echo(f"Now: pip install -e '{folder}[test]' && turnwise check-env {name.replace('_', '-')}")
