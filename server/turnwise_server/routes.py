"""The HTTP surface, v1: each route reads its request, asks the store, and writes the answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from turnwise_envs.errors import UnknownTask
from turnwise_envs.types import EnvSpec, Reference
from turnwise_envs.wire import (
    CreateRequest,
    EnvPage,
    FinishRequest,
    ForkRequest,
    ForkView,
    HistoryView,
    SessionPage,
    SessionView,
    Status,
    StepRequest,
    StepView,
    TaskPage,
)
from turnwise_server.auth import Caller
from turnwise_server.bodies import answer, json_body, read
from turnwise_server.problems import refusals
from turnwise_server.refusal import Refusal
from turnwise_server.session import Intent, Session
from turnwise_server.store import SessionStore

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1")

#: What a call on an existing session can be refused with.
GONE = ("not-found", "session-expired", "session-deleted")
#: What a call with a body can be refused with.
BODY = ("invalid-request", "payload-too-large")


class Window(BaseModel):
    """Paging of a list."""

    model_config = ConfigDict(extra="forbid")

    offset: int = Field(default=0, ge=0, le=2**53)
    limit: int = Field(default=100, ge=0, le=1000)


class SessionQuery(Window):
    status: Status | None = None


class TaskQuery(Window):
    split: str = "train"


# Routes are tried in order: the hot one comes first.
@router.post(
    "/sessions/{session_id}/step",
    response_model=StepView,
    responses=refusals("turn-conflict", "turn-ahead", "session-done", "env-failed", *GONE, *BODY),
    openapi_extra=json_body(StepRequest),
)
async def step(request: Request, session_id: str) -> Response:
    """Take turn ``turn``, once: sent again, it answers with what happened."""
    session = _session(request, session_id)
    body = await read(request, StepRequest, _max_body(request))
    return answer(await session.submit(Intent.step(body.turn, body.action)))


@router.get("/envs", response_model=EnvPage, responses=refusals())
async def list_envs(request: Request) -> Response:
    """The environments served here."""
    specs = [env_class.spec for env_class in _store(request).envs.values()]
    return answer(EnvPage(items=specs, total=len(specs)))


@router.get("/envs/{env}", response_model=EnvSpec, responses=refusals("unknown-env"))
async def get_env(request: Request, env: str) -> Response:
    """What an environment is and promises."""
    return answer(_store(request).env_class(env).spec)


@router.get(
    "/envs/{env}/tasks",
    response_model=TaskPage,
    responses=refusals("unknown-env", "unknown-task", "invalid-request", "env-failed"),
)
async def list_tasks(request: Request, env: str, query: Annotated[TaskQuery, Query()]) -> Response:
    """The tasks of a split, by index; ``total`` is null for an unbounded split."""
    tasks = _store(request).env_class(env).tasks
    try:
        total = tasks.size(query.split)
        stop = query.offset + query.limit if total is None else min(query.offset + query.limit, total)
        items = []
        for index in range(query.offset, stop):
            items.append(tasks.get(query.split, index))
            await asyncio.sleep(0)  # a task may take a millisecond to build: let others in between
    except UnknownTask as error:
        raise Refusal("unknown-task", str(error)) from error
    except Exception as error:
        logger.exception("listing tasks of %s", env)
        raise Refusal("env-failed", f"{env}: cannot list its tasks ({type(error).__name__})") from error
    return answer(TaskPage(items=items, total=total))


@router.post(
    "/sessions",
    status_code=201,
    response_model=SessionView,
    responses={
        200: {"model": SessionView, "description": "The key was seen before: its session, at its current turn"},
        **refusals(
            "unknown-env",
            "unknown-task",
            "replay-mismatch",
            "session-expired",
            "session-deleted",
            "too-many-sessions",
            "env-failed",
            *BODY,
        ),
    },
    openapi_extra=json_body(CreateRequest),
)
async def create_session(request: Request) -> Response:
    """Open a session, and replay ``actions`` in it."""
    caller = _caller(request)
    store = _store(request)
    session, fresh = await store.create(caller, await read(request, CreateRequest, _max_body(request)))
    return answer(session.view(), 201 if fresh else 200)


@router.get("/sessions", response_model=SessionPage, responses=refusals("invalid-request"))
async def list_sessions(request: Request, query: Annotated[SessionQuery, Query()]) -> Response:
    """One's own sessions, oldest first (scope ``admin``: everybody's)."""
    sessions = _store(request).visible(_caller(request), query.status)
    window = sessions[query.offset : query.offset + query.limit]
    return answer(SessionPage(items=[session.summary() for session in window], total=len(sessions)))


@router.get("/sessions/{session_id}", response_model=SessionView, responses=refusals(*GONE))
async def get_session(request: Request, session_id: str) -> Response:
    """A session at its current turn."""
    return answer(_session(request, session_id).view())


@router.post(
    "/sessions/{session_id}/finish",
    response_model=StepView,
    responses=refusals("turn-conflict", "turn-ahead", "session-done", "env-failed", *GONE, *BODY),
    openapi_extra=json_body(FinishRequest),
)
async def finish(request: Request, session_id: str) -> Response:
    """End the episode before turn ``turn`` and score the state as it is."""
    session = _session(request, session_id)
    body = await read(request, FinishRequest, _max_body(request))
    return answer(await session.submit(Intent.finish(body.turn, body.reason)))


@router.post(
    "/sessions/{session_id}/fork",
    status_code=201,
    response_model=ForkView,
    responses={
        200: {"model": ForkView, "description": "The key was seen before: its sessions, at their current turns"},
        **refusals("not-forkable", "too-many-sessions", "env-failed", *GONE, *BODY),
    },
    openapi_extra=json_body(ForkRequest),
)
async def fork(request: Request, session_id: str) -> Response:
    """Branch off ``count`` sessions at ``at_turn``, all of them or none."""
    parent = _session(request, session_id)
    body = await read(request, ForkRequest, _max_body(request))
    sessions, fresh = await _store(request).fork(_caller(request), parent, body)
    return answer(ForkView(sessions=[session.view() for session in sessions]), 201 if fresh else 200)


@router.get("/sessions/{session_id}/history", response_model=HistoryView, responses=refusals(*GONE))
async def get_history(request: Request, session_id: str) -> Response:
    """The first observation and every step since."""
    return answer(_session(request, session_id).history())


@router.get("/sessions/{session_id}/reference", response_model=Reference, responses=refusals("env-failed", *GONE))
async def get_reference(request: Request, session_id: str) -> Response:
    """What a scorer needs and a policy must not see (scope ``trainer``)."""
    caller = _caller(request, act=False)
    caller.require("trainer")
    episode = _store(request).get(caller, session_id).episode
    try:
        return answer(type(episode.env).tasks.reference(episode.task))
    except Exception as error:
        logger.exception("reference of %s", episode.task.id)
        raise Refusal("env-failed", f"{episode.task.id}: no reference ({type(error).__name__})") from error


@router.delete("/sessions/{session_id}", status_code=204, responses=refusals("not-found"))
async def delete_session(request: Request, session_id: str) -> Response:
    """Give a session up; also the second time."""
    _store(request).delete(_caller(request), session_id)
    return Response(status_code=204)


def _store(request: Request) -> SessionStore:
    store: SessionStore = request.app.state.store
    return store


def _max_body(request: Request) -> int:
    return int(request.app.state.settings.max_body)


def _caller(request: Request, act: bool = True) -> Caller:
    caller: Caller = request.state.caller
    if act:
        caller.require("act")
    return caller


def _session(request: Request, session_id: str) -> Session:
    return _store(request).get(_caller(request), session_id)
