"""What a client hears when an environment failed, or cannot be brought back."""

from __future__ import annotations

from turnwise_envs.errors import EnvironmentFault
from turnwise_server.refusal import Refusal


def env_failed(what: str, fault: EnvironmentFault) -> Refusal:
    """The refusal for a fault. Its text stays in the server's log: an exception may well quote a gold answer."""
    kind = type(fault.__cause__ or fault).__name__
    return Refusal("env-failed", f"{what}: the environment failed ({kind}); the server's log says more")


def lost(session_id: str, turn: int) -> Refusal:
    return Refusal(
        "session-lost", f"the state of {session_id} at turn {turn} cannot be rebuilt; its history is readable"
    )
