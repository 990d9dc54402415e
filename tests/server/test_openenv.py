"""OpenEnv's wire, spoken by hand: every message, and every fault of its own server that ours must not have."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import toy_environments as toys
from live_server import TOKENS, bearer, live
from waiting import PATIENCE, eventually
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from turnwise_envs import Action, Environment, EnvSpec, FunctionTaskSet, Observation, SplitSpec, StepResult, ToolSpec
from turnwise_server.openenv import seat, socket


class Calculator(Environment):
    """Adds with a tool."""

    spec = EnvSpec(
        id="calculator",
        action_format="tools",
        tools=[ToolSpec(name="add", description="Add two numbers.")],
        splits=[SplitSpec(name="train", size=7), SplitSpec(name="valid", size=3)],
    )
    tasks = FunctionTaskSet(spec, lambda split, index: f"Task {index} of {split}.")

    async def reset(self, task, seed, options):
        return Observation.say(task.instruction)

    async def step(self, action: Action) -> StepResult:
        [call] = action.tool_calls or [None]
        if call is None:
            return StepResult(observation=Observation.say("Use a tool."))
        return StepResult(observation=Observation.say(str(call.arguments["a"] + call.arguments["b"])), reward=0.5)


class Player:
    """One of OpenEnv's clients, without its conveniences."""

    def __init__(self, socket) -> None:
        self.socket = socket

    async def send(self, kind, data=None):
        await self.socket.send(json.dumps({"type": kind} | ({} if data is None else {"data": data})))

    async def receive(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))

    async def ask(self, kind, data=None):
        await self.send(kind, data)
        return await self.receive()

    async def reset(self, **data):
        answer = await self.ask("reset", data)
        assert answer["type"] == "observation", answer
        return answer["data"]

    async def step(self, text):
        answer = await self.ask("step", {"text": text})
        assert answer["type"] == "observation", answer
        return answer["data"]

    async def state(self):
        answer = await self.ask("state")
        assert answer["type"] == "state"
        return answer["data"]

    async def error(self, kind, data=None):
        answer = await self.ask(kind, data)
        assert answer["type"] == "error", answer
        return answer["data"]


def player(address, path="/ws"):
    return connect(f"ws://{address}{path}")


@pytest.fixture
async def guess():
    async with live([toys.Guess], TOKENS) as (address, _):
        yield address


@pytest.fixture
async def slow():
    async with live([toys.Slow]) as (address, _):
        yield address


@pytest.fixture
async def calculator():
    async with live([Calculator]) as (address, _):
        yield address


async def test_an_episode(guess):
    async with player(guess) as ws:
        one = Player(ws)
        first = await one.reset(seed=105, episode_id="mine")
        assert first["observation"]["text"] == "Guess a number from 0 to 99."
        assert (first["reward"], first["done"]) == (None, False)
        assert first["metadata"] == first["observation"]["metadata"]
        assert first["metadata"]["task_id"] == "guess/train/5"  # 105 modulo the split's 100 tasks
        assert first["metadata"]["seed"] == 105
        state = await one.state()
        assert (state["episode_id"], state["step_count"], state["status"]) == ("mine", 0, "live")
        missed = await one.step("7")
        assert missed["observation"]["messages"][0]["content"].startswith("Lower.")
        assert (missed["reward"], missed["done"], missed["metadata"]["turn"]) == (0.0, False, 1)
        right = await one.step("5")
        assert (right["reward"], right["done"]) == (1.0, True)
        assert right["metadata"]["terminated"] is True
        error = await one.error("step", {"text": "6"})
        assert (error["code"], error["problem"]) == ("EXECUTION_ERROR", "session-done")
        assert (await one.state())["step_count"] == 2
        again = await one.reset(seed=6)
        assert (again["metadata"]["task_id"], again["metadata"]["turn"]) == ("guess/train/6", 0)
        await one.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            await one.receive()
        assert closed.value.rcvd.code == 1000


