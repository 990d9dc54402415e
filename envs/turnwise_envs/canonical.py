"""Canonical bytes and the running hash of a history (protocol.md, "The hash of a history").

``canonical(x)`` is RFC 8785 (JCS). Two ends that hold the same ``log_hash`` hold the same history.
"""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785
from pydantic import BaseModel

from turnwise_envs.types import Action, JsonObject, Observation, StepResult


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value or a model (defaults filled in).

    Raises:
        ValueError: the value has a lone surrogate, an integer beyond 2^53, NaN, or is not JSON.
    """
    # Not mode="json": that would turn NaN into null instead of letting it be refused.
    plain = value.model_dump() if isinstance(value, BaseModel) else value
    try:
        return rfc8785.dumps(plain)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"not canonical JSON: {error}") from error


def initial_hash(
    env: str, env_version: str, task_id: str, seed: int, options: JsonObject, observation: Observation
) -> str:
    """h_0: the identity of the episode and its first observation."""
    head = {
        "env": env,
        "env_version": env_version,
        "task id": task_id,
        "seed": seed,
        "options": options,
        "observation": observation.model_dump(),
    }
    return hashlib.sha256(canonical(head)).hexdigest()


def next_hash(previous: str, action: Action | None, result: StepResult) -> str:
    """h_k from h_{k-1}; ``action`` is None for a finish."""
    link = {
        "action": None if action is None else action.model_dump(),
        **result.model_dump(),
    }
    return hashlib.sha256(previous.encode("ascii") + canonical(link)).hexdigest()
