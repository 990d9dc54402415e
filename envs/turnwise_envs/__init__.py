"""Turnwise environments: the nouns of the protocol, what an environment is, and the ones that come with it."""

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
