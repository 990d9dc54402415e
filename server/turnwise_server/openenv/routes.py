"""OpenEnv's HTTP routes: what the environment is, its tasks, its tools, and an episode step by step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.routing import Route, WebSocketRoute

from turnwise_envs.environment import Environment
from turnwise_envs.types import Action, JsonObject, Noun
from turnwise_envs.wire import PROBLEMS
from turnwise_server.bodies import parse, read_bytes
from turnwise_server.dispatch import Carrier
from turnwise_server.logs import CURRENT
from turnwise_server.openenv import mcp
from turnwise_server.openenv.frames import Failed, ResetData, WireObservation, WireState, read_action
from turnwise_server.openenv.seat import Seat, Seats
from turnwise_server.openenv.socket import Socket
from turnwise_server.openenv.tasks import Tasks, said
from turnwise_server.operations import Context
from turnwise_server.problems import problem_response

#: Codes of what the client got wrong.
INVALID = ("VALIDATION_ERROR", "INVALID_JSON", "UNKNOWN_TYPE")
STATELESS = (
    "this environment has state, and a request without a session has none: connect to /ws, or POST /reset and pass the "
    "session_id of its metadata as ?session_id="
)


class StepBody(Noun):
    """``timeout_s`` and ``request_id`` are OpenEnv's; steps here have the server's limit and need no id."""

    action: JsonObject
    timeout_s: float | None = None
    request_id: str | None = None


def add_routes(app: FastAPI, served: Mapping[str, type[Environment]]) -> None:
    """OpenEnv's routes for each environment under ``/openenv/{env}``; for a single one at the root as well."""
    seats = Seats()
    for env, env_class in served.items():
        prefixes = [f"/openenv/{env}"] + ([""] if len(served) == 1 else [])
        for prefix in prefixes:
            app.router.routes.extend(_routes(prefix, env_class, seats))


def _routes(prefix: str, env_class: type[Environment], seats: Seats) -> list[Route | WebSocketRoute]:
    view, tasks = View(env_class, seats), Tasks(env_class)
    http: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "/health", view.health),
        ("GET", "/metadata", view.metadata),
        ("GET", "/schema", view.schema),
        ("POST", "/reset", view.reset),
        ("POST", "/step", view.step),
        ("GET", "/state", view.state),
        ("POST", "/mcp", view.mcp),
        ("GET", "/list_environments", tasks.list_environments),
        ("GET", "/{env}/splits", tasks.splits),
        ("POST", "/{env}/tasks", tasks.tasks),
        ("POST", "/{env}/num_tasks", tasks.num_tasks),
        ("POST", "/{env}/task", tasks.task),
        ("POST", "/{env}/task_range", tasks.task_range),
    ]
    return [
        WebSocketRoute(f"{prefix}/ws", Socket(env_class, seats, rpc_only=False)),
        WebSocketRoute(f"{prefix}/mcp", Socket(env_class, seats, rpc_only=True)),
        *(
            Route(prefix + path, endpoint, methods=[method], name=f"openenv{path.replace('/{env}', '')}")
            for method, path, endpoint in http
        ),
    ]


class View:
    """The routes of one environment that are not about tasks."""

    def __init__(self, env_class: type[Environment], seats: Seats) -> None:
        self._env_class = env_class
        self._seats = seats

    async def health(self, request: Request) -> Response:
        """The process answers."""
        return said({"status": "healthy"})

    async def metadata(self, request: Request) -> Response:
        """What the environment is."""
        spec = self._env_class.spec
        unknown = dict.fromkeys(("readme_content", "author", "documentation_url"))
        return said({"name": spec.id, "description": spec.description, "version": spec.version, **unknown})

    async def schema(self, request: Request) -> Response:
        """JSON Schemas of what goes in and comes out."""
        models: dict[str, type[BaseModel]] = {"action": Action, "observation": WireObservation, "state": WireState}
        return said({name: model.model_json_schema() for name, model in models.items()})

    async def reset(self, request: Request) -> Response:
        """A new episode, whose ``session_id`` is in the metadata."""
        data = parse(ResetData, await self._body(request))
        return await self._done(request, lambda seat: seat.reset(data))

    async def step(self, request: Request) -> Response:
        """One action in the session that ``?session_id=`` names."""
        body = parse(StepBody, await self._body(request))

        async def take(seat: Seat) -> JsonObject:
            await _attach(seat, request)
            return await seat.step(read_action(body.action, seat.spec, seat.turn))

        return await self._done(request, take)

    async def state(self, request: Request) -> Response:
        """Where the session that ``?session_id=`` names stands."""

        async def look(seat: Seat) -> JsonObject:
            await _attach(seat, request)
            return await seat.state()

        return await self._done(request, look)

    async def mcp(self, request: Request) -> Response:
        """JSON-RPC; an error is an answer like any other."""
        with self._seat(request) as seat:
            text = await mcp.answer_text(seat, await self._body(request), alone=True)
        return Response(text, media_type="application/json")

    def _seat(self, request: Request) -> Seat:
        note = CURRENT.get()
        assert note is not None, "the gate lets nobody in without one"
        app = request.app.state
        carrier = Carrier(Context(app.store, request.state.caller), app.desk, note.request_id)
        return Seat(self._env_class, carrier, self._seats)

    async def _body(self, request: Request) -> bytes:
        request.state.caller.require("act")
        return await read_bytes(request, request.app.state.settings.max_body)

    async def _done(self, request: Request, work: Callable[[Seat], Awaitable[JsonObject]]) -> Response:
        path = request.url.path
        try:
            with self._seat(request) as seat:
                return said(await work(seat))
        except _Stateless:
            return problem_response("about:blank", HTTPStatus.CONFLICT, STATELESS, path)
        except Failed as error:
            problem = str(error.more.get("problem", "invalid-request" if error.code in INVALID else "about:blank"))
            status = PROBLEMS.get(problem, HTTPStatus.CONFLICT)
            return problem_response(problem, status, error.message, path, error.retry_after)


async def _attach(seat: Seat, request: Request) -> None:
    session_id = request.query_params.get("session_id")
    if session_id is None:
        raise _Stateless
    await seat.attach(session_id)


class _Stateless(Exception):
    """A step or a look without a session."""
