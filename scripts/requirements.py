"""Print what the extras of pyproject.toml need, one requirement a line: ``requirements.py server``.

For the Dockerfile: dependencies are installed before the code is there, so that a changed line of code does not install
them again. Needs nothing but Python.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path


def requirements(extras: list[str]) -> list[str]:
    """The requirements of the distribution with these extras; an extra that names others has theirs too."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    own = f"{project['name']}["

    def of(extra: str) -> Iterator[str]:
        for line in optional[extra]:
            if line.startswith(own):
                for other in line.removeprefix(own).partition("]")[0].split(","):
                    yield from of(other.strip())
            else:
                yield line

    return sorted({*project["dependencies"], *(line for extra in extras for line in of(extra))})


if __name__ == "__main__":
    print(*requirements(sys.argv[1:]), sep="\n")
