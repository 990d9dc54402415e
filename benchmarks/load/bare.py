"""The floor: an echo in FastAPI over HTTP and over a WebSocket, as short as one would write it.

It keeps nothing, checks nothing and knows no sessions.
"""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

from load.serving import serve

app = FastAPI()


class Said(BaseModel):
    turn: int
    text: str


@app.post("/echo")
async def echo(said: Said) -> Said:
    return said


@app.websocket("/ws")
async def echo_socket(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    serve(app, "bare")
