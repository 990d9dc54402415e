"""What every request passes first: the host check and the token, and what every answer leaves with.

A plain ASGI middleware, because it stands on the hot path and because sockets pass it too: at their handshake, where a
refusal is an HTTP answer as well.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise_envs.wire import PROTOCOL_VERSION
from turnwise_server.auth import Tokens
from turnwise_server.problems import problem_response, refused
from turnwise_server.refusal import Refusal
from turnwise_server.settings import Settings

logger = logging.getLogger(__name__)

#: Answered to anybody: probes carry no token and arrive under any name.
PROBES = frozenset({"/healthz", "/readyz"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Gate:
    """Puts the :class:`~turnwise_server.auth.Caller` into ``request.state.caller``, or refuses."""

    def __init__(self, app: ASGIApp, settings: Settings, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens
        host = settings.host.lower()
        # Off loopback every call carries a token, which a page that rebinds its name to us does not have.
        self._hosts = LOOPBACK_NAMES | {f"[{host}]" if ":" in host else host} if settings.on_loopback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._admit_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-turnwise-protocol"] = PROTOCOL_VERSION
            await send(message)

        try:
            if path not in PROBES:
                self._admit(scope)
            await self._app(scope, receive, send_marked)
        except Refusal as refusal:
            await refused(refusal, path)(scope, receive, send_marked)
        except Exception:
            logger.exception("%s %s", scope["method"], path)
            if started:
                raise
            failure = problem_response("about:blank", 500, "a fault of the server; its log says more", path)
            await failure(scope, receive, send_marked)

    def _admit(self, scope: Scope) -> None:
        """Put the caller into the scope. Raises Refusal ``unauthorized``, ``forbidden``."""
        headers = Headers(scope=scope)
        self._check_host(headers.get("host", ""))
        scope.setdefault("state", {})["caller"] = self._tokens.caller(headers.get("authorization"))

    async def _admit_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope)
            headers = Headers(scope=scope)
            _check_origin(headers.get("origin"), headers.get("host", ""))
        except Refusal as refusal:
            response = refused(refusal, scope["path"])
            response.headers["x-turnwise-protocol"] = PROTOCOL_VERSION
            await receive()  # the handshake
            await _deny(scope, response, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        """Raises Refusal ``forbidden`` for a name that is not ours: the mark of DNS rebinding."""
        if self._hosts is None:
            return
        name = host.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        if name not in self._hosts:
            raise Refusal("forbidden", f"this server is not called {host!r}; use {', '.join(sorted(self._hosts))}")


def _check_origin(origin: str | None, host: str) -> None:
    """A browser lets any page open a socket to us and says where the page is from; only our own may.

    Raises Refusal ``forbidden``.
    """
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise Refusal("forbidden", f"a page of {origin!r} may not open a socket here")


async def _deny(scope: Scope, response: Response, receive: Receive, send: Send) -> None:
    """Answer a handshake with ``response``; a server that cannot do that just says 403."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close"})