async def test_it_is_the_same_episode_as_over_the_v1_protocol(guess):
    async with player(guess) as ws, httpx.AsyncClient(base_url=f"http://{guess}", timeout=PATIENCE) as http:
        one = Player(ws)
        await one.reset(seed=5)
        seen = await one.step("7")
        body = {"env": "guess", "index": 5, "seed": 5, "actions": [{"text": "7"}]}
        ours = (await http.post("/v1/sessions", json=body)).json()
        assert ours["log_hash"] == seen["metadata"]["log_hash"]
        history = (await http.get(f"/v1/sessions/{seen['metadata']['session_id']}/history")).json()
        assert history["steps"][0]["action"]["text"] == "7"


@pytest.mark.parametrize(
    ("data", "task", "seed"),
    [
        ({"seed": 3, "split": "open"}, "guess/open/3", 3),
        ({"index": 42}, "guess/train/42", None),
        ({"index": 42, "seed": 1}, "guess/train/42", 1),
        ({"task_id": "guess/train/9", "seed": 4}, "guess/train/9", 4),
        ({"task_id": "guess/open/900", "split": "open"}, "guess/open/900", None),
        ({"options": {"max_turns": 2}, "seed": -1}, "guess/train/99", -1),
    ],
)
async def test_which_task_a_reset_takes(guess, data, task, seed):
    async with player(guess) as ws:
        metadata = (await Player(ws).reset(**data))["metadata"]
        assert metadata["task_id"] == task
        assert seed is None or metadata["seed"] == seed


async def test_without_a_seed_tasks_differ(guess):
    async with player(guess) as ws:
        one = Player(ws)
        assert len({(await one.reset())["metadata"]["task_id"] for _ in range(8)}) > 1


BAD = [
    ("no json", "INVALID_JSON"),
    ("[]", "VALIDATION_ERROR"),
    ("{}", "VALIDATION_ERROR"),
    ('{"type": 5}', "VALIDATION_ERROR"),
    ('{"type": "state", "extra": 1}', "VALIDATION_ERROR"),
    ('{"type": "dance"}', "UNKNOWN_TYPE"),
    ('{"type": "step"}', "EXECUTION_ERROR"),  # no episode yet
    ('{"type": "reset", "data": {"sead": 1}}', "VALIDATION_ERROR"),
    ('{"type": "reset", "data": {"index": -1}}', "VALIDATION_ERROR"),
    ('{"type": "reset", "data": {"index": 100}}', "VALIDATION_ERROR"),
    ('{"type": "reset", "data": {"split": "none"}}', "VALIDATION_ERROR"),
    ('{"type": "reset", "data": {"task_id": "maze/train/1"}}', "VALIDATION_ERROR"),
    ('{"type": "reset", "data": {"task_id": "guess/train/1", "index": 2}}', "VALIDATION_ERROR"),
    ('{"type": "reset", "data": {"task_id": "guess/train/' + "9" * 5000 + '"}}', "VALIDATION_ERROR"),
    ('{"type": "reset", "data": {"options": {"max_turns": 0}}}', "VALIDATION_ERROR"),
    ('{"type": "reset", "data": {"seed": 9007199254740993}}', "VALIDATION_ERROR"),
]


@pytest.mark.parametrize(("text", "code"), BAD, ids=[text[:60] for text, _ in BAD])
async def test_what_cannot_be_is_said_and_the_socket_goes_on(guess, text, code):
    async with player(guess) as ws:
        one = Player(ws)
        await ws.send(text)
        answer = await one.receive()
        assert (answer["type"], answer["data"]["code"]) == ("error", code)
        assert answer["data"]["message"]
        assert (await one.reset(seed=1))["done"] is False
        error = await one.error("step", {"words": "x"})
        assert error["code"] == "VALIDATION_ERROR"
        assert (await one.step("1"))["metadata"]["turn"] == 1


