"""A player: a process that drives one server as hard as it answers, and measures what that is like.

``python -m load.player KIND URL`` reads commands from standard input, one JSON object a line, and answers each with one
on standard output:

- ``{"do": "play", "sessions": 64, "episodes": 4, "length": 10}``: that many sessions at once, each playing episodes one
  after the other, each episode opened, stepped and closed.
- ``{"do": "open", "sessions": 256}``: open sessions all at once, from no connection to the last first observation.
- ``{"do": "http", "connections": 64, "seconds": 2.0}``: single steps as HTTP requests.
- ``{"do": "leave", "sessions": 1000}``: open sessions, step each a few times, and leave them open.
- ``{"do": "awake"}``: how many sessions the server has in memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import httpx

from load import http

#: What is said in every step. An action of a small model has about this length.
TEXT = "go to the fridge 1 and take the apple 2 from it"
STEPS_BEFORE_LEAVING = 5
#: ``await step(text)`` is what came back, None if that is not to be compared.
Step = Callable[[str], Awaitable[str | None]]
Close = Callable[[], Awaitable[object]]


class Side(Protocol):
    """One kind of server with its own client. A fresh one for every measurement."""

    async def open(self, index: int) -> tuple[Step, Close]: ...

    async def aclose(self) -> None: ...


class Turnwise:
    """Our client: one for all sessions, as a rollout has it. ``env`` is echo or household."""

    def __init__(self, url: str, env: str) -> None:
        from turnwise_agent.client import TurnwiseClient

        self._client = TurnwiseClient(url)
        self._env = env
        self._options = {"max_turns": 200} if env == "household" else {}

    async def open(self, index: int) -> tuple[Step, Close]:
        from turnwise_envs import Action

        session = await self._client.create(self._env, index=index, options=self._options)

        async def say(text: str) -> str:
            return (await session.step(Action(text=text))).observation.messages[0].content

        async def look(text: str) -> None:
            await session.step(Action(text=LOOKS[session.turn % len(LOOKS)]))

        return (say if self._env == "echo" else look), session.close

    async def aclose(self) -> None:
        await self._client.aclose()


#: Household commands that are always possible.
LOOKS = ("look", "inventory")


class OpenEnv:
    """OpenEnv's client: one for each episode, as its examples have it."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self, index: int) -> tuple[Step, Close]:
        from openenv.core import GenericEnvClient

        env = GenericEnvClient(base_url=self._url, connect_timeout_s=60.0)
        await env.connect()
        await env.reset(seed=index)

        async def say(text: str) -> str:
            heard: str = (await env.step({"text": text})).observation["text"]
            return heard

        return say, env.close

    async def aclose(self) -> None:
        return


