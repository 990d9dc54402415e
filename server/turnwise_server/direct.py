"""HTTP requests that are operations, answered without a framework between: for a single step that is most of the cost.

FastAPI's routes describe the same operations for OpenAPI, and answer whatever is not found here: other pages, and paths
and methods that do not exist.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from turnwise_server.bodies import parse, parse_query, read_body
from turnwise_server.dispatch import NotAllowed, find
from turnwise_server.operations import Answer, Context, Operation
from turnwise_server.refusal import Refusal
from turnwise_server.settings import Settings
from turnwise_server.store import SessionStore

_JSON = (b"content-type", b"application/json")


class DirectOperations:
    """An ASGI middleware; a :class:`~turnwise_server.refusal.Refusal` leaves it as such."""

    def __init__(self, app: ASGIApp, settings: Settings, store: SessionStore) -> None:
        self._app = app
        self._max_body = settings.max_body
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _operation(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        operation, parameters = found
        scope["route"] = operation
        await _send(await self._perform(operation, parameters, scope, receive), send)

    async def _perform(self, operation: Operation, parameters: list[str], scope: Scope, receive: Receive) -> Answer:
        caller = scope["state"]["caller"]
        caller.require(operation.scope)
        arguments: list[object] = [*parameters]
        if operation.body is not None:
            arguments.append(parse(operation.body, await read_body(scope["headers"], receive, self._max_body)))
        elif operation.query is not None:
            arguments.append(parse_query(operation.query, scope["query_string"].decode("latin-1")))
        return await operation.function(Context(self._store, caller), *arguments)


def _operation(scope: Scope) -> tuple[Operation, list[str]] | None:
    if scope["type"] != "http":
        return None
    try:
        return find(scope["method"], scope["path"])
    except (Refusal, NotAllowed):
        return None


async def _send(answer: Answer, send: Send) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(answer.body))] if answer.body else []
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
