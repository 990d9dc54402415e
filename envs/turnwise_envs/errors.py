"""Errors of the environment room, one tree.

TurnwiseError
├── UnknownEnvironment     no such environment id or import path
├── UnknownTask            no such split or index
├── InvalidOptions         options that do not fit the environment's schema
├── EnvironmentFault       the environment broke its contract (NaN reward, wrong type, raised an exception)
└── EpisodeDone            a step or finish after the end
"""

from __future__ import annotations


class TurnwiseError(Exception):
    """Base of all errors that Turnwise raises on purpose. Its text says what was wrong and what to do."""


class UnknownEnvironment(TurnwiseError):
    """No environment has this id, or the import path does not lead to one."""


class UnknownTask(TurnwiseError):
    """The environment has no such split, or the split has no such index."""


class InvalidOptions(TurnwiseError):
    """The options do not fit ``EnvSpec.options_schema``."""


class EnvironmentFault(TurnwiseError):
    """The environment itself failed. The turn was not taken and there is no reward."""


class EpisodeDone(TurnwiseError):
    """The episode has ended; nothing more can be done in it."""
