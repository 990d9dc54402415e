"""``turnwise check-env``: does an environment keep the contract?"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console

from turnwise_envs import registry
from turnwise_envs.check import check_env
from turnwise_envs.commands.play import parse_options

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})  # options of an adapter follow its name
def check(
    env: Annotated[
        list[str],
        typer.Argument(
            metavar="ENV",
            help="An id or an adapter with its options (see `turnwise envs`), or module:Class of the current directory.",
        ),
    ],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play and to replay in every way.")] = 3,
    seed: Annotated[int, typer.Option(help="Drives the choice of tasks and actions.")] = 0,
    options: Annotated[str, typer.Option(help="Options of every episode, as a JSON object.")] = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Check that an environment keeps the contract; exit code 1 if it does not.

    \b
    Example:
      turnwise check-env household
      turnwise check-env examples.guess:Guess --episodes 10
      turnwise check-env wrapped:household --options '{"wrappers": {"sticky_actions": {}}}'
    """
    report = check_env(registry.load_one(env), episodes=episodes, seed=seed, options=parse_options(options))
    if as_json:
        typer.echo(json.dumps({"ok": report.ok, **dataclasses.asdict(report)}, indent=2, ensure_ascii=False))
    else:
        Console().print(report)
    if not report.ok:
        raise typer.Exit(1)
