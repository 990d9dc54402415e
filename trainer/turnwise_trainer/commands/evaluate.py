"""``turnwise eval``: how well a checkpoint does on a split."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="Hugging Face checkpoint directory.")],
    env: Annotated[str, typer.Option(help="Environment id, as served.")],
    url: Annotated[list[str], typer.Option(help="Server that serves it; may be repeated.")] = ["http://127.0.0.1:8000"],  # noqa: B006
    split: Annotated[str, typer.Option(help="Split to play.")] = "valid_seen",
    episodes: Annotated[int, typer.Option(min=1, help="Tasks, from index 0, one episode each.")] = 200,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    max_action_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one action.")] = 32,
    max_context_tokens: Annotated[int, typer.Option(min=2, help="Most tokens of a context.")] = 2048,
    option: Annotated[list[str], typer.Option(help="Environment option, name=value; may be repeated.")] = [],  # noqa: B006
    where: Annotated[
        list[str],
        typer.Option(help="Only tasks whose public field has one of these values, family=a,b; may be repeated."),
    ] = [],  # noqa: B006
    by: Annotated[str | None, typer.Option(help="Also show success by this public task field, such as family.")] = None,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
) -> None:
    """Play the tasks of a split with a policy and print its success.

    \b
    Example:
      turnwise eval runs/demo/checkpoints/step-000050 --env household --split valid_unseen --by family
    """
    import asyncio

    from rich.console import Console
    from rich.table import Table

    from turnwise_agent.rollout import RolloutSettings
    from turnwise_trainer.commands.options import env_options, where_clause
    from turnwise_trainer.evaluation import evaluate_checkpoint

    result = asyncio.run(
        evaluate_checkpoint(
            model,
            env,
            url,
            split,
            episodes,
            settings=RolloutSettings(
                temperature=temperature, max_action_tokens=max_action_tokens, max_context_tokens=max_context_tokens
            ),
            options=env_options(option),
            where=where_clause(where),
            seed=seed,
        )
    )
    table = Table("split", "episodes", "success", "reward", "turns")
    table.add_row(split, str(result.episodes), f"{result.success:.3f}", f"{result.reward:.3f}", f"{result.turns:.1f}")
    for value, success in (result.success_by(by) if by else {}).items():
        table.add_row(f"  {value}", "", f"{success:.3f}", "", "")
    Console().print(table)
