"""Find environments: installed ones by entry point (group ``turnwise.envs``), any other by import path.

What an adapter makes (group ``turnwise.adapters``) is named by the adapter and its arguments: see :mod:`.adapters`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from turnwise_envs.environment import Environment
from turnwise_envs.errors import UnknownEnvironment

ENTRY_POINT_GROUP = "turnwise.envs"
ADAPTER_GROUP = "turnwise.adapters"
_registered: dict[str, type[Environment]] = {}


def register(cls: type[Environment]) -> type[Environment]:
    """Make a class known in this process under its ``spec.id`` (usable as a decorator)."""
    _registered[cls.spec.id] = cls
    return cls


def installed() -> list[str]:
    """Ids of all environments that can be made by id, sorted."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)} | set(_registered))


def adapters() -> list[str]:
    """Names of the installed adapters, sorted."""
    return sorted({point.name for point in entry_points(group=ADAPTER_GROUP)})


def load(env_id: str, arguments: Mapping[str, str] | None = None) -> type[Environment]:
    """The class behind an id (``household``), an import path (``mypackage.worlds:Maze``), or an adapter's name.

    ``gymnasium:FrozenLake-v1`` calls the adapter ``gymnasium`` with the rest of the name, and with ``arguments``.

    Raises:
        UnknownEnvironment: with the ids that exist, or what went wrong in importing it.
    """
    name, _, rest = env_id.partition(":")
    for point in entry_points(group=ADAPTER_GROUP):
        if point.name == name and env_id not in _registered:
            return _adapted(point, rest, arguments or {})
    if arguments:
        options = ", ".join(f"--{option}" for option in arguments)
        raise UnknownEnvironment(f"environment {env_id!r} takes no options, but was given {options}")
    if env_id in _registered:
        return _registered[env_id]
    if ":" in env_id:
        return _checked(env_id, _import(env_id))
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == env_id:
            return _checked(env_id, _loaded(point))
    known = ", ".join(installed()) or "none"
    raise UnknownEnvironment(
        f"no environment {env_id!r}; installed: {known}. A class that is not installed is named module:Class"
    )


def read(words: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Environments on a command line, each with the options that follow it: ``mcp --command "npx x" household``.

    Raises UnknownEnvironment for an option without a value, or before any environment.
    """
    found: list[tuple[str, dict[str, str]]] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            found.append((word, {}))
            continue
        option, equals, value = word.removeprefix("--").partition("=")
        if not found:
            raise UnknownEnvironment(f"no such option: --{option} (options of an environment come after its name)")
        given = value if equals else next(rest, None)
        if given is None:
            raise UnknownEnvironment(f"--{option} needs a value")
        found[-1][1][option.replace("-", "_")] = given
    return found


def load_one(words: Sequence[str]) -> type[Environment]:
    """The one environment that these words of a command line name. Raises UnknownEnvironment."""
    named = read(words)
    if len(named) != 1:
        raise UnknownEnvironment(f"one environment at a time, not {len(named)}: {' '.join(words)}")
    return load(*named[0])


def make(env_id: str) -> Environment:
    """A fresh environment, not yet reset. Raises UnknownEnvironment."""
    return load(env_id)()


def _adapted(point: EntryPoint, rest: str, arguments: Mapping[str, str]) -> type[Environment]:
    adapter: Callable[..., object] = _loaded(point)
    try:
        made = adapter(*([rest] if rest else []), **arguments)
    except UnknownEnvironment:
        raise
    except ImportError as error:
        extra = f"pip install 'turnwise[{', '.join(point.extras)}]'" if point.extras else "see its documentation"
        raise UnknownEnvironment(f"environment {point.name}:{rest} needs a package: {error}; {extra}") from error
    except Exception as error:  # whatever a plug-in does, it is this plug-in's fault
        raise UnknownEnvironment(
            f"environment {point.name}:{rest} cannot be made: {type(error).__name__}: {error}"
        ) from error
    return _checked(f"{point.name}:{rest}", made)


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:  # whatever a plug-in does when it is imported, it is this plug-in's fault
        raise _unimportable(point.name, error) from error


def _import(path: str) -> object:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise _unimportable(path, error) from error


def _unimportable(env_id: str, error: Exception) -> UnknownEnvironment:
    return UnknownEnvironment(f"environment {env_id!r} cannot be imported: {type(error).__name__}: {error}")


def _checked(env_id: str, found: object) -> type[Environment]:
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise UnknownEnvironment(f"{env_id!r} is {found!r}, not a subclass of turnwise_envs.Environment")
    return found
