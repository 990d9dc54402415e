"""``turnwise play``: a person is the policy, in process and in the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Annotated

import typer

from turnwise_envs import registry
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.errors import InvalidOptions
from turnwise_envs.types import Action, JsonObject, StepResult, ToolCall

app = typer.Typer()

NO_HINT = "no hint: this environment has no expert, or the expert believes that it is done"
SPECIAL = """\
  :actions           what can be done now
  :hint              what an expert would do
  :call NAME {json}  call a tool, for example  :call search {"query": "Ada Lovelace"}
  :quit              end the episode here (so does the end of the input)
Anything else is the action, as a model would write it."""


@app.command(context_settings={"ignore_unknown_options": True})  # options of an adapter follow its name
def play(
    env: Annotated[
        list[str],
        typer.Argument(
            metavar="ENV",
            help="An id or an adapter with its options (see `turnwise envs`), or module:Class of the current directory.",
        ),
    ],
    split: Annotated[str, typer.Option(help="Task split.")] = "train",
    index: Annotated[int, typer.Option(help="Task index; it alone fixes the initial world.")] = 0,
    seed: Annotated[int, typer.Option(help="Drives whatever is random after the start.")] = 0,
    options: Annotated[str, typer.Option(help="Options of the environment, as a JSON object.")] = "{}",
) -> None:
    """Play an environment yourself: type actions, see observations and rewards.

    \b
    Example:
      turnwise play household --split train --index 3
      turnwise play household --options '{"max_turns": 5}'
      printf 'look\\n:hint\\n:quit\\n' | turnwise play household
    """
    env_class = registry.load_one(env)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  line editing and history for input()
    with contextlib.suppress(AttributeError):
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]  # bytes that are not UTF-8 are no crash
    # The loop runs only while the environment works, so that Ctrl-C at the prompt is an ordinary interrupt.
    with asyncio.Runner() as runner:
        episode = runner.run(LiveEpisode.start(env_class, split, index, seed, parse_options(options)))
        try:
            _introduce(episode)
            while not episode.done:
                line = _read()
                if line is None or line == ":quit":
                    runner.run(episode.finish("quit"))
                elif line.startswith(":") and not line.startswith(":call"):
                    typer.echo(_answer(line, episode))
                elif line:
                    action = _parse_call(line, episode.turn) if line.startswith(":call") else Action(text=line)
                    if action is not None:
                        _show(episode, runner.run(episode.step(action)))
            _conclude(episode)
        finally:
            runner.run(episode.close())


def parse_options(text: str) -> JsonObject:
    """The option ``--options``. Raises InvalidOptions."""
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InvalidOptions(f"--options is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise InvalidOptions(f'--options must be a JSON object such as {{"max_turns": 5}}, not {text}')
    return options


def _read() -> str | None:
    """One line from the person, None at the end of the input."""
    try:
        return input("> ").strip()
    except EOFError:
        typer.echo()
        return None


def _answer(command: str, episode: LiveEpisode) -> str:
    """What a special command shows; none of them takes a turn."""
    if command == ":actions":
        actions = episode.observation.admissible_actions
        return "this environment does not list its actions" if actions is None else "\n".join(actions)
    if command == ":hint":
        expert = episode.env.expert_action()
        return NO_HINT if expert is None else "\n".join(_words(expert))
    return SPECIAL


def _words(action: Action) -> list[str]:
    calls = [f":call {call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in action.tool_calls]
    return ([action.text] if action.text else []) + calls


def _parse_call(line: str, turn: int) -> Action | None:
    """``:call NAME {json}`` as an action, or None after saying what is wrong with it."""
    _, _, rest = line.partition(" ")
    name, _, arguments_text = rest.strip().partition(" ")
    try:
        arguments = json.loads(arguments_text.strip() or "{}")
    except ValueError as error:
        typer.echo(f"the arguments are not JSON: {error}")
        return None
    if not name or not isinstance(arguments, dict):
        typer.echo('write it as  :call NAME {"argument": "value"}')
        return None
    return Action(tool_calls=[ToolCall(id=f"c{turn}_0", name=name, arguments=arguments)])


def _introduce(episode: LiveEpisode) -> None:
    typer.echo(episode.initial.text)
    for tool in episode.env.spec.tools:
        typer.echo(f"tool {tool.name}({', '.join(tool.parameters.get('properties', {}))}): {tool.description}")
    typer.secho(
        f"\n{episode.task.id}, seed {episode.seed}, at most {episode.max_turns} turns. :help for help.", dim=True
    )


def _show(episode: LiveEpisode, result: StepResult) -> None:
    typer.echo(result.observation.text)
    facts = [f"turn {episode.turn}/{episode.max_turns}", f"reward {result.reward:g}"]
    facts += ["" if result.info.action_valid else "not understood"]
    facts += ["no effect"] if result.info.action_valid and not result.info.action_effective else []
    typer.secho(", ".join(filter(None, facts)), dim=True)


def _conclude(episode: LiveEpisode) -> None:
    total = sum(record.result.reward for record in episode.records)
    last = episode.records[-1].result
    end = last.info.end or ("terminated" if last.terminated else "truncated")
    typer.secho(f"The episode ended after {episode.turn} turns: {end}. Total reward {total:g}.", bold=True)