async def test_several_environments_have_their_own_places():
    async with live([toys.Guess, Calculator]) as (address, _):
        async with player(address, "/openenv/calculator/ws") as ws:
            assert (await Player(ws).reset(seed=9))["observation"]["text"] == "Task 2 of train."
        with pytest.raises(InvalidStatus):
            await player(address)
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE) as http:
            assert (await http.get("/openenv/guess/list_environments")).json() == ["guess"]
            assert (await http.get("/metadata")).status_code == 404


class TestFaults:
    """What OpenEnv's server does wrong (issues and measurements are in the docs)."""

    async def test_many_sessions_by_default(self, guess):
        async def play(index):
            async with player(guess) as ws:
                one = Player(ws)
                await one.reset(index=index)
                for _ in range(3):
                    await one.step("100")
                return (await one.step(str(index)))["reward"]

        assert await asyncio.gather(*(play(index) for index in range(64))) == [1.0] * 64

    async def test_no_thread_a_session(self, guess):
        async def sit():
            ws = await player(guess)
            await Player(ws).reset()
            return ws

        before = threading.active_count()
        sockets = await asyncio.gather(*(sit() for _ in range(50)))
        assert threading.active_count() < before + 25
        await asyncio.gather(*(ws.close() for ws in sockets))

    async def test_capacity_is_said_and_free_again(self):
        async with live([toys.Guess], max_sessions=2) as (address, _), player(address) as a, player(address) as b:
            await Player(a).reset()
            await Player(b).reset()
            async with player(address) as c:
                error = await Player(c).error("reset", {})
                assert (error["code"], error["problem"]) == ("CAPACITY_REACHED", "too-many-sessions")
                assert error["retry_after"] > 0
                await Player(a).send("close")
                await a.wait_closed()
                assert (await Player(c).reset())["done"] is False  # on the same socket

    async def test_unclean_disconnects_leak_nothing(self, monkeypatch):
        monkeypatch.setattr(socket, "GRACE", 0.2)
        async with live([toys.Guess], max_sessions=4) as (address, _):
            for _ in range(3):
                sockets = [await player(address) for _ in range(4)]
                for ws in sockets:
                    await Player(ws).reset()
                for ws in sockets:
                    ws.transport.abort()
                async with httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE) as http:

                    async def all_gone(http=http):
                        return (await http.get("/v1/sessions")).json()["total"] == 0

                    await eventually(all_gone)

    async def test_requests_over_http_do_not_count_as_a_client_that_is_there(self, monkeypatch):
        monkeypatch.setattr(socket, "GRACE", 0.2)
        async with (
            live([toys.Guess]) as (address, _),
            httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE) as http,
        ):
            session_id = (await http.post("/reset", json={"seed": 5})).json()["metadata"]["session_id"]
            at = {"session_id": session_id}
            await http.post("/step", json={"action": {"text": "7"}}, params=at)
            call = {"name": "act", "arguments": {"text": "8"}, **at}
            await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
            async with player(address, f"/ws?session_id={session_id}") as ws:
                assert (await Player(ws).state())["step_count"] == 2
                ws.transport.abort()

            async def given_up():
                return (await http.get("/v1/sessions")).json()["total"] == 0

            await eventually(given_up)

    @pytest.mark.parametrize("how", ["reset", "close", "abort"])
    async def test_what_ended_elsewhere_keeps_its_history(self, guess, monkeypatch, how):
        """The seat saw the session alive last, and it has been finished since."""
        monkeypatch.setattr(socket, "GRACE", 0.0)
        async with player(guess) as ws, httpx.AsyncClient(base_url=f"http://{guess}", timeout=PATIENCE) as http:
            one = Player(ws)
            session_id = (await one.reset(seed=5))["metadata"]["session_id"]
            await http.post(f"/v1/sessions/{session_id}/finish", json={"turn": 0, "reason": "elsewhere"})
            if how == "reset":
                await one.reset(seed=6)
            elif how == "close":
                await one.send("close")
                await ws.wait_closed()
            else:
                ws.transport.abort()
                await asyncio.sleep(0.3)
            history = await http.get(f"/v1/sessions/{session_id}/history")
            assert (history.status_code, len(history.json().get("steps", ()))) == (200, 1)

    async def test_a_session_that_is_gone_is_said_so_and_the_seat_is_free(self, guess):
        async with player(guess) as ws, httpx.AsyncClient(base_url=f"http://{guess}", timeout=PATIENCE) as http:
            one = Player(ws)
            session_id = (await one.reset(seed=5))["metadata"]["session_id"]
            await http.delete(f"/v1/sessions/{session_id}")
            for kind, data in (("state", None), ("step", {"text": "5"})):
                error = await one.error(kind, data)
                assert (error["code"], error["problem"]) == ("SESSION_ERROR", "session-deleted")
            assert (await one.reset(seed=6))["metadata"]["task_id"] == "guess/train/6"

    async def test_a_bad_reset_costs_no_episode(self, guess):
        async with player(guess) as ws:
            one = Player(ws)
            await one.reset(seed=5)
            assert (await one.error("reset", {"task_id": "maze/train/1"}))["code"] == "VALIDATION_ERROR"
            assert (await one.step("5"))["reward"] == 1.0

    async def test_resets_leak_nothing(self):
        async with live([toys.Guess], max_sessions=1) as (address, _), player(address) as ws:
            for index in range(5):
                await Player(ws).reset(index=index)

    async def test_a_reply_that_nobody_waits_for_is_not_given_to_the_next_request(self, slow, gate):
        async with player(slow) as ws:
            one = Player(ws)
            await one.reset(index=0)
            await one.send("step", {"text": gate.text})
            with pytest.raises(TimeoutError):  # as the older client does it: it goes on with the same socket
                await asyncio.wait_for(ws.recv(), 0.05)
            gate.open()
            second = await one.step("second")
            assert second["observation"]["text"] == "slept, second"
            assert second["metadata"]["turn"] == 2
            third = await one.step("third")
            assert third["observation"]["text"] == "slept, third"

    async def test_a_reply_that_is_too_late_ends_the_connection_and_loses_nothing(self, slow, gate, monkeypatch):
        async with player(slow) as ws:
            one = Player(ws)
            session_id = (await one.reset(index=0))["metadata"]["session_id"]
            with monkeypatch.context() as impatient:
                impatient.setattr(socket, "REPLY_WITHIN", 0.05)
                with pytest.raises(ConnectionClosed) as closed:
                    await one.step(gate.text)
            assert closed.value.rcvd.code == 1011
        gate.open()
        async with player(slow, f"/ws?session_id={session_id}") as ws:
            one = Player(ws)

            async def one_step():
                return (await one.state())["step_count"] == 1

            await eventually(one_step)

    async def test_a_new_socket_is_not_silently_a_new_episode(self, guess):
        async with player(guess) as ws:
            await Player(ws).reset()
            await Player(ws).step("1")
        async with player(guess) as ws:
            error = await Player(ws).error("step", {"text": "2"})
            assert "reset first" in error["message"]
            assert (await Player(ws).state())["episode_id"] is None

    async def test_a_lost_connection_can_be_taken_up(self, guess):
        async with player(guess) as ws:
            one = Player(ws)
            await one.reset(seed=5)
            seen = await one.step("7")
            ws.transport.abort()
        async with player(guess, f"/ws?session_id={seen['metadata']['session_id']}") as ws:
            one = Player(ws)
            assert (await one.state())["log_hash"] == seen["metadata"]["log_hash"]
            assert (await one.step("5"))["reward"] == 1.0

    async def test_overload_over_http_says_when_to_try_again(self):
        async with (
            live([toys.Guess], max_sessions=1) as (address, _),
            httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE) as http,
        ):
            assert (await http.post("/reset", json={})).status_code == 200
            full = await http.post("/reset", json={})
            assert (full.status_code, full.json()["type"]) == (503, "urn:turnwise:too-many-sessions")
            assert int(full.headers["retry-after"]) == full.json()["retry_after"] > 0

    async def test_json_of_a_hundred_thousand_values_is_refused(self, guess):
        text = json.dumps({"type": "reset", "data": {"options": {"x": [[]] * 100_000}}})
        async with player(guess) as ws, httpx.AsyncClient(base_url=f"http://{guess}", timeout=PATIENCE) as http:
            await ws.send(text)
            refused = await Player(ws).receive()
            assert (refused["data"]["code"], "values" in refused["data"]["message"]) == ("VALIDATION_ERROR", True)
            answer = await http.post("/mcp", content=text, headers={"content-type": "application/json"})
            assert (answer.json()["error"]["code"], "values" in answer.json()["error"]["message"]) == (-32600, True)

    async def test_by_its_owner_only(self, guess):
        url = f"ws://{guess}/ws"
        async with connect(url, additional_headers=bearer("ann")) as hers:
            session_id = (await Player(hers).reset())["metadata"]["session_id"]
            async with connect(f"{url}?session_id={session_id}", additional_headers=bearer("bob")) as his:
                answer = await Player(his).receive()
                assert (answer["type"], answer["data"]["code"]) == ("error", "SESSION_ERROR")
                with pytest.raises(ConnectionClosed):
                    await his.recv()

    async def test_idleness_does_not_end_an_episode_under_a_live_socket(self):
        async with live([toys.Guess], idle_timeout=2.5) as (address, _), player(address) as ws:
            one = Player(ws)
            await one.reset(seed=5)
            await asyncio.sleep(4)
            assert (await one.step("5"))["reward"] == 1.0

    async def test_http_without_a_session_is_refused_and_with_one_has_state(self, guess):
        async with httpx.AsyncClient(base_url=f"http://{guess}", timeout=PATIENCE) as http:
            for method, path, body in (("POST", "/step", {"action": {"text": "1"}}), ("GET", "/state", None)):
                answer = await http.request(method, path, json=body)
                assert answer.status_code == 409
                assert "session_id" in answer.json()["detail"]
            reset = (await http.post("/reset", json={"seed": 5})).json()
            at = {"session_id": reset["metadata"]["session_id"]}
            for turn in (1, 2):
                body = {"action": {"text": "7"}, "timeout_s": 3.0}
                told = (await http.post("/step", json=body, params=at)).json()
                assert told["metadata"]["turn"] == turn
                assert (await http.get("/state", params=at)).json()["step_count"] == turn
            assert (await http.post("/step", json={"action": {"x": 1}}, params=at)).status_code == 422
            assert (await http.post("/step", json={"deed": {}}, params=at)).status_code == 422
            gone = await http.get("/state", params={"session_id": "s_0"})
            assert (gone.status_code, gone.json()["type"]) == (404, "urn:turnwise:not-found")
            await http.delete(f"/v1/sessions/{at['session_id']}")
            assert (await http.get("/state", params=at)).status_code == 410

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
    def test_it_is_light(self):
        """OpenEnv takes 3.4 s and 151 MiB to import, because Gradio and FastMCP come with it.

        The time is not checked here, where others want the processor too; it is 0.9 s on a busy machine.
        """
        code = (
            "import sys, turnwise_server.openenv, turnwise_server.app;"
            "heavy = {'gradio', 'fastmcp', 'mcp', 'openenv', 'openai', 'torch', 'numpy', 'pandas'} & set(sys.modules);"
            # (getrusage would give the peak of the process that it was forked from.)
            "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1];"
            "print(int(peak) / 1024, sorted(heavy))"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        mib, heavy = said.split(maxsplit=1)
        assert heavy.strip() == "[]"
        assert float(mib) < 100

    async def test_a_hung_environment_holds_up_no_other(self, slow):
        async with player(slow) as hung, player(slow) as fine:
            await Player(hung).reset(index=0)
            await Player(hung).send("step", {"text": "hang"})
            await Player(fine).reset(index=0)
            await Player(fine).step("x")  # the other one hangs for as long as it is left


class TestTools:
    async def test_a_step_that_calls_a_tool(self, calculator):
        async with player(calculator) as ws:
            one = Player(ws)
            await one.reset()
            call = {"type": "call_tool", "tool_name": "add", "arguments": {"a": 1, "b": 2}, "metadata": {}}
            told = (await one.ask("step", call))["data"]
            assert (told["observation"]["result"], told["observation"]["tool_name"]) == ("3", "add")
            assert (told["observation"]["error"], told["reward"]) == (None, 0.5)
            tools = (await one.ask("step", {"type": "list_tools"}))["data"]["observation"]["tools"]
            assert [tool["name"] for tool in tools] == ["add"]
            assert set(tools[0]) == {"name", "description", "input_schema"}
            assert (await one.state())["step_count"] == 1  # asking is no turn

    async def test_our_own_action(self, calculator):
        async with player(calculator) as ws:
            one = Player(ws)
            await one.reset()
            call = {"id": "c0_0", "name": "add", "arguments": {"a": 4, "b": 5}}
            told = await one.ask("step", {"text": "I add.", "tool_calls": [call]})
            assert told["data"]["observation"]["text"] == "9"

    async def test_json_rpc_over_the_socket_acts_in_its_episode(self, calculator):
        async with player(calculator) as ws:
            one = Player(ws)
            await one.reset()
            request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
            call = {"name": "add", "arguments": {"a": 1, "b": 1}}
            answer = (await one.ask("mcp", {**request, "params": call}))["data"]
            assert answer["id"] == 1
            assert (answer["result"]["data"], answer["result"]["reward"]) == ("2", 0.5)
            assert (await one.state())["step_count"] == 1

    async def rpc(self, http, method, params=None, **more):
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}, **more}
        answer = await http.post("/mcp", json=body)
        assert answer.status_code == 200
        assert answer.json()["id"] == 7
        return answer.json()

    async def test_json_rpc_over_http(self, calculator):
        async with httpx.AsyncClient(base_url=f"http://{calculator}", timeout=PATIENCE) as http:
            listed = await self.rpc(http, "tools/list")
            assert [tool["name"] for tool in listed["result"]["tools"]] == ["add"]
            call = {"name": "add", "arguments": {"a": 1, "b": 2}}
            assert (await self.rpc(http, "tools/call", call))["error"]["code"] == -32602
            session_id = (await self.rpc(http, "openenv/session/create"))["result"]["session_id"]
            for turn in (1, 2):
                result = (await self.rpc(http, "tools/call", {**call, "session_id": session_id}))["result"]
                assert result["content"] == [{"type": "text", "text": "3"}]
                assert (result["isError"], result["metadata"]["turn"]) == (False, turn)
            closed = (await self.rpc(http, "openenv/session/close", {"session_id": session_id}))["result"]
            assert closed == {"session_id": session_id, "closed": True}
            gone = await self.rpc(http, "tools/call", {**call, "session_id": session_id})
            assert (gone["error"]["code"], gone["error"]["data"]["problem"]) == (-32602, "session-deleted")

    @pytest.mark.parametrize(
        ("method", "params", "code"),
        [
            ("dance", {}, -32601),
            ("tools/call", {"name": "sub", "session_id": "S"}, -32602),
            ("tools/call", {"session_id": "S"}, -32602),
            ("tools/call", {"name": "add", "arguments": [], "session_id": "S"}, -32602),
            ("tools/call", {"name": "add", "session_id": 7}, -32602),
            ("tools/call", {"name": "add", "session_id": "s_0"}, -32602),
            ("openenv/session/close", {}, -32602),
            ("openenv/session/create", {"colour": 1}, -32602),
        ],
    )
    async def test_json_rpc_refusals(self, calculator, method, params, code):
        async with httpx.AsyncClient(base_url=f"http://{calculator}", timeout=PATIENCE) as http:
            session_id = (await self.rpc(http, "openenv/session/create"))["result"]["session_id"]
            params = {key: session_id if value == "S" else value for key, value in params.items()}
            assert (await self.rpc(http, method, params))["error"]["code"] == code

    @pytest.mark.parametrize(("text", "code"), [("x", -32700), ("[]", -32600), ('{"id": 1}', -32600)])
    async def test_what_is_no_json_rpc(self, calculator, text, code):
        async with (
            httpx.AsyncClient(base_url=f"http://{calculator}", timeout=PATIENCE) as http,
            player(calculator, "/mcp") as ws,
        ):
            answer = await http.post("/mcp", content=text, headers={"content-type": "application/json"})
            assert answer.json()["error"]["code"] == code
            await ws.send(text)
            assert (await Player(ws).receive())["error"]["code"] == code

    async def test_json_rpc_alone_on_a_socket(self, calculator):
        async with player(calculator, "/mcp") as ws:
            for turn in (1, 2):
                params = {"name": "add", "arguments": {"a": 1, "b": 2}}
                await ws.send(json.dumps({"jsonrpc": "2.0", "id": turn, "method": "tools/call", "params": params}))
                assert (await Player(ws).receive())["result"]["metadata"]["turn"] == turn

    async def test_environments_without_tools_have_one_for_words(self, guess):
        async with httpx.AsyncClient(base_url=f"http://{guess}", timeout=PATIENCE) as http:
            [tool] = (await self.rpc(http, "tools/list"))["result"]["tools"]
            assert tool["name"] == "act"
            session_id = (await self.rpc(http, "openenv/session/create", {"index": 5}))["result"]["session_id"]
            params = {"name": "act", "arguments": {"text": "5"}, "session_id": session_id}
            assert (await self.rpc(http, "tools/call", params))["result"]["reward"] == 1.0

    async def test_a_seat_made_over_http_is_one_with_its_socket(self, calculator):
        """OpenEnv's MCP client makes a session over HTTP, resets it over the socket, and calls tools over HTTP."""
        call = {"name": "add", "arguments": {"a": 1, "b": 2}}
        async with httpx.AsyncClient(base_url=f"http://{calculator}", timeout=PATIENCE) as http:
            session_id = (await self.rpc(http, "openenv/session/create"))["result"]["session_id"]
            async with player(calculator, f"/ws?session_id={session_id}") as ws:
                one = Player(ws)
                assert (await one.reset(index=6))["observation"]["text"] == "Task 6 of train."
                result = (await self.rpc(http, "tools/call", {**call, "session_id": session_id}))["result"]
                assert result["metadata"]["task_id"] == "calculator/train/6"
                # the socket did not see that turn; it is told so once, and then goes on
                assert (await one.error("step", {"text": "x"}))["problem"] == "turn-conflict"
                assert (await one.ask("step", {"text": "x"}))["data"]["metadata"]["turn"] == 2

    async def test_seats_that_moved_are_not_remembered_for_ever(self, monkeypatch):
        monkeypatch.setattr(seat, "MOVED", 2)
        seats = seat.Seats()
        for number in range(4):
            seats.move(f"seat {number}", f"session {number}")
        assert [seats.current(f"seat {number}") for number in range(4)] == [
            "seat 0",
            "seat 1",
            "session 2",
            "session 3",
        ]


