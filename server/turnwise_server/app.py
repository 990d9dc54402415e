"""The ASGI app: the routes, the gate before them, the sweeper beside them, and the pages about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from turnwise_envs import __version__
from turnwise_envs.environment import Environment
from turnwise_envs.wire import BatchRequest, CreateRequest, FinishRequest, ForkRequest, Problem, StepRequest
from turnwise_server import batch, openenv, ws
from turnwise_server.auth import Token, Tokens
from turnwise_server.desk import Desk
from turnwise_server.direct import DirectOperations
from turnwise_server.gate import Gate
from turnwise_server.journal.journal import Journal
from turnwise_server.metrics import CONTENT_TYPE, Metrics
from turnwise_server.problems import PROBLEM_JSON, on_http_error, on_invalid_query, on_refusal
from turnwise_server.refusal import Refusal
from turnwise_server.routes import router
from turnwise_server.settings import Settings
from turnwise_server.store import SessionStore
from turnwise_server.workers.host import WorkerHost, in_workers
from turnwise_server.workers.pool import WorkerPool

#: Threads for what async environments send off the loop. It mostly waits (files, names), so there are more than cores.
THREADS = 64
REQUESTS = (BatchRequest, CreateRequest, StepRequest, FinishRequest, ForkRequest)


def create_app(
    envs: Sequence[type[Environment]], settings: Settings | None = None, tokens: Iterable[Token] = ()
) -> FastAPI:
    """A service of ``envs``, each under its ``spec.id``. Without settings, they come from ``TURNWISE_*``.

    With ``settings.journal``, the app takes a journal in that directory over, and lets it go when its lifespan ends.

    Raises:
        ValueError: two environments have the same id, or worker processes cannot import one that needs them.
        JournalRefused: the journal cannot be used.
    """
    settings = settings or Settings()
    served = {env_class.spec.id: env_class for env_class in envs}
    if len(served) < len(envs):
        raise ValueError("two environments have the same id: " + ", ".join(cls.spec.id for cls in envs))
    app = FastAPI(
        title="Turnwise",
        version=__version__,
        description="Environments for language-model agents, turn by turn. Protocol v1.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        lifespan=_lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the desk's spans are of operations, not routes
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    app.state.desk = Desk(settings, app.state.metrics)
    journal = None if settings.journal is None else Journal.open(settings.journal, served, settings.sync)
    app.state.workers = WorkerPool(
        [env_class for env_class in envs if in_workers(env_class)],
        settings.workers,
        settings.step_timeout,
        settings.pass_env,
        app.state.metrics.worker_restarts,
    )
    app.state.store = SessionStore(
        served, settings, host=WorkerHost(app.state.workers), journal=journal, metrics=app.state.metrics
    )
    if journal is not None:
        app.state.metrics.watch_journal(lambda: (journal.figures.waiting, journal.figures.lag))
    app.state.ready = False
    app.include_router(router)
    app.include_router(batch.router)
    app.router.routes.append(ws.route)
    app.add_api_route("/healthz", _healthz, include_in_schema=False)
    app.add_api_route("/readyz", _readyz, include_in_schema=False)
    app.add_api_route("/metrics", _metrics, include_in_schema=False)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    openenv.add_routes(app, served)
    app.add_middleware(DirectOperations, settings=settings, store=app.state.store)
    app.add_middleware(Gate, settings=settings, tokens=Tokens(tokens), desk=app.state.desk)
    app.add_exception_handler(Refusal, on_refusal)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid_query)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="environment")
    asyncio.get_running_loop().set_default_executor(pool)
    sweeper = asyncio.create_task(app.state.store.run_sweeper())
    app.state.ready = True
    try:
        yield
    finally:
        app.state.ready = False
        sweeper.cancel()
        await app.state.store.close()
        pool.shutdown(wait=False, cancel_futures=True)


async def _healthz() -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def _readyz(request: Request) -> Response:
    """The server takes sessions: not yet while it starts, no longer while it stops."""
    ready = request.app.state.ready
    return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)


async def _metrics(request: Request) -> Response:
    """What Prometheus collects (scope ``metrics``)."""
    request.state.caller.require("metrics")
    return Response(request.app.state.metrics.page(), media_type=CONTENT_TYPE)


async def _docs() -> Response:
    """A page over /openapi.json that needs nothing from elsewhere."""
    page = files("turnwise_server").joinpath("docs.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(page, headers={"content-security-policy": policy})


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, completed with the bodies that :mod:`turnwise_server.bodies` reads itself."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            separate_input_output_schemas=False,
        )
        _, schemas = models_json_schema(
            [(model, "validation") for model in (*REQUESTS, Problem)],
            ref_template="#/components/schemas/{model}",
        )
        components = document.setdefault("components", {})
        components["schemas"] = {**schemas["$defs"], **components.get("schemas", {})}
        for operation in (operation for methods in document["paths"].values() for operation in methods.values()):
            if PROBLEM_JSON not in operation["responses"].get("422", {"content": PROBLEM_JSON})["content"]:
                del operation["responses"]["422"]  # FastAPI's guess for a path parameter; any text is a valid one
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema
