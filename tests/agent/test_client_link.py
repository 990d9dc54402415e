"""One server as a client sees it: answers, refusals, silence, other versions."""

import json
import time

import httpx
import pytest
from ports import held

from turnwise_agent import errors
from turnwise_agent.client import SyncClient, TurnwiseClient
from turnwise_agent.errors import AgentError, BadToken, IncompatibleServer, Overloaded, ServerUnreachable

MARK = {"x-turnwise-protocol": "1"}
ENVS = {"items": [{"id": "maze", "version": "3", "colour": "red"}], "total": 1, "served_by": "a newer server"}


def answering(*answers, patience=60.0):
    """A client whose server gives these answers, one after the other (exceptions are raised), and what was asked."""
    left, asked = list(answers), []

    def handle(request):
        asked.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return TurnwiseClient("http://maze.test", transport=httpx.MockTransport(handle), patience=patience), asked


def ok(body=ENVS, **headers):
    return httpx.Response(200, json=body, headers={**MARK, **headers})


def problem(kind, status, detail="because.", urn="urn:turnwise:", headers=MARK, **more):
    body = {"type": urn + kind, "title": kind, "status": status, "detail": detail, **more}
    content_type = {"content-type": "application/problem+json"}
    return httpx.Response(status, content=json.dumps(body), headers={**headers, **content_type})


async def test_fields_of_newer_servers_are_ignored():
    client, _ = answering(ok())
    [spec] = await client.envs()
    assert (spec.id, spec.version, spec.max_turns) == ("maze", "3", 30)


async def test_a_spec_is_asked_for_once():
    client, asked = answering(ok(ENVS["items"][0]))
    assert await client.spec("a/b") is await client.spec("a/b")
    assert [request.url.raw_path for request in asked] == [b"/v1/envs/a%2Fb"]


async def test_tasks_are_asked_for_by_page():
    client, asked = answering(ok({"items": [], "total": None}))
    page = await client.tasks("maze", "test", offset=20, limit=5)
    assert page.total is None
    assert str(asked[0].url) == "http://maze.test/v1/envs/maze/tasks?split=test&offset=20&limit=5"


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut off"),
        httpx.Response(502, text="<h1>Bad gateway</h1>"),
        httpx.Response(503),
        httpx.Response(504),
        problem("too-many-sessions", 503),
        problem("overloaded", 429),
    ],
)
async def test_what_may_pass_is_tried_again(fault):
    client, asked = answering(fault, fault, ok())
    assert (await client.envs())[0].id == "maze"
    assert len(asked) == 3
    assert (client.stats.requests, client.stats.retries) == (3, 2)


async def test_a_wait_that_the_server_asks_for_is_kept():
    client, _ = answering(problem("overloaded", 429, retry_after=0.5), ok())
    before = time.monotonic()
    await client.envs()
    assert time.monotonic() - before >= 0.5


async def test_retry_after_as_a_header():
    client, _ = answering(httpx.Response(503, headers={"retry-after": "1"}), ok())
    before = time.monotonic()
    await client.envs()
    assert time.monotonic() - before >= 1.0


async def test_a_wait_beyond_the_patience_is_not_begun():
    client, asked = answering(problem("too-many-sessions", 503, "4096 are live", retry_after=50), patience=2.0)
    before = time.monotonic()
    with pytest.raises(Overloaded, match=r"GET /v1/envs: 4096 are live \(too-many-sessions\)\. Open fewer") as caught:
        await client.envs()
    assert time.monotonic() - before < 40
    assert len(asked) == 1
    assert caught.value.problem.retry_after == 50


async def test_nobody_there():
    holder = held()
    address = f"http://127.0.0.1:{holder.getsockname()[1]}"
    async with TurnwiseClient(address, patience=2.0) as client:
        with pytest.raises(ServerUnreachable) as caught:
            await client.create("maze")
    text = str(caught.value)
    assert f"no answer from {address} within 2 s" in text
    assert "turnwise serve" in text
    assert "\n" not in text
    assert client.stats.retries >= 1


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("not-found", 404, errors.SessionGone),
        ("unknown-task", 404, errors.InvalidRequest),
        ("invalid-request", 422, errors.InvalidRequest),
        ("turn-conflict", 409, errors.TurnConflict),
        ("turn-ahead", 409, errors.TurnConflict),
        ("session-done", 409, errors.SessionDone),
        ("step-indeterminate", 409, errors.StepIndeterminate),
        ("replay-mismatch", 409, errors.ReplayMismatch),
        ("not-forkable", 409, errors.NotForkable),
        ("session-deleted", 410, errors.SessionGone),
        ("env-failed", 500, errors.EnvFailed),
        ("unauthorized", 401, errors.Unauthorized),
        ("forbidden", 403, errors.Forbidden),
        ("payload-too-large", 413, errors.InvalidRequest),
        ("of-the-future", 418, errors.ProtocolError),
    ],
)
async def test_a_refusal_is_an_error_of_its_own_and_final(kind, status, expected):
    client, asked = answering(problem(kind, status))
    with pytest.raises(expected) as caught:
        await client.envs()
    assert type(caught.value) is expected
    assert caught.value.type == kind
    assert str(caught.value).startswith(f"GET /v1/envs: because ({kind})")
    assert len(asked) == 1


async def test_every_problem_of_the_protocol_has_its_error():
    from turnwise_agent.client.problems import error_for, make_problem
    from turnwise_envs.wire import PROBLEMS

    for kind in PROBLEMS:
        assert type(error_for(make_problem(kind, "x"), "GET /")) is not errors.ProtocolError


async def test_a_fault_of_the_server_is_said_in_its_words():
    client, _ = answering(problem("about:blank", 500, "a fault of the server; its log says more", urn=""))
    with pytest.raises(errors.ProtocolError, match="a fault of the server; its log says more"):
        await client.envs()


async def test_another_protocol_version():
    client, _ = answering(ok(**{"x-turnwise-protocol": "2"}))
    with pytest.raises(IncompatibleServer, match=r"http://maze\.test speaks version 2 .* this client version 1"):
        await client.envs()


@pytest.mark.parametrize("answer", [httpx.Response(200, json=ENVS), httpx.Response(404, text="nothing here")])
async def test_something_else_lives_there(answer):
    client, _ = answering(answer)
    with pytest.raises(IncompatibleServer, match=r"does not answer like a Turnwise server .*missing"):
        await client.envs()


async def test_an_answer_that_is_none():
    client, _ = answering(ok({"items": [{"id": 7}], "total": 1}))
    with pytest.raises(IncompatibleServer, match=r"EnvPage that this client cannot read: items\.0\.id"):
        await client.envs()


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://x", "", "http://", "http://x:port"])
def test_an_address_that_is_none(address):
    with pytest.raises(AgentError, match=r"address|URL"):
        TurnwiseClient(address)


async def test_a_request_that_makes_no_sense_is_not_sent():
    client, asked = answering()
    with pytest.raises(errors.InvalidRequest, match="create: index: Input should be greater than or equal to 0"):
        await client.create("maze", index=-1)
    assert asked == []


def test_errors_survive_pickling():
    import pickle

    from turnwise_agent.client.problems import error_for, make_problem

    error = error_for(make_problem("turn-conflict", "taken"), "POST /v1/sessions/s/step")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.TurnConflict
    assert str(again) == str(error)
    assert again.problem == error.problem


class TestTokens:
    async def sent(self, **arguments):
        seen = []

        def handle(request):
            seen.append(request.headers.get("authorization"))
            return ok()

        async with TurnwiseClient("http://maze.test", transport=httpx.MockTransport(handle), **arguments) as client:
            await client.envs()
        return seen

    async def test_argument_then_file_then_variable(self, tmp_path, monkeypatch):
        file = tmp_path / "tokens.jsonl"
        file.write_text('\n{"name": "trainer", "token": "from-file", "scopes": ["act"]}\n')
        assert await self.sent() == [None]
        monkeypatch.setenv("TURNWISE_TOKEN", "from-variable")
        assert await self.sent() == ["Bearer from-variable"]
        assert await self.sent(token_file=file) == ["Bearer from-file"]
        assert await self.sent(token="given", token_file=file) == ["Bearer given"]
        other = tmp_path / "others.jsonl"
        other.write_text('{"token": "from-named-file"}')
        monkeypatch.setenv("TURNWISE_TOKEN_FILE", str(other))
        assert await self.sent() == ["Bearer from-variable"]
        assert await self.sent(token_file=file) == ["Bearer from-file"]
        monkeypatch.delenv("TURNWISE_TOKEN")
        assert await self.sent() == ["Bearer from-named-file"]

    async def test_a_file_is_read_again_when_its_token_is_refused(self, tmp_path):
        file = tmp_path / "tokens.jsonl"
        file.write_text('{"token": "old"}')
        seen = []

        def handle(request):
            seen.append(request.headers["authorization"])
            return ok() if seen[-1] == "Bearer new" else problem("unauthorized", 401, "unknown token")

        async with TurnwiseClient("http://maze.test", token_file=file, transport=httpx.MockTransport(handle)) as client:
            with pytest.raises(errors.Unauthorized, match=r"unknown token \(unauthorized\)\. Set TURNWISE_TOKEN_FILE"):
                await client.envs()
            file.write_text('{"token": "new"}')
            await client.envs()
            await client.envs()
        assert seen == ["Bearer old", "Bearer old", "Bearer new", "Bearer new"]

    @pytest.mark.parametrize("content", ["", "secret-but-no-json", '["token"]', '{"token": 5}', '{"name": "x"}'])
    def test_a_file_without_tokens(self, tmp_path, content):
        file = tmp_path / "tokens.jsonl"
        file.write_text(content)
        with pytest.raises(BadToken) as caught:
            TurnwiseClient(token_file=file)
        assert "secret" not in str(caught.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(BadToken, match="cannot read token file"):
            TurnwiseClient(token_file=tmp_path / "none")

    @pytest.mark.parametrize("token", ["", "two words", "naïve", "line\nbreak"])
    def test_a_token_that_fits_no_header(self, token):
        with pytest.raises(BadToken, match="printable ASCII"):
            TurnwiseClient(token=token)


def test_the_synchronous_client_raises_the_same_errors():
    with (
        SyncClient("http://maze.test", transport=httpx.MockTransport(lambda _: problem("forbidden", 403))) as client,
        pytest.raises(errors.Forbidden, match="trainer"),
    ):
        client.envs()
    client.close()  # a second time is fine
