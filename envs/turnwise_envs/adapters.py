"""Adapters: functions that make environments of what others wrote, named with arguments: ``gymnasium:FrozenLake-v1``.

An adapter in full::

    @adapter
    def counter(name: str, *, top: int = 10) -> type[Environment]:
        '''Count to ``top``.'''
        class Counter(Environment):
            spec = EnvSpec(id=f"counter:{name}", ...)
            ...
        return Counter

It is installed under the entry-point group ``turnwise.adapters``. ``turnwise serve counter:small --top 3`` calls
``counter("small", top=3)``. A class that an adapter made remembers by what arguments, so that another process (a worker,
a check) can make it again; so the arguments must say everything, and the same arguments must make the same class.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError, validate_call

from turnwise_envs.environment import Environment
from turnwise_envs.errors import UnknownEnvironment

#: Arguments as JSON has them.
Arguments = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class MadeBy:
    """The adapter and the arguments that a class was made with."""

    module: str
    name: str
    file: str | None
    arguments: Arguments


def adapter(function: Callable[..., type[Environment]]) -> Callable[..., type[Environment]]:
    """Let classes that ``function`` makes be made again elsewhere; the same arguments give the same class.

    Arguments are converted to the annotated types, from strings too. Raises UnknownEnvironment for arguments that do
    not fit.
    """
    checked = validate_call(function)
    made: dict[str, type[Environment]] = {}

    @functools.wraps(function)
    def make(*positional: str, **named: object) -> type[Environment]:
        arguments = _bound(function, positional, named)
        key = json.dumps(arguments, sort_keys=True)
        if key not in made:
            try:
                env_class = checked(**arguments)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                where = "".join(f" --{str(part).replace('_', '-')}" for part in first["loc"][:1])
                raise UnknownEnvironment(f"{function.__name__}{where}: {first['msg']}") from error
            env_class.made_by = MadeBy(
                function.__module__, function.__qualname__, inspect.getsourcefile(function), arguments
            )
            made[key] = env_class
        return made[key]

    return make


def made_by(env_class: type[Environment]) -> MadeBy | None:
    """How an adapter made exactly this class; None for any other class, subclasses of a made one included."""
    made: MadeBy | None = vars(env_class).get("made_by")
    return made


def options_of(adapter: Callable[..., object]) -> list[str]:
    """The names of an adapter's arguments."""
    return list(inspect.signature(adapter).parameters)


def _bound(function: Callable[..., object], positional: tuple[str, ...], named: Mapping[str, object]) -> Arguments:
    try:
        bound = inspect.signature(function).bind(*positional, **named)
    except TypeError as error:
        takes = ", ".join(options_of(function)) or "no arguments"
        raise UnknownEnvironment(f"{function.__name__}: {error}; it takes {takes}") from error
    arguments: dict[str, Any] = dict(bound.arguments)
    for parameter in bound.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:  # options that it hands on are arguments like the others
            arguments |= arguments.pop(parameter.name, {})
    return arguments
