"""A new environment as an installable package, for ``turnwise new-env``.

The template is a real package, ``example-world``, in which three words stand for the new name: ``example-world`` (what
pip and ``turnwise envs`` call it), ``example_world`` (what Python imports) and ``ExampleWorld`` (the class).
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from turnwise_envs import registry
from turnwise_envs.errors import TurnwiseError

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_TEMPLATE = "example-world"
#: Keeps tools that read our own code from taking the template's for it.
_SUFFIX = ".template"


class CannotScaffold(TurnwiseError):
    """The name cannot be taken, or something is there already."""


def scaffold(name: str, into: Path) -> list[Path]:
    """Write the package ``name`` into the directory ``into``; the files, relative to it.

    Raises CannotScaffold for a name that is taken or is none, and where ``into`` is not empty.
    """
    words = _words(name)
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise CannotScaffold(f"{into} exists and is not an empty directory")
    written = []
    for relative, source in _files(files(__name__) / _TEMPLATE, Path()):
        target = Path(_renamed(relative.as_posix(), words).removesuffix(_SUFFIX))
        (into / target).parent.mkdir(parents=True, exist_ok=True)
        (into / target).write_text(_renamed(source.read_text(encoding="utf-8"), words), encoding="utf-8")
        written.append(target)
    return sorted(written)


def _words(name: str) -> dict[str, str]:
    """The template's words and what they become."""
    if not _NAME.fullmatch(name):
        raise CannotScaffold(
            f"{name!r} is no name for an environment: use lower-case words and dashes, such as my-maze"
        )
    env_id, module = name.replace("_", "-"), name.replace("-", "_")
    if keyword.iskeyword(module) or importlib.util.find_spec(module) is not None:
        raise CannotScaffold(f"there is a Python module {module!r} already: choose another name")
    if env_id in registry.installed() or env_id in registry.adapters():
        raise CannotScaffold(f"there is an environment {env_id!r} already: choose another name")
    class_name = "".join(word.capitalize() for word in module.split("_"))
    return {"example-world": env_id, "example_world": module, "ExampleWorld": class_name}


def _files(folder: Traversable, at: Path) -> Iterator[tuple[Path, Traversable]]:
    for item in folder.iterdir():
        if item.is_file():
            yield at / item.name, item
        elif item.name != "__pycache__":
            yield from _files(item, at / item.name)


def _renamed(text: str, words: dict[str, str]) -> str:
    for word, become in words.items():
        text = text.replace(word, become)
    return text
