"""uvicorn's WebSocket protocol, with one thing added: a peer that is silent or does not read is dropped, not waited for.

uvicorn closes such a connection, which waits until the peer has taken what was sent to it. A peer that is gone, or
that never reads, does not; its connection would stay for a quarter of an hour, or for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

EXTENSION = "turnwise.drop"


class SocketProtocol(WebSocketsSansIOProtocol):
    """For ``uvicorn.Config(ws=...)``."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # not for a handshake that was refused
            self.scope["extensions"][EXTENSION] = {"drop": self.transport.abort}

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


def dropper(scope: Scope) -> Callable[[], None]:
    """What ends the connection of ``scope`` at once. Another server than ours has no such thing: then it does nothing."""
    extension = scope.get("extensions", {}).get(EXTENSION)
    drop: Callable[[], None] = extension["drop"] if extension else _nothing
    return drop


def _nothing() -> None:
    return
