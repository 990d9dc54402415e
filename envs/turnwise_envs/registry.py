"""Find environments: installed ones by entry point (group ``turnwise.envs``), any other by import path."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from turnwise_envs.environment import Environment
from turnwise_envs.errors import UnknownEnvironment

ENTRY_POINT_GROUP = "turnwise.envs"
_registered: dict[str, type[Environment]] = {}


def register(cls: type[Environment]) -> type[Environment]:
    """Make a class known in this process under its ``spec.id`` (usable as a decorator)."""
    _registered[cls.spec.id] = cls
    return cls


def installed() -> list[str]:
    """Ids of all environments that can be made by id, sorted."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)} | set(_registered))


def load(env_id: str) -> type[Environment]:
    """The class behind an id (``household``) or an import path (``mypackage.worlds:Maze``).

    Raises:
        UnknownEnvironment: with the ids that exist, or what went wrong in importing it.
    """
    if env_id in _registered:
        return _registered[env_id]
    if ":" in env_id:
        return _checked(env_id, _import(env_id))
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == env_id:
            try:
                found = point.load()
            except Exception as error:  # whatever a plug-in does when it is imported, it is this plug-in's fault
                raise _unimportable(env_id, error) from error
            return _checked(env_id, found)
    known = ", ".join(installed()) or "none"
    raise UnknownEnvironment(
        f"no environment {env_id!r}; installed: {known}. A class that is not installed is named module:Class"
    )


def make(env_id: str) -> Environment:
    """A fresh environment, not yet reset. Raises UnknownEnvironment."""
    return load(env_id)()


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
