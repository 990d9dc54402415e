"""Calls that are not HTTP requests of their own: find the operation that a method and a path name, and carry it out.

Each passes the desk on its own: it is admitted, counted, timed and logged like a request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

from turnwise_envs.wire import Call, StepRequest
from turnwise_server.bodies import parse_query, validate
from turnwise_server.desk import Desk, Visit
from turnwise_server.log import Intent
from turnwise_server.logs import CURRENT, Note
from turnwise_server.operations import OPERATIONS, Answer, Context, Operation, step
from turnwise_server.problems import problem_document
from turnwise_server.refusal import Refusal

logger = logging.getLogger(__name__)

PREFIX = ("", "v1")
#: Where in a path its parameter stands, if it has one: ``/v1/sessions/{session_id}``.
PARAMETER = 3
#: What carries calls is none itself.
CARRIERS = frozenset({"/v1/batch", "/v1/ws"})


@dataclass(frozen=True)
class NotAllowed(Exception):
    """The path exists, the method on it does not."""

    detail: str


@dataclass
class Carrier:
    """A batch or a socket, which brings calls. ``request_id`` names it in logs, and with a number each call."""

    context: Context
    desk: Desk
    request_id: str
    calls: int = 0

    def begin(self, call: Call, reply: Callable[[Answer], None]) -> bool:
        """Take a step of a session that is at hand, and ``reply`` when that is done, which may be at once.

        It spares the task that :meth:`perform` needs, to which it leaves everything else: False, and nothing was done.
        """
        desk, context = self.desk, self.context
        if desk.tracer is not None:
            return False  # a span is open for as long as a task works on it
        try:
            operation, parameters = find(call.method, _decoded(call.path))
            if operation.function is not step:
                return False
            context.caller.require(operation.scope)
            session = context.store.at_hand(context.caller, parameters[0])
            if session is None or not session.ready:
                return False
            body = validate(StepRequest, call.body)
            intent = Intent.step(body.turn, body.action)
        except (Refusal, NotAllowed):
            return False
        self.calls += 1
        visit = desk.operation(context.caller, f"{self.request_id}.{self.calls}", call.trace)
        visit.name, visit.session_id = operation.name, session.id

        def heard(outcome: bytes | Exception) -> None:
            reply(_outcome(outcome, visit, call))
            visit.leave()

        outside = CURRENT.set(visit)  # of the task that the session makes
        try:
            visit.enter()
        except Refusal as refusal:
            reply(refused(refusal, call.path))
            return True
        try:
            begun = session.begin(intent)
        except Refusal as refusal:
            heard(refusal)
        else:
            if isinstance(begun, bytes):
                heard(begun)
            else:
                begun.tell(heard)
        finally:
            CURRENT.reset(outside)
        return True

    async def perform(self, call: Call) -> Answer:
        """What HTTP would answer to ``call``, in a task of its own; whatever goes wrong is an answer too."""
        self.calls += 1
        path, _, query = call.path.partition("?")
        try:
            with self.desk.operation(self.context.caller, f"{self.request_id}.{self.calls}", call.trace) as note:
                done = await _perform(self.context, call, path, query, note)
                note.status = done.status
                return done
        except Refusal as refusal:
            return refused(refusal, path)


async def _perform(context: Context, call: Call, path: str, query: str, note: Note) -> Answer:
    try:
        operation, parameters = find(call.method, _decoded(path))
        note.name = operation.name
        context.caller.require(operation.scope)
        arguments: list[object] = [*parameters]
        if operation.body is not None:
            arguments.append(validate(operation.body, call.body))
        elif call.body is not None:
            raise Refusal("invalid-request", f"body: {call.method} {path} has none")
        elif operation.query is not None:
            arguments.append(parse_query(operation.query, query))
        return await operation.function(context, *arguments)
    except Refusal as refusal:
        note.refused(refusal)
        return refused(refusal, path)
    except NotAllowed as error:
        return _problem("about:blank", HTTPStatus.METHOD_NOT_ALLOWED, error.detail, path)
    except Exception:
        logger.exception("%s %s", call.method, path)
        return _fault(path)


def _outcome(outcome: bytes | Exception, visit: Visit, call: Call) -> Answer:
    """The answer to a step that ended so, noted in ``visit``."""
    if isinstance(outcome, bytes):
        visit.status = 200
        return Answer(outcome)
    if isinstance(outcome, Refusal):
        visit.refused(outcome)
        return refused(outcome, call.path)
    logger.error("%s %s", call.method, call.path, exc_info=outcome)
    return _fault(call.path)


def _fault(instance: str) -> Answer:
    return _problem("about:blank", 500, "a fault of the server; its log says more", instance)


def refused(refusal: Refusal, instance: str) -> Answer:
    return _problem(refusal.problem, refusal.status, refusal.detail, instance, refusal.retry_after)


def _problem(problem: str, status: int, detail: str, instance: str, retry_after: float | None = None) -> Answer:
    document = problem_document(problem, status, detail, instance, retry_after)
    return Answer(document.model_dump_json(exclude_none=True).encode(), status)


def find(method: str, path: str) -> tuple[Operation, list[str]]:
    """The operation of a decoded path, and the path's parameter if it has one. Raises Refusal, NotAllowed."""
    parts = path.split("/")
    parameters: list[str] = []
    methods = _TABLE.get(tuple(parts))
    if methods is None and len(parts) > PARAMETER and parts[PARAMETER]:
        parameters = [parts[PARAMETER]]
        parts[PARAMETER] = "{}"
        methods = _TABLE.get(tuple(parts))
    if methods is None:
        if path in CARRIERS:
            raise Refusal("invalid-request", f"{path} cannot be called from within a batch or a socket")
        raise Refusal("not-found", f"nothing at {path}")
    try:
        return methods[method], parameters
    except KeyError:
        raise NotAllowed(f"{method} {path}: only {', '.join(methods)}") from None


def _decoded(path: str) -> str:
    return unquote(path) if "%" in path else path


def _table() -> dict[tuple[str, ...], dict[str, Operation]]:
    table: dict[tuple[str, ...], dict[str, Operation]] = {}
    for operation in OPERATIONS:
        parts = ("{}" if part.startswith("{") else part for part in operation.path.split("/")[1:])
        table.setdefault((*PREFIX, *parts), {})[operation.method] = operation
    return table


_TABLE = _table()