class BareSocket:
    """The floor: a WebSocket for each session, and nothing on it but the text."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("http://", "ws://") + "/ws"

    async def open(self, index: int) -> tuple[Step, Close]:
        from websockets.asyncio.client import connect

        socket = await connect(self._url, compression=None, proxy=None, open_timeout=60.0)

        async def say(text: str) -> str:
            await socket.send(text)
            return str(await socket.recv())

        return say, socket.close

    async def aclose(self) -> None:
        return


def side(kind: str, url: str) -> Side:
    if kind in ("echo", "household"):
        return Turnwise(url, kind)
    return OpenEnv(url) if kind == "openenv" else BareSocket(url)


class Play:
    """Sessions at once, each with episodes one after the other."""

    def __init__(self, using: Side) -> None:
        self._side = using
        self.latencies: list[float] = []
        self.failures = 0
        self.first_failure: str | None = None

    async def run(self, sessions: int, episodes: int, length: int) -> None:
        await asyncio.gather(*(self._player(number, episodes, length) for number in range(sessions)))

    async def _player(self, number: int, episodes: int, length: int) -> None:
        for episode in range(episodes):
            try:
                step, close = await self._side.open((number * episodes + episode) % 1000)
                await self._steps(step, length)
                await close()
            except Exception as error:
                self._failed(f"{type(error).__name__}: {error}")

    async def _steps(self, step: Step, length: int) -> None:
        now = time.perf_counter
        for _ in range(length):
            began = now()
            heard = await step(TEXT)
            self.latencies.append(now() - began)
            if heard is not None and heard != TEXT:
                self._failed(f"heard {heard!r}")

    def _failed(self, why: str) -> None:
        self.failures += 1
        self.first_failure = self.first_failure or why


async def play(kind: str, url: str, sessions: int, episodes: int, length: int) -> dict[str, Any]:
    using = side(kind, url)
    played = Play(using)
    gc.collect()
    gc.freeze()  # what was imported is no garbage; the longest pauses of either client are for looking whether it is
    cpu, began = time.process_time(), time.perf_counter()
    await played.run(sessions, episodes, length)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    await using.aclose()
    ranked = sorted(played.latencies) or [0.0]
    return {
        "steps": len(played.latencies),
        "seconds": seconds,
        "p50_ms": 1e3 * ranked[len(ranked) // 2],
        "p99_ms": 1e3 * ranked[int(len(ranked) * 0.99)],
        "client_cpu_s": used,
        "failures": played.failures,
        "first_failure": played.first_failure,
    }


async def open_all(kind: str, url: str, sessions: int) -> dict[str, Any]:
    using = side(kind, url)
    gc.collect()
    began = time.perf_counter()
    outcomes = await asyncio.gather(*(using.open(index) for index in range(sessions)), return_exceptions=True)
    seconds = time.perf_counter() - began
    opened = [one for one in outcomes if not isinstance(one, BaseException)]
    await asyncio.gather(*(close() for _, close in opened))
    await using.aclose()
    return {"seconds": seconds, "failures": sessions - len(opened)}


async def single_steps(kind: str, url: str, connections: int, seconds: float) -> dict[str, Any]:
    """HTTP requests. Ours go round sessions so many that none has two steps on their way at once."""
    if kind == "bare":
        return await http.drive(http.Load(url, "/echo", TEXT), connections, seconds)
    from turnwise_agent.client import TurnwiseClient

    async with TurnwiseClient(url) as client:
        wanted = http.SESSIONS_PER_CONNECTION * connections
        sessions = await asyncio.gather(*(client.create("echo", index=index) for index in range(wanted)))
        load = http.Load(url, "/v1/sessions/{}/step", TEXT, [session.session_id for session in sessions])
        result = await http.drive(load, connections, seconds)
        await asyncio.gather(*(session.close() for session in sessions))
    return result


async def leave(kind: str, url: str, sessions: int) -> dict[str, Any]:
    using = side(kind, url)

    async def one(index: int) -> None:
        step, _ = await using.open(index)
        for _ in range(STEPS_BEFORE_LEAVING):
            await step(TEXT)

    await asyncio.gather(*(one(index) for index in range(sessions)))
    await using.aclose()
    return {}


async def awake(url: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"{url}/metrics")).text
    counts = re.findall(r'^turnwise_sessions\{state="(?:active|idle)"\} (\S+)$', page, re.MULTILINE)
    return {"awake": sum(map(float, counts))}


async def serve_commands(kind: str, url: str) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        match command.pop("do"):
            case "play":
                result = await play(kind, url, **command)
            case "open":
                result = await open_all(kind, url, **command)
            case "leave":
                result = await leave(kind, url, **command)
            case "awake":
                result = await awake(url)
            case _:
                result = await single_steps(kind, url, **command)
        print(json.dumps(result), flush=True)


def main() -> None:
    kind, url, loop_name = sys.argv[1:]
    if kind == "openenv":
        from load.openenv_package import prepare

        prepare()
    factory = None
    if loop_name == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve_commands(kind, url))


if __name__ == "__main__":
    main()
