"""What several commands need: options from ``key=value`` texts."""

from __future__ import annotations

import json
from typing import Any

from turnwise_trainer.errors import ConfigError


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
