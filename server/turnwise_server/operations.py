"""Every operation of the v1 protocol, once: HTTP routes, batches and sockets all end here. No HTTP in here.

An operation is a function of who asks (:class:`Context`), the path's parameter if it has one, and the body or the query,
already validated. What it may answer and refuse with stands beside it in :data:`OPERATIONS`, from which the routes and
their OpenAPI are made.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from turnwise_envs.errors import UnknownTask
from turnwise_envs.types import EnvSpec, Noun, Reference
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
from turnwise_server.auth import Caller, Scope
from turnwise_server.log import Intent
from turnwise_server.refusal import Refusal
from turnwise_server.store import SessionStore

logger = logging.getLogger(__name__)

#: What a call on an existing session can be refused with.
GONE = ("not-found", "session-expired", "session-deleted", "too-many-sessions")
#: What a call with a body can be refused with.
BODY = ("invalid-request", "payload-too-large")
#: What going on with a session can be refused with, if it has to be brought back first.
BACK = ("session-lost", "version-mismatch", "journal-full", "env-failed")
#: What a turn can be refused with.
TURN = ("turn-conflict", "turn-ahead", "session-done", "step-indeterminate", *BACK, *GONE, *BODY)


class Window(BaseModel):
    """Paging of a list."""

    model_config = ConfigDict(extra="forbid")

    offset: int = Field(default=0, ge=0, le=2**53)
    limit: int = Field(default=100, ge=0, le=1000)


class SessionQuery(Window):
    status: Status | None = None


class TaskQuery(Window):
    split: str = "train"


@dataclass(frozen=True)
class Context:
    """Who asks, and of which sessions."""

    store: SessionStore
    caller: Caller


class Answer(NamedTuple):
    """``body`` is JSON, empty where there is nothing to say (204); ``status`` is that of HTTP."""

    body: bytes
    status: int = 200


def answer(noun: Noun, status: int = 200) -> Answer:
    return Answer(noun.model_dump_json().encode(), status)


async def step(context: Context, session_id: str, body: StepRequest) -> Answer:
    """Take turn ``turn``, once: sent again, it answers with what happened."""
    session = await context.store.get(context.caller, session_id)
    return Answer(await session.take(Intent.step(body.turn, body.action)))


async def finish(context: Context, session_id: str, body: FinishRequest) -> Answer:
    """End the episode before turn ``turn`` and score the state as it is."""
    session = await context.store.get(context.caller, session_id)
    return Answer(await session.take(Intent.finish(body.turn, body.reason)))


async def create_session(context: Context, body: CreateRequest) -> Answer:
    """Open a session, and replay ``actions`` in it."""
    session, fresh = await context.store.create(context.caller, body)
    return answer(session.view(), 201 if fresh else 200)


async def fork(context: Context, session_id: str, body: ForkRequest) -> Answer:
    """Branch off ``count`` sessions at ``at_turn``, all of them or none."""
    parent = await context.store.get(context.caller, session_id)
    sessions, fresh = await context.store.fork(context.caller, parent, body)
    return answer(ForkView(sessions=[session.view() for session in sessions]), 201 if fresh else 200)


async def get_session(context: Context, session_id: str) -> Answer:
    """A session at its current turn."""
    session = await context.store.get(context.caller, session_id)
    return answer(session.view())


async def get_history(context: Context, session_id: str) -> Answer:
    """The first observation and every step since."""
    session = await context.store.get(context.caller, session_id)
    return Answer(session.history())


async def get_reference(context: Context, session_id: str) -> Answer:
    """What a scorer needs and a policy must not see (scope ``trainer``)."""
    session = await context.store.get(context.caller, session_id)
    try:
        return answer(await context.store.host.reference(session.env_class, session.task))
    except Exception as error:
        logger.exception("reference of %s", session.task.id)
        raise Refusal("env-failed", f"{session.task.id}: no reference ({type(error).__name__})") from error


async def delete_session(context: Context, session_id: str) -> Answer:
    """Give a session up; also the second time."""
    await context.store.delete(context.caller, session_id)
    return Answer(b"", 204)


async def list_sessions(context: Context, query: SessionQuery) -> Answer:
    """One's own sessions, oldest first (scope ``admin``: everybody's)."""
    return answer(await context.store.page(context.caller, query.status, query.offset, query.limit))


async def list_envs(context: Context) -> Answer:
    """The environments served here."""
    specs = [env_class.spec for env_class in context.store.envs.values()]
    return answer(EnvPage(items=specs, total=len(specs)))


async def get_env(context: Context, env: str) -> Answer:
    """What an environment is and promises."""
    return answer(context.store.env_class(env).spec)


async def list_tasks(context: Context, env: str, query: TaskQuery) -> Answer:
    """The tasks of a split, by index; ``total`` is null for an unbounded split."""
    env_class = context.store.env_class(env)
    try:
        page = await context.store.host.tasks(env_class, query.split, query.offset, query.limit)
    except UnknownTask as error:
        raise Refusal("unknown-task", str(error)) from error
    except Exception as error:
        logger.exception("listing tasks of %s", env)
        raise Refusal("env-failed", f"{env}: cannot list its tasks ({type(error).__name__})") from error
    return answer(page)


@dataclass(frozen=True)
class Operation:
    """One line of the protocol.

    ``path`` is below ``/v1`` and has at most one parameter, in braces. ``status`` is that of success; ``also`` says what
    200 means where that is a second one.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    function: Callable[..., Awaitable[Answer]]
    answer: type[Noun] | None
    refusals: tuple[str, ...] = ()
    status: int = 200
    also: str | None = None
    body: type[Noun] | None = None
    query: type[Window] | None = None
    scope: Scope = "act"

    @property
    def name(self) -> str:
        return self.function.__name__


