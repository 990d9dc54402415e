"""Errors of the trainer room, one tree under :class:`turnwise_envs.errors.TurnwiseError`.

TrainerError
├── ConfigError      a setting is unknown, has no effect, or has a value that does not fit
├── ObjectiveError   an entry or preset is written wrongly, or returned something of the wrong shape
├── ModelError       a checkpoint cannot be loaded, or a model is not of a supported kind
├── ImitationError   there is nothing to imitate
└── RunError         a run directory is in use, is not one, or does not hold what a resume needs
"""

from __future__ import annotations

from turnwise_envs.errors import TurnwiseError


class TrainerError(TurnwiseError):
    """Base of the errors that the trainer raises on purpose."""


class ConfigError(TrainerError):
    """A setting is unknown, has no effect, or has a value that does not fit. The text starts with its path."""


class ObjectiveError(TrainerError):
    """An entry or preset is written wrongly, or returned something of the wrong shape. The text names it."""


class ModelError(TrainerError):
    """A checkpoint cannot be loaded, or a model is not of a supported kind."""


class RunError(TrainerError):
    """A run directory is in use, is not one, or does not hold what a resume needs."""


class ImitationError(TrainerError):
    """There is nothing to imitate: the environment has no expert."""
