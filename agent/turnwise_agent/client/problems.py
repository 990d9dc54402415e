"""From a problem on the wire to the error that a caller catches. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

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

Body = TypeVar("Body", bound=BaseModel)

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


def as_problem(value: object) -> Problem | None:
    """A parsed body as a problem, if it is one."""
    try:
        return Problem.model_validate(value, extra="ignore")
    except ValidationError:
        return None


def make_problem(short_type: str, detail: str) -> Problem:
    """A problem that the client itself found, in the form of those that a server sends."""
    status = PROBLEMS[short_type]
    return Problem(type=PROBLEM_URN + short_type, title=HTTPStatus(status).phrase, status=status, detail=detail)


def make_body(model: type[Body], request: str, **fields: Any) -> Body:
    """A request body. Raises InvalidRequest, as the server would, for fields that make none."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise InvalidRequest(make_problem("invalid-request", first_fault(error)), request) from error


def first_fault(error: ValidationError) -> str:
    """``index: Input should be a valid integer``: the first thing that is wrong, in one line."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
