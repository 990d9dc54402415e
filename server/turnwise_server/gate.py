"""What every request passes first (host, token, admission), and what every answer leaves with.

A plain ASGI middleware, because it stands on the hot path and because sockets pass it too: at their handshake, where a
refusal is an HTTP answer as well.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise_server.auth import Caller, Tokens
from turnwise_server.desk import Desk, Visit
from turnwise_server.headers import Asked, completed, request_id
from turnwise_server.problems import problem_response, refused
from turnwise_server.refusal import Refusal
from turnwise_server.settings import Settings

logger = logging.getLogger(__name__)

#: Answered to anybody: probes carry no token and arrive under any name.
PROBES = frozenset({"/healthz", "/readyz"})
#: Answered also when there is too much to do, so that somebody can see it.
UNCOUNTED = frozenset({"/metrics"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: Bytes of a body from which on its memory is reserved before it is read; below, the number of operations bounds it.
LARGE = 16 * 1024
#: In metrics and logs, where nginx's number for it is understood.
CLIENT_GONE = 499


class Gate:
    """Puts the :class:`~turnwise_server.auth.Caller` into ``request.state.caller``, or refuses."""

    def __init__(self, app: ASGIApp, settings: Settings, tokens: Tokens, desk: Desk) -> None:
        self._app = app
        self._tokens = tokens
        self._desk = desk
        self._max_body = settings.max_body
        self._on_loopback = settings.on_loopback
        host = settings.host.lower()
        local = LOOPBACK_NAMES | {f"[{host}]" if ":" in host else host} if settings.on_loopback else frozenset()
        self._local_names = local
        # Off loopback every call carries a token, which a page that rebinds its name to us does not have: any name
        # does, unless somebody says which.
        self._hosts = local | settings.allowed_hosts if local or settings.allowed_hosts else None
        self._origins = settings.allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._admit_socket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        known_as = request_id(scope["headers"])
        visit: Visit | None = None
        started = False

        async def send_completed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = completed(message["headers"], known_as)
                if visit is not None:
                    visit.status = message["status"]
            await send(message)

        try:
            if path in PROBES:
                await self._app(scope, receive, send_completed)
                return
            asked, caller = self._identify(scope)
            if path in UNCOUNTED:
                await self._app(scope, receive, send_completed)
                return
            with self._desk.operation(caller, known_as, asked.traceparent) as visit:
                await self._attend(visit, asked, scope, receive, send_completed)
        except Refusal as refusal:
            await refused(refusal, path)(scope, receive, send_completed)
        except Exception:
            logger.exception("%s %s", scope["method"], path)
            if started:
                raise
            failure = problem_response("about:blank", 500, "a fault of the server; its log says more", path)
            await failure(scope, receive, send_completed)

    async def _attend(self, visit: Visit, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        room = self._room(asked, scope["method"])
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            visit.status = CLIENT_GONE  # nobody is left to answer to
        finally:
            self._desk.intake.free(room)
            route = scope.get("route")
            visit.name = "unknown" if route is None else route.name

    async def _admit_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        known_as = request_id(scope["headers"])
        try:
            asked, _ = self._identify(scope)
            self._check_origin(asked)
        except Refusal as refusal:
            response = refused(refusal, scope["path"])
            response.raw_headers = completed(response.raw_headers, known_as)
            await receive()  # the handshake
            await _deny(scope, response, receive, send)
            return
        scope["state"]["request_id"] = known_as
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> tuple[Asked, Caller]:
        """Put the caller into the scope. Raises Refusal ``unauthorized``, ``forbidden``."""
        try:
            asked = Asked(scope["headers"])
            name = self._check_host(asked.host)
            local = self._on_loopback and name in self._local_names and not asked.forwarded
            caller = self._tokens.caller(asked.authorization, local)
        except Refusal as refusal:
            self._desk.metrics.rejections[refusal.problem] += 1
            raise
        scope.setdefault("state", {})["caller"] = caller
        return asked, caller

    def _check_host(self, host: str) -> str:
        """The name in ``host``. Raises Refusal ``forbidden`` for one that is not ours: the mark of DNS rebinding."""
        name = host.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        if self._hosts is not None and name not in self._hosts:
            raise Refusal("forbidden", f"this server is not called {host!r}; use {', '.join(sorted(self._hosts))}")
        return name

    def _check_origin(self, asked: Asked) -> None:
        """A browser lets any page open a socket to us and says where the page is from; only our own may.

        Raises Refusal ``forbidden``.
        """
        origin = asked.origin
        if origin is None or origin.lower() in self._origins:
            return
        try:
            ours = urlsplit(origin).netloc.lower() == asked.host.lower()
        except ValueError:
            ours = False
        if not ours:
            self._desk.metrics.rejections["forbidden"] += 1
            raise Refusal("forbidden", f"a page of {origin!r} may not open a socket here")

    def _room(self, asked: Asked, method: str) -> int:
        """Reserve the bytes of a large body before it is read; give them back to the intake.

        Raises Refusal ``payload-too-large``, ``overloaded``.
        """
        if method != "POST" or (asked.length < LARGE and not asked.chunked):
            return 0
        if asked.length > self._max_body:
            raise Refusal("payload-too-large", f"the body is larger than {self._max_body} bytes")
        size = self._max_body if asked.chunked else asked.length
        self._desk.intake.reserve(size)
        return size


async def _deny(scope: Scope, response: Response, receive: Receive, send: Send) -> None:
    """Answer a handshake with ``response``; a server that cannot do that just says 403."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close"})
