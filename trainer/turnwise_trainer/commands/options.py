"""What several commands need: options from ``key=value`` texts."""

from __future__ import annotations

import json
from typing import Any

from turnwise_trainer.errors import ConfigError


def where_clause(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """``["family=a,b"]`` to ``{"family": ("a", "b")}``. Raises ConfigError."""
    where: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key or not values:
            raise ConfigError(f"--where {text}: write field=value or field=value,value")
        where[key] = tuple(values.split(","))
    return where


def env_options(texts: list[str]) -> dict[str, Any]:
    """``["max_turns=20"]`` to ``{"max_turns": 20}``; values are JSON, or else strings. Raises ConfigError."""
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {text}: write name=value")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options
