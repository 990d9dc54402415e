"""WS /v1/ws against a real socket."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
import toy_environments as toys
from live_server import TOKENS, bearer, live
from waiting import PATIENCE, eventually
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from turnwise_envs.wire import MANY
from turnwise_server import ws
from turnwise_server.sockets import SocketProtocol


class Line:
    """A connection whose calls may overlap."""

    def __init__(self, socket) -> None:
        self.socket = socket
        self.numbers = iter(range(10**9))

    async def send(self, method, path, body=None, frame_id=None, **more):
        frame_id = next(self.numbers) if frame_id is None else frame_id
        await self.socket.send(json.dumps({"id": frame_id, "method": method, "path": path, "body": body, **more}))
        return frame_id

    async def reply(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))

    async def call(self, method, path, body=None, **more):
        """One call while no other is in flight."""
        frame_id = await self.send(method, path, body, **more)
        reply = await self.reply()
        assert set(reply) == {"id", "status", "body"}
        assert reply["id"] == frame_id
        return reply["status"], reply["body"]

    async def open(self, env="guess", **fields):
        status, body = await self.call("POST", "/v1/sessions", {"env": env, **fields})
        assert status == 201, body
        return body["session_id"]

    async def step(self, sid, turn, text):
        return await self.call("POST", f"/v1/sessions/{sid}/step", {"turn": turn, "action": {"text": text}})


@pytest.fixture
async def address():
    async with live(toys.ALL, TOKENS) as (address, _):
        yield address


@pytest.fixture
async def line(address):
    async with connect(f"ws://{address}/v1/ws") as socket:
        yield Line(socket)


async def test_a_whole_episode(line):
    sid = await line.open(index=5)
    status, view = await line.step(sid, 0, "7")
    assert (status, view["turn"], view["status"]) == (200, 1, "live")
    status, again = await line.step(sid, 0, "7")
    assert (status, again) == (200, view)
    status, forked = await line.call("POST", f"/v1/sessions/{sid}/fork", {"count": 2, "key": "k"})
    assert (status, len(forked["sessions"])) == (201, 2)
    status, end = await line.step(sid, 1, "5")
    assert (status, end["reward"], end["status"]) == (200, 1.0, "done")
    status, history = await line.call("GET", f"/v1/sessions/{sid}/history")
    assert [step["action"]["text"] for step in history["steps"]] == ["7", "5"]
    assert await line.call("DELETE", f"/v1/sessions/{sid}") == (204, None)
    status, problem = await line.call("GET", f"/v1/sessions/{sid}")
    assert (status, problem["type"]) == (410, "urn:turnwise:session-deleted")
    assert problem["instance"] == f"/v1/sessions/{sid}"


async def test_the_protocol_is_named_and_nothing_is_compressed(line):
    assert line.socket.response.headers["x-turnwise-protocol"] == "1"
    assert "sec-websocket-extensions" not in line.socket.response.headers


async def test_a_slow_session_holds_up_no_other(line, gate):
    slow, quick = await line.open("slow"), await line.open(index=5)
    await line.send("POST", f"/v1/sessions/{slow}/step", {"turn": 0, "action": {"text": gate.text}}, "slow one")
    for turn in range(5):
        status, view = await line.step(quick, turn, "1")
        assert (status, view["turn"]) == (200, turn + 1)
    gate.open()
    reply = await line.reply()
    assert (reply["id"], reply["status"]) == ("slow one", 200)


async def test_a_hundred_sessions_at_once_over_one_connection(line, gate):
    sids = [await line.open("slow", index=index % 50) for index in range(100)]
    for sid in sids:
        body = {"turn": 0, "action": {"text": f"{gate.text} {sid}"}}
        await line.send("POST", f"/v1/sessions/{sid}/step", body, frame_id=f"for {sid}")
    await eventually(lambda: all(toys.Slow.steps[f"{gate.text} {sid}"] for sid in sids))
    gate.open()
    replies = [await line.reply() for _ in sids]
    for reply in replies:
        sid = reply["id"].removeprefix("for ")
        assert reply["body"]["session_id"] == sid
        assert reply["body"]["observation"]["messages"][0]["content"] == f"slept, {gate.text} {sid}"
    assert sorted(reply["id"] for reply in replies) == sorted(f"for {sid}" for sid in sids)


BAD = [
    ("", None),
    ("no json", None),
    ("[]", None),
    ("7", None),
    ("null", None),
    ("{}", None),
    ('{"id": 9}', 9),
    ('{"id": "x", "method": "GET"}', "x"),
    ('{"id": true, "method": "GET", "path": "/v1/envs"}', None),
    ('{"id": 1.5, "method": "GET", "path": "/v1/envs"}', None),
    ('{"id": [1], "method": "GET", "path": "/v1/envs"}', None),
    ('{"id": 3, "method": "GET", "path": "/v1/envs", "extra": 1}', 3),
    ('{"id": 3, "method": "GET", "path": "/v1/envs", "body": {}}', 3),
    ('{"id": 3, "method": "POST", "path": "/v1/sessions", "body": {"env": "\\ud800"}}', None),
    ('{"id": 3, "method": "POST", "path": "/v1/batch", "body": {"requests": []}}', 3),
    ('{"id": 3, "method": "GET", "path": "/v1/ws"}', 3),
    ('{"id": 3, "method": "POST", "path": "/v1/sessions", "body": ' + "[" * 500 + "]" * 500 + "}", None),
    (b"\x00\xff\xfe", None),
]


@pytest.mark.parametrize(("frame", "named"), BAD)
async def test_a_malformed_frame_is_answered_and_disturbs_no_other(line, gate, frame, named):
    slow = await line.open("slow")
    await line.send("POST", f"/v1/sessions/{slow}/step", {"turn": 0, "action": {"text": gate.text}}, "good")
    await line.socket.send(frame)
    first = await line.reply()
    gate.open()
    second = await line.reply()
    assert (first["id"], first["status"]) == (named, 422)
    assert first["body"]["type"] == "urn:turnwise:invalid-request"
    assert (second["id"], second["status"]) == ("good", 200)


async def test_binary_frames_are_as_good_as_text(line):
    await line.socket.send(b'{"id": "\xe2\x98\x83", "method": "GET", "path": "/v1/envs/guess"}')
    reply = await line.reply()
    assert (reply["id"], reply["status"], reply["body"]["id"]) == ("☃", 200, "guess")


class TestManyInOneMessage:
    @pytest.fixture
    async def socket(self, address):
        async with connect(f"ws://{address}/v1/ws", subprotocols=[MANY]) as socket:
            assert socket.subprotocol == MANY
            yield socket

    async def exchange(self, socket, *frames):
        """All replies by id; each message must be a list."""
        await socket.send(json.dumps(frames))
        replies = []
        while len(replies) < len(frames):
            message = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
            assert isinstance(message, list)
            replies += message
        return {reply["id"]: (reply["status"], reply["body"]) for reply in replies}

    async def open(self, socket, count, env="guess"):
        frame = {"method": "POST", "path": "/v1/sessions"}
        frames = [frame | {"id": index, "body": {"env": env, "index": index}} for index in range(count)]
        replies = await self.exchange(socket, *frames)
        return [replies[index][1]["session_id"] for index in range(count)]

    def step(self, frame_id, sid, turn, text):
        body = {"turn": turn, "action": {"text": text}}
        return {"id": frame_id, "method": "POST", "path": f"/v1/sessions/{sid}/step", "body": body}

    async def test_each_is_answered_by_itself(self, socket):
        one, two = await self.open(socket, 2)
        replies = await self.exchange(
            socket,
            self.step("one", one, 0, "7"),
            self.step("two", two, 0, "1"),
            self.step("ahead", one, 5, "7"),
            self.step("nobody", "s_0", 0, "7"),
            {"id": "bad", "method": "GET"},
            {"id": "list", "method": "GET", "path": "/v1/sessions"},
        )
        assert {name: status for name, (status, _) in replies.items()} == {
            "one": 200,
            "two": 200,
            "ahead": 409,
            "nobody": 404,
            "bad": 422,
            "list": 200,
        }
        assert (replies["one"][1]["session_id"], replies["one"][1]["status"]) == (one, "live")
        assert (replies["two"][1]["session_id"], replies["two"][1]["status"]) == (two, "done")
        assert replies["ahead"][1]["type"] == "urn:turnwise:turn-ahead"

    async def test_the_same_step_twice_happens_once(self, socket):
        [sid] = await self.open(socket, 1)
        text = f"twice {sid}"
        replies = await self.exchange(
            socket, self.step(1, sid, 0, text), self.step(2, sid, 0, text), self.step(3, sid, 0, "else")
        )
        assert replies[1] == replies[2]
        assert (replies[1][0], replies[3][0]) == (200, 409)
        assert toys.Guess.steps[text] == 1

    @pytest.mark.parametrize("message", ["no json", "{}", '{"id": 1, "method": "GET", "path": "/v1/envs"}', '"x"'])
    async def test_what_is_no_list_is_refused(self, socket, message):
        await socket.send(message)
        [reply] = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
        assert (reply["status"], reply["body"]["type"]) == (422, "urn:turnwise:invalid-request")
        assert (await self.exchange(socket, {"id": 1, "method": "GET", "path": "/v1/envs"}))[1][0] == 200

    async def test_every_frame_counts(self, socket, monkeypatch):
        sids = await self.open(socket, 6, "slow")
        monkeypatch.setattr(ws, "IN_FLIGHT", 4)
        replies = await self.exchange(socket, *(self.step(number, sid, 0, "x") for number, sid in enumerate(sids)))
        assert [replies[number][0] for number in range(6)] == [200] * 4 + [429] * 2

    async def test_a_list_is_no_frame_for_others(self, line):
        await line.socket.send(json.dumps([{"id": 1, "method": "GET", "path": "/v1/envs"}]))
        assert (await line.reply())["status"] == 422


async def test_a_frame_that_is_too_large_is_refused_by_name():
    async with live(toys.ALL, max_body=4096) as (address, _), connect(f"ws://{address}/v1/ws") as socket:
        line = Line(socket)
        sid = await line.open()
        status, problem = await line.step(sid, 0, "x" * 5000)
        assert (status, problem["type"]) == (413, "urn:turnwise:payload-too-large")
        status, _ = await line.step(sid, 0, "x")
        assert status == 200
        await socket.send("x" * 200_000)  # beyond what is even looked at
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.code == 1009
        async with connect(f"ws://{address}/v1/ws") as second:  # and only that connection ends
            assert (await Line(second).call("GET", f"/v1/sessions/{sid}"))[1]["turn"] == 1


async def test_frames_in_flight_are_bounded(line, gate, monkeypatch):
    monkeypatch.setattr(ws, "IN_FLIGHT", 4)
    sids = [await line.open("slow", index=index) for index in range(6)]
    for number, sid in enumerate(sids):
        await line.send("POST", f"/v1/sessions/{sid}/step", {"turn": 0, "action": {"text": gate.text}}, number)
    replies = [await line.reply() for _ in range(2)]
    gate.open()
    replies += [await line.reply() for _ in range(4)]
    refused = {reply["id"]: reply["body"] for reply in replies if reply["status"] == 429}
    assert sorted(refused) == [4, 5]
    assert refused[4]["type"] == "urn:turnwise:overloaded"
    assert refused[4]["retry_after"] > 0
    assert [reply["status"] for reply in replies if reply["id"] < 4] == [200] * 4
    assert (await line.step(sids[5], 0, "x"))[0] == 200


class TestHandshake:
    async def refused(self, address, name="127.0.0.1", **headers):
        port = int(address.split(":")[1])
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://{name}:{port}/v1/ws", host="127.0.0.1", port=port, additional_headers=headers)
        response = caught.value.response
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["x-turnwise-protocol"] == "1"
        return response.status_code, json.loads(response.body)

    async def test_token(self, address):
        status, problem = await self.refused(address, authorization="Bearer wrong-token-0123456789")
        assert (status, problem["type"]) == (401, "urn:turnwise:unauthorized")

    async def test_a_socket_speaks_for_its_caller(self, address):
        async with connect(f"ws://{address}/v1/ws", additional_headers=bearer("ann")) as hers:
            sid = await Line(hers).open()
            assert (await Line(hers).call("GET", f"/v1/sessions/{sid}/reference"))[0] == 403
        async with connect(f"ws://{address}/v1/ws", additional_headers=bearer("bob")) as his:
            assert (await Line(his).call("GET", f"/v1/sessions/{sid}"))[0] == 404

    async def test_off_loopback_a_token_is_needed(self):
        async with live(toys.ALL, TOKENS, host="0.0.0.0") as (address, _):
            status, _ = await self.refused(address)
            assert status == 401

    async def test_host(self, address):
        status, problem = await self.refused(address, "evil.test")
        assert (status, problem["type"]) == (403, "urn:turnwise:forbidden")

    @pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://127.0.0.1:1", "127.0.0.1"])
    async def test_a_page_from_elsewhere(self, address, origin):
        status, problem = await self.refused(address, origin=origin)
        assert (status, problem["type"]) == (403, "urn:turnwise:forbidden")

    async def test_our_own_page(self, address):
        async with connect(f"ws://{address}/v1/ws", additional_headers={"origin": f"http://{address}"}) as socket:
            assert (await Line(socket).call("GET", "/v1/envs"))[0] == 200


async def handshaken(address):
    """A raw connection after its handshake, that reads nothing unless told to."""
    host, port = address.split(":")
    peer = socket.create_connection((host, int(port)))
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(
        peer,
        f"GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode(),
    )
    assert b"101 " in await loop.sock_recv(peer, 4096)
    return peer


def masked(text):
    """A text frame as a client sends it, with a mask of zeros."""
    data = text.encode()
    assert 126 <= len(data) < 65536
    return b"\x81\xfe" + len(data).to_bytes(2, "big") + b"\0\0\0\0" + data


async def test_a_step_outlives_its_connection(address):
    async with connect(f"ws://{address}/v1/ws") as socket:
        line = Line(socket)
        sid = await line.open("slow")
        text = f"alone {sid}"
        await line.send("POST", f"/v1/sessions/{sid}/step", {"turn": 0, "action": {"text": text}})
        await eventually(lambda: toys.Slow.steps[text])
    async with connect(f"ws://{address}/v1/ws") as socket:
        status, view = await Line(socket).step(sid, 0, text)
    assert (status, view["turn"]) == (200, 1)
    assert toys.Slow.steps[text] == 1


async def test_a_peer_that_does_not_read_is_dropped(monkeypatch):
    monkeypatch.setattr(ws, "SEND_TIMEOUT", 0.5)
    async with live(toys.ALL) as (address, server):
        peer = await handshaken(address)
        envs = masked(json.dumps({"id": "x" * 200, "method": "GET", "path": "/v1/envs"}))

        async def flood():
            while True:
                await asyncio.get_running_loop().sock_sendall(peer, envs * 1000)

        flooding = asyncio.create_task(flood())
        await eventually(lambda: len(server.server_state.connections) == 1)
        async with connect(f"ws://{address}/v1/ws") as other:  # meanwhile others are served
            assert (await asyncio.wait_for(Line(other).call("GET", "/v1/envs"), PATIENCE))[0] == 200
        await eventually(lambda: not server.server_state.connections)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flooding, PATIENCE)
        peer.close()


async def test_a_half_open_socket_ends(gate, monkeypatch):
    made = SocketProtocol.__init__

    def impatient(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.ping_interval, self.ping_timeout = 0.2, 2.0

    monkeypatch.setattr(SocketProtocol, "__init__", impatient)
    async with live(toys.ALL) as (address, server):
        silent = await handshaken(address)  # never answers a ping
        async with connect(f"ws://{address}/v1/ws") as socket:
            line = Line(socket)
            sid = await line.open("slow")
            body = {"turn": 0, "action": {"text": gate.text}}
            await line.send("POST", f"/v1/sessions/{sid}/step", body)
            assert len(server.server_state.connections) == 2
            await eventually(lambda: len(server.server_state.connections) == 1)
            gate.open()  # who waited as long and longer answered pings meanwhile
            assert (await line.reply())["status"] == 200
        silent.close()


async def test_connections_that_end_leave_nothing_behind(address):
    def tasks():
        return sum("Connection" in repr(task) for task in asyncio.all_tasks())

    for _ in range(30):
        async with connect(f"ws://{address}/v1/ws") as socket:
            line = Line(socket)
            sid = await line.open("slow")
            await line.send("POST", f"/v1/sessions/{sid}/step", {"turn": 0, "action": {"text": "x"}})
            if sid[-1] in "01234567":
                socket.transport.abort()
    await eventually(lambda: tasks() == 0)
    async with connect(f"ws://{address}/v1/ws") as socket:
        await Line(socket).open()
        assert tasks() > 0
