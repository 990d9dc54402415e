"""The ``alfworld`` package: whether it is here, and where its files are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

EXTRA = "turnwise[alfworld]"


def package_folder() -> Path:
    """The folder of the installed ``alfworld`` package. Raises ImportError if it, or its engine, is missing.

    The package is not imported, which would make a folder for data in the user's home.
    """
    for name in ("alfworld", "textworld", "fast_downward"):
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise ImportError(f"No module named {name!r}: pip install '{EXTRA}'", name=name)
        if name == "alfworld":
            folder = Path(found.submodule_search_locations[0])
    return folder
