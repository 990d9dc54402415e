"""What the servers to compare with have in common: uvicorn on uvloop and httptools, without deflate and logs of access."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn


def serve(app: Any, name: str) -> None:
    """Serve ``app`` on a free port of this machine; one line says where, when it answers."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
        backlog=2048,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"{name}: serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(Server(config).serve([listener]))
