"""Read JSON: bounded, with the strictness of the protocol, and with one line that says what is wrong.

FastAPI's own body handling is not used: it reads without a bound, lets lone surrogates through and validates twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from turnwise_server.headers import Raw
from turnwise_server.problems import validation_detail
from turnwise_server.refusal import Refusal

M = TypeVar("M", bound=BaseModel)

#: Numbers, strings, lists and so on of one body. A long replay has some thousands; a million empty lists fit into a
#: body as well, and would keep the event loop busy for seconds.
MAX_VALUES = 50_000
#: A string of JSON, also one that does not end (so that matching takes linear time whatever comes).
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


async def read_bytes(request: Request, max_body: int) -> bytes:
    """The body of ``request``. Raises like :func:`read_body`."""
    return await read_body(request.scope["headers"], request.receive, max_body)


async def read_body(headers: Sequence[Raw], receive: Receive, max_body: int) -> bytes:
    """The body of an HTTP request.

    Raises:
        Refusal: invalid-request for another content type than JSON, payload-too-large.
        ClientDisconnect: the client hung up before its end.
    """
    _check_is_json(headers)
    chunks = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_body:
            raise Refusal("payload-too-large", f"the body is larger than {max_body} bytes")
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _check_is_json(headers: Sequence[Raw]) -> None:
    given = next((value for name, value in headers if name == b"content-type"), b"").decode("latin-1")
    if given != "application/json" and given.partition(";")[0].strip().lower() != "application/json":
        raise Refusal("invalid-request", f"content-type must be application/json, not {given!r}")


def parse(model: type[M], text: bytes | str) -> M:
    """JSON as ``model``; nesting is bounded by the parser (200 levels). Raises Refusal ``invalid-request``."""
    check_values(text)
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise invalid(error) from None


def check_values(text: bytes | str) -> None:
    """Raises Refusal ``invalid-request`` for more than :data:`MAX_VALUES` values in a text of JSON."""
    if len(text) < MAX_VALUES:
        return
    encoded = text.encode() if isinstance(text, str) else text
    if _openings(encoded) > MAX_VALUES and _openings(_STRING.sub(b"", encoded)) > MAX_VALUES:
        raise Refusal("invalid-request", f"body: more than {MAX_VALUES} values")


def _openings(text: bytes) -> int:
    """Each value but the first comes after one of these."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def validate(model: type[M], value: object) -> M:
    """A value that came out of a JSON parser as ``model``: what :func:`parse` makes of its text.

    Raises Refusal ``invalid-request``.
    """
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        raise invalid(error) from None


def parse_query(model: type[M], query: str) -> M:
    """A query string as ``model``. Raises Refusal ``invalid-request``."""
    try:
        return model.model_validate(dict(parse_qsl(query, keep_blank_values=True)))
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Refusal:
    errors: list[Any] = error.errors(include_url=False, include_context=False, include_input=False)
    return Refusal("invalid-request", validation_detail(errors))
