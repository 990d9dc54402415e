"""Errors of the trainer room, one tree under :class:`turnwise_envs.errors.TurnwiseError`.

TrainerError
├── ConfigError      a setting is unknown, has no effect, or has a value that does not fit
└── ObjectiveError   an entry or preset is written wrongly, or returned something of the wrong shape
"""

from __future__ import annotations

from turnwise_envs.errors import TurnwiseError


class TrainerError(TurnwiseError):
    """Base of the errors that the trainer raises on purpose."""


class ConfigError(TrainerError):
    """A setting is unknown, has no effect, or has a value that does not fit. The text starts with its path."""


class ObjectiveError(TrainerError):
    """An entry or preset is written wrongly, or returned something of the wrong shape. The text names it."""
