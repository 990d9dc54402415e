"""Refusals as RFC 9457 problem documents, in answers and in the OpenAPI document."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from turnwise_envs.wire import PROBLEM_URN, PROBLEMS, Problem
from turnwise_server.logs import CURRENT
from turnwise_server.refusal import Refusal

PROBLEM_JSON = "application/problem+json"
#: Characters of a detail; a schema violation would otherwise quote a whole body back.
MAX_DETAIL = 500
#: What any call under /v1 can be refused with.
EVERYWHERE = ("unauthorized", "forbidden", "overloaded")


def problem_document(
    problem: str, status: int, detail: str, instance: str, retry_after: float | None = None
) -> Problem:
    """The document of this problem type; ``about:blank`` stands for "just what the status says"."""
    known = problem in PROBLEMS
    line = " ".join(detail.split())
    return Problem(
        type=PROBLEM_URN + problem if known else problem,
        title=problem.replace("-", " ").capitalize() if known else HTTPStatus(status).phrase,
        status=status,
        detail=line if len(line) <= MAX_DETAIL else line[: MAX_DETAIL - 1] + "…",
        instance=instance,
        retry_after=retry_after,
    )


def problem_response(
    problem: str, status: int, detail: str, instance: str, retry_after: float | None = None
) -> Response:
    """:func:`problem_document` as an HTTP answer."""
    body = problem_document(problem, status, detail, instance, retry_after)
    headers = {}
    if retry_after is not None:
        headers["retry-after"] = str(math.ceil(retry_after))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(body.model_dump_json(exclude_none=True), status, headers, PROBLEM_JSON)


def refused(refusal: Refusal, instance: str) -> Response:
    return problem_response(refusal.problem, refusal.status, refusal.detail, instance, refusal.retry_after)


async def on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if (note := CURRENT.get()) is not None:
        note.refused(error)
    return refused(error, request.url.path)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem_response("not-found", error.status_code, f"nothing at {path}", path)
    detail = f"{request.method} {path}: {error.detail}"
    response = problem_response("about:blank", error.status_code, detail, path)
    response.headers.update(error.headers or {})
    return response


async def on_invalid_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return refused(Refusal("invalid-request", validation_detail(error.errors())), request.url.path)


def validation_detail(errors: Sequence[Any]) -> str:
    """One line for a person, where and what: ``action.text: Input should be a valid string (and 2 more)``."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "query") or "body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {first['msg']}{more}"


def refusals(*problems: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI ``responses`` for these problem types and those that can happen everywhere."""
    by_status: dict[int, list[str]] = defaultdict(list)
    for problem in (*EVERYWHERE, *problems):
        by_status[PROBLEMS[problem]].append(problem)
    documented: dict[int | str, dict[str, Any]] = {
        status: {
            "description": " or ".join(f"`{problem}`" for problem in names),
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, names in sorted(by_status.items())
    }
    documented.setdefault(
        500,
        {
            "description": "a fault of the server itself (type `about:blank`)",
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        },
    )
    return documented
