"""``turnwise envs``: what is installed, and one environment in detail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from turnwise_envs import registry
from turnwise_envs.commands.play import parse_options
from turnwise_envs.environment import Environment
from turnwise_envs.errors import TurnwiseError, UnknownEnvironment
from turnwise_envs.stats import Stats, measure
from turnwise_envs.types import EnvSpec, JsonObject, Task

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})  # options of an adapter follow its name
def envs(
    env: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ENV]",
            help="Show this one: an id, an adapter with its options, or module:Class of the current directory.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Measure: steps a second, success of the expert and of a random policy.")
    ] = False,
    tasks: Annotated[int, typer.Option(min=1, help="With --stats: tasks that each policy plays.")] = 50,
    seconds: Annotated[
        float, typer.Option(min=0, help="With --stats: after so long a policy begins no other task.")
    ] = 60.0,
    split: Annotated[str | None, typer.Option(help="With --stats: the split; by default the first.")] = None,
    options: Annotated[str, typer.Option(help="With --stats: options of every episode, as a JSON object.")] = "{}",
) -> None:
    """List the installed environments, or show one with an example task; with --stats, measure them.

    \b
    Example:
      turnwise envs
      turnwise envs household
      turnwise envs examples.guess:Guess --json
      turnwise envs --stats household --tasks 200
    """
    console = Console(soft_wrap=False)
    if stats:
        classes = [registry.load_one(env)] if env else [_load(env_id) for env_id in registry.installed()]
        figures = [_measured(each, tasks, seconds, split, parse_options(options)) for each in classes]
        if as_json:
            _write_json([{"id": f[0], "error": f[1]} if isinstance(f, tuple) else asdict(f) for f in figures])
        else:
            console.print(_figures(figures))
        return
    if env:
        found = registry.load_one(env)
        task = found.tasks.get(found.spec.splits[0].name, 0) if found.spec.splits else None
        if as_json:
            _write_json({"spec": _plain(found.spec), "example_task": None if task is None else _plain(task)})
        else:
            _show_one(found.spec, task, lambda line: console.print(line, markup=False, highlight=False))
        return
    rows = [_load(env_id) for env_id in registry.installed()]
    if as_json:
        _write_json(
            [_plain(row.spec) if not isinstance(row, tuple) else {"id": row[0], "error": row[1]} for row in rows]
        )
    else:
        console.print(_table(rows))
        if adapters := registry.adapters():
            console.print(f"\nadapters, which make environments of what others wrote: {', '.join(adapters)}")


def _load(env_id: str) -> type[Environment] | tuple[str, str]:
    """The class, or the id and what is wrong with it: one broken plug-in does not hide the others."""
    try:
        return registry.load(env_id)
    except UnknownEnvironment as error:
        return env_id, str(error)


def _measured(
    env_class: type[Environment] | tuple[str, str],
    tasks: int,
    seconds: float,
    split: str | None,
    options: JsonObject,
) -> Stats | tuple[str, str]:
    """The figures, or the id and why there are none: a missing extra does not hide the others."""
    if isinstance(env_class, tuple):
        return env_class
    try:
        return measure(env_class, tasks=tasks, seconds=seconds, split=split, options=options)
    except (TurnwiseError, ImportError) as error:
        return env_class.spec.id, str(error).splitlines()[0]


def _figures(rows: list[Stats | tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("id", "split", "tasks", "steps/s", "per core", "live", "reset", "expert", "random", "turns", "")
    for column in columns:
        table.add_column(column, justify="left" if column in {"id", "split", ""} else "right", overflow="fold")
    for row in rows:
        if isinstance(row, tuple):
            table.add_row(row[0], *[""] * (len(columns) - 2), Text(row[1], style="red"))
            continue
        rates = (f"{rate:,.0f}" for rate in (row.steps_per_second, row.steps_per_core, row.live_steps_per_core))
        table.add_row(
            Text(row.env),
            row.split,
            "∞" if row.size is None else str(row.size),
            *rates,
            f"{row.reset_seconds * 1000:.1f} ms",
            f"{row.expert.success:.1%}" if row.expert else "none",
            f"{row.random.success:.1%}",
            f"{(row.expert or row.random).turns:.1f}",
            f"over {row.random.episodes} tasks",
        )
    return table


def _table(rows: list[type[Environment] | tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "splits", "turns", "actions", "description"):
        table.add_column(column, justify="right" if column == "turns" else "left", overflow="fold")
    for row in rows:
        if isinstance(row, tuple):
            table.add_row(Text(row[0]), "", "", "", Text(row[1], style="red"))
        else:
            spec = row.spec
            cells = (spec.id, _splits(spec, "\n"), str(spec.max_turns), spec.action_format, spec.description)
            table.add_row(*map(Text, cells))
    return table


def _show_one(spec: EnvSpec, task: Task | None, write: Callable[[str], None]) -> None:
    write(f"{spec.id} {spec.version}: {spec.description}" if spec.description else f"{spec.id} {spec.version}")
    write("")
    write(f"splits         {_splits(spec)}")
    write(f"max turns      {spec.max_turns}")
    write(f"actions        {spec.action_format}")
    write(f"deterministic  {'yes' if spec.deterministic else 'no: replay uses recorded results'}")
    write(f"forks          {'by snapshot' if spec.snapshot else 'by replay'}")
    options = spec.options_schema.get("properties", {})
    write(f"options        {'none' if not options else ''}".rstrip())
    for name, schema in options.items():
        write(f"  {name}: {json.dumps(schema, ensure_ascii=False)}")
    for tool in spec.tools:
        arguments = ", ".join(tool.parameters.get("properties", {}))
        write(f"tool           {tool.name}({arguments}): {tool.description}")
    if task is not None:
        write(f"\nexample task   {task.id} (difficulty {task.difficulty:.2f})")
        write(task.instruction)


def _splits(spec: EnvSpec, separator: str = ", ") -> str:
    return separator.join(f"{split.name} {'∞' if split.size is None else split.size}" for split in spec.splits)


def _plain(model: EnvSpec | Task) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _write_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
