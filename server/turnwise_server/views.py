"""A session as its clients see it."""

from __future__ import annotations

from turnwise_envs.environment import Environment
from turnwise_envs.types import Observation, StepResult
from turnwise_envs.wire import SessionView, Status
from turnwise_server.log import Log


def session_view(session_id: str, env_class: type[Environment], log: Log, status: Status) -> SessionView:
    """The session at the end of ``log``."""
    begin, spec = log.begin, env_class.spec
    return SessionView(
        session_id=session_id,
        env=log.env,
        env_version=log.env_version,
        seed=begin.seed,
        options=begin.options,
        turn=log.turn,
        task=begin.task,
        tools=spec.tools,
        max_turns=int(begin.options.get("max_turns", spec.max_turns)),
        observation=_observation(log),
        status=status,
        log_hash=log.log_hash,
    )


def _observation(log: Log) -> Observation:
    return StepResult.model_validate_json(log.entries[-1].result).observation if log.entries else log.begin.initial
