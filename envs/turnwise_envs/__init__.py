"""Turnwise environments: the nouns of the protocol, what an environment is, and the ones that come with it.

Names are imported on first use, so that ``turnwise --help`` does not pay for pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnwise_envs.environment import Environment, FunctionTaskSet, SyncEnvironment, TaskSet
    from turnwise_envs.errors import (
        EnvironmentFault,
        EpisodeDone,
        InvalidOptions,
        TurnwiseError,
        UnknownEnvironment,
        UnknownTask,
    )
    from turnwise_envs.registry import installed, load, make, register
    from turnwise_envs.types import (
        Action,
        EnvSpec,
        Message,
        Observation,
        Reference,
        SplitSpec,
        StepInfo,
        StepResult,
        Task,
        ToolCall,
        ToolSpec,
    )

__version__ = "0.1.0"

__all__ = [
    "Action",
    "EnvSpec",
    "Environment",
    "EnvironmentFault",
    "EpisodeDone",
    "FunctionTaskSet",
    "InvalidOptions",
    "Message",
    "Observation",
    "Reference",
    "SplitSpec",
    "StepInfo",
    "StepResult",
    "SyncEnvironment",
    "Task",
    "TaskSet",
    "ToolCall",
    "ToolSpec",
    "TurnwiseError",
    "UnknownEnvironment",
    "UnknownTask",
    "__version__",
    "installed",
    "load",
    "make",
    "register",
]

_MODULES = ("errors", "types", "environment", "registry")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in __all__:
            for module in _MODULES:
                found = getattr(import_module(f"{__name__}.{module}"), name, None)
                if found is not None:
                    return globals().setdefault(name, found)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
