"""``turnwise train``: reinforcement learning against remote environments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def train(
    config: Annotated[Path | None, typer.Option(help="TOML file with the settings; see docs/training.md.")] = None,
    override: Annotated[
        list[str], typer.Option("--set", help="One setting, a.b=value; may be repeated; wins over the file.")
    ] = [],  # noqa: B006
    resume: Annotated[
        Path | None, typer.Option(help="Directory of a run to continue from its newest checkpoint.")
    ] = None,
) -> None:
    """Train a policy against environment servers.

    \b
    Example:
      turnwise train --set model=models/start --set env.id=household --set steps=50
      turnwise train --config run.toml --set objective=empg
      turnwise train --resume runs/household
    """
    import asyncio

    import torch  # noqa: F401  # say at once what to install

    from turnwise_trainer.config import load
    from turnwise_trainer.errors import ConfigError
    from turnwise_trainer.loop import train as run_to_the_end
    from turnwise_trainer.progress import Progress
    from turnwise_trainer.run_directory import RunDirectory

    if resume is not None and config is not None:
        raise ConfigError("--resume continues a run with the settings in its directory; leave out --config")
    run = RunDirectory.resume(resume, tuple(override)) if resume else RunDirectory.create(load(config, override))
    with run:
        try:
            result = asyncio.run(run_to_the_end(run, Progress()))
        except KeyboardInterrupt:
            newest = run.checkpoints()[-1:]
            where = f"from {newest[0].name}" if newest else "from the start, there is no checkpoint yet"
            typer.echo(f"turnwise: interrupted; continue with: turnwise train --resume {run.path} ({where})", err=True)
            raise typer.Exit(130) from None
    totals = result.totals
    typer.echo(
        f"turnwise: {run.path}: {totals.env_steps} environment steps and {totals.policy_tokens} policy tokens in "
        f"{totals.train_seconds:.0f} s; newest checkpoint {result.checkpoint}"
    )
    if totals.saved_env_steps:
        typer.echo(
            f"turnwise: branching saved {totals.saved_env_steps} environment steps and "
            f"{totals.saved_policy_tokens} policy tokens against unbranched groups"
        )
