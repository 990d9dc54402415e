"""The HTTP surface, v1, as OpenAPI describes it: one route for each operation, made from the table of operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from turnwise_envs.types import Noun
from turnwise_server.operations import OPERATIONS, Operation, Window
from turnwise_server.problems import refusals

Endpoint = Callable[[Request], Awaitable[Response]]


class Direct(APIRoute):
    """A route whose endpoint takes the request as it is: FastAPI documents it and stays out of its way."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler: Callable[[Request], Any] = self.endpoint
        return handler


def make_router() -> APIRouter:
    """All operations, under ``/v1``."""
    router = APIRouter(prefix="/v1", route_class=Direct)
    for operation in OPERATIONS:
        router.add_api_route(
            operation.path,
            described(operation),
            methods=[operation.method],
            name=operation.name,
            description=operation.function.__doc__,
            status_code=operation.status,
            response_model=operation.answer,
            responses=_responses(operation),
            openapi_extra=_inputs(operation),
        )
    return router


def described(operation: Operation) -> Endpoint:
    """What stands for ``operation`` in OpenAPI; :mod:`turnwise_server.direct` answers before anything comes here."""

    async def answer(request: Request) -> Response:
        raise NotImplementedError(f"{operation.name} is answered in front of the routes")

    return answer


def json_body(model: type[Noun]) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that reads ``model``."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _responses(operation: Operation) -> dict[int | str, dict[str, Any]]:
    known = refusals(*operation.refusals)
    if operation.also is None:
        return known
    return {200: {"model": operation.answer, "description": operation.also}, **known}


def _inputs(operation: Operation) -> dict[str, Any]:
    """The parameters and the body of a route, for its OpenAPI."""
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    if operation.query is not None:
        parameters += _query_parameters(operation.query)
    extra: dict[str, Any] = {"parameters": parameters} if parameters else {}
    return extra if operation.body is None else {**extra, **json_body(operation.body)}


def _query_parameters(model: type[Window]) -> list[dict[str, Any]]:
    properties = model.model_json_schema()["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]


router = make_router()
