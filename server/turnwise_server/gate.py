"""What every request passes first: the host check and the token, and what every answer leaves with.

A plain ASGI middleware, because it stands on the hot path and because sockets will pass it too.
"""

from __future__ import annotations

import logging

from starlette.datastructures import Headers, MutableHeaders
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
                headers = Headers(scope=scope)
                self._check_host(headers.get("host", ""))
                caller = self._tokens.caller(headers.get("authorization"))
                scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, send_marked)
        except Refusal as refusal:
            await refused(refusal, path)(scope, receive, send_marked)
        except Exception:
            logger.exception("%s %s", scope["method"], path)
            if started:
                raise
            failure = problem_response("about:blank", 500, "a fault of the server; its log says more", path)
            await failure(scope, receive, send_marked)

    def _check_host(self, host: str) -> None:
        """Raises Refusal ``forbidden`` for a name that is not ours: the mark of DNS rebinding."""
        if self._hosts is None:
            return
        name = host.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        if name not in self._hosts:
            raise Refusal("forbidden", f"this server is not called {host!r}; use {', '.join(sorted(self._hosts))}")
