"""The ``turnwise`` command: one root whose subcommands are the entry points of group ``turnwise.commands``.

A room, or anybody's package, adds a command with one line in its metadata, ``train = "package.module:app [extra]"``,
where ``app`` is a Typer app (one with a single command becomes one flat command). Commands are imported when they
run, not when they are listed: their one-line help is read from the source. So ``turnwise --help`` is quick and
works whatever is not installed.

This is also the one place that turns expected errors (:class:`~turnwise_envs.errors.TurnwiseError`), missing
packages and Ctrl-C into one line and an exit code. ``TURNWISE_TRACEBACK=1`` shows such errors in full. Any other
exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from turnwise_envs.errors import TurnwiseError

if TYPE_CHECKING:
    from typer._click import Command, Context

COMMAND_GROUP = "turnwise.commands"


class RootGroup(TyperGroup):
    """All commands that are installed, each behind a :class:`LazyCommand`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for point in sorted(entry_points(group=COMMAND_GROUP), key=lambda point: point.name):
            if point.name not in self.commands:
                self.add_command(LazyCommand(point))

    def invoke(self, ctx: Context) -> Any:
        sys.path.insert(0, str(Path.cwd()))  # `module:Class` names a class in the user's directory, as for `python -m`
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _complain("interrupted")
            raise typer.Exit(130) from None
        except ModuleNotFoundError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            if _traceback_wanted() or not isinstance(command, LazyCommand) or not _is_foreign(error.name):
                raise
            typer.echo(_how_to_install(command.point, error.name or "a package"), err=True)
            raise typer.Exit(1) from None
        except (TurnwiseError, ExceptionGroup) as error:
            expected = _expected(error)
            if _traceback_wanted() or expected is None:
                raise
            _complain(str(expected))
            raise typer.Exit(1) from None


class LazyCommand(TyperCommand):
    """A command known by its entry point, imported at the moment when it is given its arguments."""

    def __init__(self, point: EntryPoint) -> None:
        super().__init__(point.name)
        self.point = point

    def get_short_help_str(self, limit: int = 45) -> str:
        return summary(self.point)

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: Any
    ) -> Context:
        return self.load().make_context(info_name, args, parent=parent, **extra)

    def load(self) -> Command:
        """The real command. Raises whatever its import raises."""
        command = typer.main.get_command(self.point.load())
        command.name = self.name
        # Help looks the same everywhere: plain text, as the root's, without each app's own completion options.
        command.params = [p for p in command.params if p.name not in {"install_completion", "show_completion"}]
        for one in _with_subcommands(command):
            one.rich_markup_mode = None  # type: ignore[attr-defined]
        return command


def summary(point: EntryPoint) -> str:
    """First docstring line of the command behind ``point`` (of its module, if that has several commands).

    It is read from the source: nothing is imported.
    """
    source = _source(point.module)
    if source is None:
        return ""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    commands = [node for node in tree.body if isinstance(node, ast.FunctionDef) and _is_command(node)]
    text = ast.get_docstring(commands[0] if len(commands) == 1 else tree) or ""
    return text.partition("\n")[0].strip()


def _source(module: str) -> Path | None:
    """The file of ``module``; only its top package is looked up, and nothing is imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    base = Path(spec.origin)
    if rest:
        base = base.parent.joinpath(*rest)
        base = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return base if base.is_file() and base.suffix == ".py" else None


def _is_command(node: ast.FunctionDef) -> bool:
    """Whether ``node`` is decorated with ``@app.command(...)``."""
    calls = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return any(isinstance(call, ast.Attribute) and call.attr == "command" for call in calls)


def _with_subcommands(command: Command) -> Iterator[Command]:
    yield command
    if isinstance(command, TyperGroup):
        for child in command.commands.values():
            yield from _with_subcommands(child)


def _expected(error: TurnwiseError | ExceptionGroup[Any]) -> TurnwiseError | None:
    """The first of the expected errors, or None if any of the group is something else (a bug)."""
    if isinstance(error, TurnwiseError):
        return error
    found = [_expected(e) if isinstance(e, TurnwiseError | ExceptionGroup) else None for e in error.exceptions]
    return None if None in found else found[0]


def _is_foreign(module: str | None) -> bool:
    return module is not None and not module.startswith("turnwise_")


def _how_to_install(point: EntryPoint, module: str) -> str:
    package = module.partition(".")[0]
    if not point.extras:
        return f"turnwise {point.name} needs {package}: pip install {package}"
    distribution = point.dist.name if point.dist else "turnwise"
    return f"turnwise {point.name} needs {package}: pip install '{distribution}[{','.join(point.extras)}]'"


def _traceback_wanted() -> bool:
    return os.environ.get("TURNWISE_TRACEBACK", "0") not in {"", "0"}


def _complain(message: str) -> None:
    typer.echo(f"turnwise: {message}", err=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        from turnwise_envs import __version__

        typer.echo(f"turnwise {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=RootGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train language-model agents against live environments, turn by turn.

    \b
    Example:
      turnwise envs
      turnwise play household
      turnwise COMMAND --help
    """
