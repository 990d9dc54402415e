"""OpenEnv's package, importable without what its servers and clients do not use here.

``make install`` puts the package beside the virtual environment without its dependencies. Whoever imports its client or
its server imports Gradio, FastMCP and more as well; they take no part in a reset or a step over a socket, so where they
are missing they are replaced by things that do nothing. What is measured is the package's own code, unchanged.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from unittest.mock import MagicMock

VERSION = "0.10.0"
HOME = Path(sys.prefix) / "openenv" / VERSION
_HEAVY = {
    "fastmcp": ("fastmcp.client", "fastmcp.client.client"),
    "gradio": (),
    "huggingface_hub": (),
    "mcp": ("mcp.types",),
    "openai": (),
    "requests": (),
    "yaml": (),
}


def installed() -> bool:
    return (HOME / "openenv").is_dir()


def prepare() -> None:
    """Make ``import openenv`` work in this process."""
    sys.path.insert(0, str(HOME))
    for package, parts in _HEAVY.items():
        if importlib.util.find_spec(package) is None:
            sys.modules.update({name: MagicMock() for name in (package, *parts)})
