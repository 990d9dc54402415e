"""``turnwise imitate``: a starting policy from an environment's expert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def imitate(
    env: Annotated[str, typer.Argument(help="An id (see `turnwise envs`), or module:Class of the current directory.")],
    out: Annotated[Path, typer.Option(help="Directory for the Hugging Face checkpoint.")],
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from. Without: a tiny Qwen3 with its own tokenizer.")
    ] = None,
    demos: Annotated[int, typer.Option(min=1, help="Demonstrations, from the first tasks of the split.")] = 1000,
    split: Annotated[str, typer.Option(help="Split of the demonstrations.")] = "train",
    noise: Annotated[
        float, typer.Option(min=0, max=1, help="Chance of a slip in a turn; how one goes on is learned, slips are not.")
    ] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the demonstrations.")] = 4,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 2e-3,
    batch: Annotated[int, typer.Option(min=1, help="Demonstrations per optimizer step.")] = 4,
    hidden: Annotated[int | None, typer.Option(min=8, help="Width of the tiny model; 128 if not given.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of the tiny model; 3 if not given.")] = None,
    where: Annotated[
        list[str],
        typer.Option(help="Only tasks whose public field has one of these values, family=a,b; may be repeated."),
    ] = [],  # noqa: B006
    option: Annotated[list[str], typer.Option(help="Environment option, name=value; may be repeated.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of noise, order and a new model's weights.")] = 0,
) -> None:
    """Make a starting policy by imitating an environment's expert.

    \b
    Example:
      turnwise imitate household --out models/start --demos 1000 --noise 0.1 --option thinking_expert=true
    """
    import asyncio

    from turnwise_envs import load
    from turnwise_trainer.commands.options import env_options, where_clause
    from turnwise_trainer.errors import ConfigError
    from turnwise_trainer.imitation import ImitationSettings, make_policy

    if model is not None and (hidden is not None or layers is not None):
        raise ConfigError("--hidden and --layers have no effect with --model: its size is what it is")
    settings = ImitationSettings(
        where=where_clause(where),
        demos=demos,
        split=split,
        noise=noise,
        epochs=epochs,
        lr=lr,
        batch=batch,
        seed=seed,
        hidden=hidden or ImitationSettings.hidden,
        layers=layers or ImitationSettings.layers,
    )
    loss = asyncio.run(make_policy(load(env), settings, out, start_from=model, options=env_options(option)))
    typer.echo(f"turnwise: wrote {out}, imitation loss {loss:.3f} nats a token")
