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
    server = uvicorn.Server(config)

    async def run() -> None:
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        print(f"{name}: serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await serving

    factory = config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())
