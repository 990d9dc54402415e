"""The adapter ``wrapped``: ``turnwise serve wrapped:household`` serves the household with the option ``wrappers``."""

from __future__ import annotations

from turnwise_envs import registry
from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment
from turnwise_envs.wrappers import wrap


@adapter
def wrapped(env: str, **options: str) -> type[Environment]:
    """Any environment: an id, ``module:Class``, or another adapter's name with its options."""
    return wrap(registry.load(env, options))
