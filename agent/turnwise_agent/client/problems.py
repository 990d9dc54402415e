"""From a problem on the wire to the error that a caller catches. Pure."""

from __future__ import annotations

from http import HTTPStatus

import httpx
from pydantic import ValidationError

from turnwise_agent.errors import (
    EnvFailed,
    Forbidden,
    InvalidRequest,
    NotForkable,
    Overloaded,
    ProtocolError,
    ReplayMismatch,
    SessionDone,
    SessionGone,
    StepIndeterminate,
    TurnConflict,
    Unauthorized,
)
from turnwise_envs.wire import PROBLEM_URN, PROBLEMS, Problem

_ERRORS: dict[str, type[ProtocolError]] = {
    "not-found": SessionGone,
    "unknown-env": InvalidRequest,
    "unknown-task": InvalidRequest,
    "invalid-request": InvalidRequest,
    "turn-conflict": TurnConflict,
    "turn-ahead": TurnConflict,
    "session-done": SessionDone,
    "step-indeterminate": StepIndeterminate,
    "replay-mismatch": ReplayMismatch,
    "version-mismatch": ReplayMismatch,
    "not-forkable": NotForkable,
    "session-expired": SessionGone,
    "session-deleted": SessionGone,
    "session-lost": SessionGone,
    "too-many-sessions": Overloaded,
    "journal-full": Overloaded,
    "overloaded": Overloaded,
    "env-failed": EnvFailed,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "payload-too-large": InvalidRequest,
}


def error_for(problem: Problem, request: str) -> ProtocolError:
    """The error of a problem; a type that this client does not know becomes a plain ProtocolError."""
    return _ERRORS.get(problem.type.removeprefix(PROBLEM_URN), ProtocolError)(problem, request)


def read_problem(response: httpx.Response) -> Problem | None:
    """The problem that an error answer carries, None if it is no Turnwise problem (a proxy's page, say)."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        problem = Problem.model_validate_json(response.content, extra="ignore")
    except ValidationError:
        return None
    return problem if problem.type.startswith(PROBLEM_URN) else None


def make_problem(short_type: str, detail: str) -> Problem:
    """A problem that the client itself found, in the form of those that a server sends."""
    status = PROBLEMS[short_type]
    return Problem(type=PROBLEM_URN + short_type, title=HTTPStatus(status).phrase, status=status, detail=detail)