class TestTaskApi:
    @pytest.fixture
    async def http(self, calculator):
        async with httpx.AsyncClient(base_url=f"http://{calculator}", timeout=PATIENCE) as http:
            yield http

    async def test_what_there_is(self, http):
        assert (await http.get("/list_environments")).json() == ["calculator"]
        assert (await http.get("/Calculator/splits")).json() == [
            {"name": "train", "type": "train"},
            {"name": "valid", "type": "validation"},
        ]
        assert (await http.post("/calculator/num_tasks", json={"split": "train"})).json() == {"num_tasks": 7}

    async def test_tasks(self, http):
        all_of_them = (await http.post("/calculator/tasks", json={"split": "valid"})).json()
        assert all_of_them["env_name"] == "calculator"
        assert [task["id"] for task in all_of_them["tasks"]] == [f"calculator/valid/{index}" for index in range(3)]
        one = (await http.post("/calculator/task", json={"split": "train", "index": 6})).json()["task"]
        assert one["instruction"] == "Task 6 of train."

    @pytest.mark.parametrize(
        ("start", "stop", "indices"),
        [(2, 4, [2, 3]), (None, None, list(range(7))), (5, None, [5, 6]), (None, 2, [0, 1]), (5, 100, [5, 6]),
         (-2, None, [5, 6]), (4, 2, [])],
    )  # fmt: skip
    async def test_ranges_are_slices(self, http, start, stop, indices):
        body = {"split": "train", "start": start, "stop": stop}
        answer = await http.post("/calculator/task_range", json=body)
        assert [task["index"] for task in answer.json()["tasks"]] == indices

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            ("maze/tasks", {"split": "train"}, 404),
            ("calculator/tasks", {"split": "none"}, 400),
            ("calculator/task", {"split": "train", "index": 7}, 400),
            ("calculator/task", {"split": "train", "index": -1}, 400),
            ("calculator/task", {"split": "train"}, 422),
            ("calculator/num_tasks", {}, 422),
        ],
    )
    async def test_refusals(self, http, path, body, status):
        answer = await http.post(f"/{path}", json=body)
        assert answer.status_code == status
        assert answer.json()["detail"]

    async def test_a_split_without_end(self, guess):
        async with httpx.AsyncClient(base_url=f"http://{guess}", timeout=PATIENCE) as http:
            for path in ("tasks", "num_tasks", "task_range"):
                assert (await http.post(f"/guess/{path}", json={"split": "open"})).status_code == 501
            body = {"split": "open", "start": 10**6, "stop": 10**6 + 2}
            tasks = (await http.post("/guess/task_range", json=body)).json()["tasks"]
            assert [task["index"] for task in tasks] == [10**6, 10**6 + 1]
            assert (await http.post("/guess/task_range", json=body | {"stop": 10**8})).status_code == 400
            assert (await http.post("/guess/task_range", json=body | {"stop": 10**30})).status_code == 422

    async def test_what_it_is(self, http):
        assert (await http.get("/health")).json() == {"status": "healthy"}
        metadata = (await http.get("/metadata")).json()
        assert (metadata["name"], metadata["version"]) == ("calculator", "1")
        schema = (await http.get("/schema")).json()
        assert set(schema) == {"action", "observation", "state"}
        assert "tool_calls" in schema["action"]["properties"]


async def test_tokens_are_asked_for():
    async with live([toys.Guess], TOKENS, host="0.0.0.0") as (address, _):
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=PATIENCE) as http:
            assert (await http.get("/list_environments")).status_code == 401
            for path, body in (("/reset", {}), ("/guess/num_tasks", {"split": "train"}), ("/mcp", {})):
                assert (await http.post(path, json=body, headers=bearer("graph"))).status_code == 403
        with pytest.raises(InvalidStatus) as refused:
            await player(address)
        assert refused.value.response.status_code == 401
        async with connect(f"ws://{address}/ws", additional_headers=bearer("ann")) as ws:
            assert (await Player(ws).reset())["done"] is False


async def test_a_page_from_elsewhere_gets_no_socket(guess):
    with pytest.raises(InvalidStatus):
        await connect(f"ws://{guess}/ws", additional_headers={"origin": "http://evil.test"})
