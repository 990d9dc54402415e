"""Name an environment's class so that another process can import it: by module, name and file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from turnwise_envs.adapters import Arguments, made_by
from turnwise_envs.environment import Environment


@dataclass(frozen=True)
class Address:
    """Where a class is. ``file`` is for modules that only their loader could find (scripts, pytest's importlib mode).

    With ``arguments`` it is not the class that is there but the adapter that makes it of them.
    """

    module: str
    name: str
    file: str | None
    arguments: Arguments | None = None


def is_local(env_class: type[Environment]) -> bool:
    """The class was made inside a function that is no adapter, where no other process can find it."""
    made = made_by(env_class)
    return "<locals>" in (env_class.__qualname__ if made is None else made.name)


def address(env_class: type[Environment]) -> Address:
    """Where :func:`find` finds the class in a process with the same ``sys.path``; not for a local class."""
    made = made_by(env_class)
    if made is not None:
        return Address(made.module, made.name, made.file, made.arguments)
    try:
        file = inspect.getsourcefile(env_class)
    except TypeError:  # a module without a file, such as an interactive one
        file = None
    return Address(env_class.__module__, env_class.__qualname__, file)


def find(address: Address) -> type[Environment]:
    """The class at ``address``. Raises whatever importing its module raises, and TypeError for anything else there."""
    module, name = address.module, address.name.split(".")
    found: Any
    try:
        if module == "__main__":
            raise ModuleNotFoundError(name=module)
        found = reduce(getattr, name, importlib.import_module(module))
    except (ModuleNotFoundError, AttributeError):
        if not address.file:
            raise
        module = "turnwise_found" if module == "__main__" else module
        spec = importlib.util.spec_from_file_location(module, Path(address.file))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
        found = reduce(getattr, name, sys.modules[module])
    if address.arguments is not None:
        found = found(**address.arguments)
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise TypeError(f"{module}:{address.name} is not an environment")
    return found
