"""The client's WebSockets: against a real server, and against servers that do what they should not."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSMsgType, web
from ports import held
from remote_world import served
from waiting import PATIENCE, eventually

from turnwise_agent.client import TurnwiseClient, socket
from turnwise_agent.errors import IncompatibleServer, InvalidRequest, ProtocolError, ServerUnreachable
from turnwise_envs import Action
from turnwise_envs.wire import MANY

MARK = {"x-turnwise-protocol": "1"}
ENVS = {"items": [{"id": "maze"}], "total": 1}


def says(text):
    return Action(text=text)


class Fake:
    """A server that answers ``/v1/envs`` and whose socket does what ``script`` says; counts what it is asked."""

    def __init__(self, script=None, handshake=None, mark=MARK):
        self.script, self.handshake, self.mark = script, handshake, mark
        self.http = self.sockets = self.frames = 0
        self.headers = []

    @asynccontextmanager
    async def running(self):
        app = web.Application()
        app.router.add_get("/healthz", self.health)
        app.router.add_get("/v1/envs", self.envs)
        if self.script or self.handshake:
            app.router.add_get("/v1/ws", self.ws)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        finally:
            await runner.cleanup()

    async def health(self, request):
        return web.json_response({"status": "ok"}, headers=self.mark)

    async def envs(self, request):
        self.http += 1
        return web.json_response(ENVS, headers=self.mark)

    async def ws(self, request):
        self.sockets += 1
        self.headers.append(request.headers)
        if self.handshake:
            return web.Response(status=self.handshake)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                self.frames += 1
                await self.script(self, ws, json.loads(message.data))
        return ws


class FakeOfMany(Fake):
    """The same for lists of frames; ``messages`` has how many frames came in each."""

    def __init__(self, script):
        super().__init__(script)
        self.messages = []

    async def ws(self, request):
        ws = web.WebSocketResponse(protocols=[MANY])
        await ws.prepare(request)
        async for message in ws:
            frames = json.loads(message.data)
            self.messages.append(len(frames))
            await self.script(self, ws, frames)
        return ws


async def good(server, ws, frame):
    await ws.send_str(json.dumps({"id": frame["id"], "status": 200, "body": ENVS}))


async def test_calls_of_many_sessions_share_one_socket(tmp_path):
    with served(tmp_path, "Slow") as server:
        async with TurnwiseClient(server.url) as client:
            sessions = await asyncio.gather(*(client.create("slow", index=index) for index in range(40)))
            results = await asyncio.gather(*(s.step(says("x" * number)) for number, s in enumerate(sessions)))
            for number, result in enumerate(results):
                assert result.observation.text.startswith(f"{number} characters")
            [line] = client._pool._links[server.url]._socket._lines
            assert line._calls >= 80
            assert client.stats.retries == 0
            [child] = await sessions[3].fork()
            assert child.log_hash == sessions[3].log_hash
            assert len((await sessions[3].history()).steps) == 1
            with pytest.raises(InvalidRequest):
                await client.create("slow", index=10**9)
            await asyncio.gather(*(session.close() for session in sessions))


async def test_the_token_is_read_again_after_a_restart(tmp_path):
    with served(tmp_path, "Ledger") as server:
        async with TurnwiseClient(server.url, token_file=server.token_file) as client:
            session = await client.create("ledger", index=7)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await session.step(says("one"))
            assert (await session.reference()).answers == ["gold 7"]
            await session.step(says("two"))
            assert len(client._pool._links[server.url]._socket._lines) == 1


async def test_a_body_that_may_be_too_large_goes_over_http(tmp_path):
    with served(tmp_path, "Ledger") as server:
        async with TurnwiseClient(server.url) as client:
            session = await client.create("ledger")
            other = await client.create("ledger")
            result = await session.step(says("x" * 1_500_000))
            assert result.observation.text.startswith("1500000 characters")
            with pytest.raises(InvalidRequest, match="larger than"):
                await session.step(says("x" * 5_000_000))
            await other.step(says("not disturbed"))
            assert client.stats.retries == 0


@pytest.mark.parametrize("handshake", [None, 404, 403, 400, 200, 426])
async def test_without_sockets_http_does(handshake):
    fake = Fake(handshake=handshake)
    async with fake.running() as url, TurnwiseClient(url) as client:
        for _ in range(3):
            assert [spec.id for spec in await client.envs()] == ["maze"]
    assert fake.http == 3
    assert fake.sockets == (handshake is not None)  # asked once, not every time


async def test_a_connection_lost_during_a_call_is_made_again():
    async def script(server, ws, frame):
        if server.frames == 1:
            ws._req.transport.abort()
        else:
            await good(server, ws, frame)

    fake = Fake(script)
    async with fake.running() as url, TurnwiseClient(url) as client:
        assert [spec.id for spec in await client.envs()] == ["maze"]
        assert (fake.sockets, fake.frames, fake.http) == (2, 2, 0)
        assert client.stats.retries == 1


async def test_all_calls_in_flight_on_a_lost_connection_are_made_again():
    async def script(server, ws, frame):
        if server.frames < 10:
            return
        if server.frames == 10:
            await ws.close()
        else:
            await good(server, ws, frame)

    fake = Fake(script)
    async with fake.running() as url, TurnwiseClient(url) as client:
        answers = await asyncio.gather(*(client.envs() for _ in range(10)))
        assert [spec.id for [spec] in answers] == ["maze"] * 10
        assert (fake.sockets, fake.frames, fake.http) == (2, 20, 0)


async def test_calls_made_at_once_travel_together():
    async def script(server, ws, frames):
        await ws.send_str(json.dumps([{"id": frame["id"], "status": 200, "body": ENVS} for frame in reversed(frames)]))

    fake = FakeOfMany(script)
    async with fake.running() as url, TurnwiseClient(url) as client:
        await client.envs()
        assert [spec.id for [spec] in await asyncio.gather(*(client.envs() for _ in range(20)))] == ["maze"] * 20
        assert fake.messages == [1, 20]


async def test_a_large_call_travels_alone(tmp_path):
    with served(tmp_path, "Ledger") as server:
        async with TurnwiseClient(server.url) as client:
            sessions = await asyncio.gather(*(client.create("ledger", index=index) for index in range(6)))
            texts = ["x" * (900_000 if index % 2 else 10) for index in range(6)]
            results = await asyncio.gather(*(one.step(says(text)) for one, text in zip(sessions, texts, strict=True)))
            assert [result.observation.text.split()[0] for result in results] == ["10", "900000"] * 3
            assert client.stats.retries == 0


async def test_a_late_answer_is_not_taken_for_another():
    async def script(server, ws, frame):
        if server.frames == 1:
            server.first = frame["id"]
            return  # the client gives up on this one
        wrong = {"items": [{"id": "late"}], "total": 1}
        await ws.send_str(json.dumps({"id": server.first, "status": 200, "body": wrong}))
        await good(server, ws, frame)

    fake = Fake(script)
    async with fake.running() as url, TurnwiseClient(url, timeout=0.3) as client:
        for _ in range(3):
            assert [spec.id for spec in await client.envs()] == ["maze"]
    assert fake.sockets == 1


@pytest.mark.parametrize("rubbish", ["no json", "[]", "{}", '{"id": null}', '{"id": 0}', '{"id": [0], "status": 200}'])
async def test_an_answer_that_is_no_frame_ends_the_connection(rubbish):
    async def script(server, ws, frame):
        if server.sockets == 1:
            await ws.send_str(rubbish)
        else:
            await good(server, ws, frame)

    fake = Fake(script)
    async with fake.running() as url, TurnwiseClient(url, timeout=1.0, patience=PATIENCE) as client:
        assert [spec.id for spec in await client.envs()] == ["maze"]


async def test_refusals_are_errors():
    async def script(server, ws, frame):
        body = {"type": "urn:turnwise:forbidden", "title": "Forbidden", "status": 403, "detail": "no", "new": 1}
        await ws.send_str(json.dumps({"id": frame["id"], "status": 403, "body": body}))

    fake = Fake(script)
    async with fake.running() as url, TurnwiseClient(url) as client:
        with pytest.raises(ProtocolError, match=r"GET /v1/envs: no \(forbidden\)"):
            await client.envs()


async def test_overload_is_waited_out():
    async def script(server, ws, frame):
        if server.frames < 3:
            body = {"type": "urn:turnwise:overloaded", "title": "x", "status": 429, "detail": "x", "retry_after": 0.1}
            await ws.send_str(json.dumps({"id": frame["id"], "status": 429, "body": body}))
        else:
            await good(server, ws, frame)

    fake = Fake(script)
    async with fake.running() as url, TurnwiseClient(url) as client:
        await client.envs()
        assert client.stats.retries == 2
    assert fake.sockets == 1


@pytest.mark.parametrize("mark", [{}, {"x-turnwise-protocol": "2"}])
async def test_what_is_no_server_of_ours_is_not_spoken_to(mark):
    fake = Fake(good, mark=mark)
    async with fake.running() as url, TurnwiseClient(url) as client:
        with pytest.raises(IncompatibleServer, match=r"does not answer like|speaks version 2"):
            await client.envs()
    assert fake.sockets == 0


async def test_the_token_goes_along():
    fake = Fake(good)
    async with fake.running() as url, TurnwiseClient(url, token="abc") as client:
        await client.envs()
    assert [headers["authorization"] for headers in fake.headers] == ["Bearer abc"]


async def test_a_busy_socket_gets_company(monkeypatch):
    monkeypatch.setattr(socket, "_BUSY", 4)
    monkeypatch.setattr(socket, "_MAX_SOCKETS", 3)

    async def script(server, ws, frame):
        server.held.append((ws, frame))
        if server.frames == 20:
            for where, each in server.held:
                await good(server, where, each)

    fake = Fake(script)
    fake.held = []
    async with fake.running() as url, TurnwiseClient(url) as client:
        waiting = []
        for _ in range(20):
            waiting.append(asyncio.create_task(client.envs()))
            await eventually(lambda: fake.frames == len(waiting))
        await asyncio.gather(*waiting)
    assert fake.sockets == 3
    counts = sorted(sum(ws is each for ws, _ in fake.held) for each in {id(ws): ws for ws, _ in fake.held}.values())
    assert counts == [6, 7, 7]


async def test_nobody_there():
    holder = held()
    async with TurnwiseClient(f"http://127.0.0.1:{holder.getsockname()[1]}", patience=0.5) as client:
        with pytest.raises(ServerUnreachable):
            await asyncio.gather(*(client.envs() for _ in range(20)))


async def test_closing_a_client_ends_calls_and_leaves_no_tasks():
    async def silent(server, ws, frame):
        server.asked.set()

    fake = Fake(silent)
    fake.asked = asyncio.Event()
    async with fake.running() as url:
        before = asyncio.all_tasks()
        client = TurnwiseClient(url, patience=0.5)
        waiting = asyncio.create_task(client.envs())
        await fake.asked.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await client.aclose()
        await eventually(lambda: not [task for task in asyncio.all_tasks() - before if "turnwise" in repr(task)])
