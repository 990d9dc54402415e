"""Read and write JSON bodies: bounded, parsed straight into the wire models, answered as ready bytes.

FastAPI's own body handling is not used: it reads without a bound, lets lone surrogates through and validates twice.
"""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import ValidationError

from turnwise_envs.types import Noun
from turnwise_server.problems import validation_detail
from turnwise_server.refusal import Refusal

N = TypeVar("N", bound=Noun)


async def read(request: Request, model: type[N], max_body: int) -> N:
    """The request's body as ``model``; nesting is bounded by the parser (200 levels).

    Raises:
        Refusal: payload-too-large, or invalid-request with one line that says where and what.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refusal("invalid-request", f"content-type must be application/json, not {content_type!r}")
    chunks = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_body:
            raise Refusal("payload-too-large", f"the body is larger than {max_body} bytes")
        chunks.append(chunk)
    try:
        return model.model_validate_json(b"".join(chunks), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise Refusal("invalid-request", validation_detail(errors)) from None


def answer(noun: Noun, status: int = 200) -> Response:
    return Response(noun.model_dump_json(), status, media_type="application/json")


def json_body(model: type[Noun]) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that reads ``model``."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