#: The hot one comes first: routes are tried in order.
OPERATIONS = (
    Operation("POST", "/sessions/{session_id}/step", step, StepView, TURN, body=StepRequest),
    Operation("GET", "/envs", list_envs, EnvPage),
    Operation("GET", "/envs/{env}", get_env, EnvSpec, ("unknown-env",)),
    Operation(
        "GET",
        "/envs/{env}/tasks",
        list_tasks,
        TaskPage,
        ("unknown-env", "unknown-task", "invalid-request", "env-failed"),
        query=TaskQuery,
    ),
    Operation(
        "POST",
        "/sessions",
        create_session,
        SessionView,
        (
            "unknown-env",
            "unknown-task",
            "replay-mismatch",
            "session-expired",
            "session-deleted",
            "too-many-sessions",
            "journal-full",
            "env-failed",
            *BODY,
        ),
        status=201,
        also="The key was seen before: its session, at its current turn",
        body=CreateRequest,
    ),
    Operation("GET", "/sessions", list_sessions, SessionPage, ("invalid-request",), query=SessionQuery),
    Operation("GET", "/sessions/{session_id}", get_session, SessionView, GONE),
    Operation("POST", "/sessions/{session_id}/finish", finish, StepView, TURN, body=FinishRequest),
    Operation(
        "POST",
        "/sessions/{session_id}/fork",
        fork,
        ForkView,
        ("not-forkable", *BACK, *GONE, *BODY),
        status=201,
        also="The key was seen before: its sessions, at their current turns",
        body=ForkRequest,
    ),
    Operation("GET", "/sessions/{session_id}/history", get_history, HistoryView, GONE),
    Operation(
        "GET", "/sessions/{session_id}/reference", get_reference, Reference, ("env-failed", *GONE), scope="trainer"
    ),
    Operation(
        "DELETE",
        "/sessions/{session_id}",
        delete_session,
        None,
        ("not-found", "too-many-sessions", "journal-full"),
        status=204,
    ),
)
