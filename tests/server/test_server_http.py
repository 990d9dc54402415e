"""What HTTP adds: bodies, limits, tokens, hosts, problem documents and the pages about the service."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from toy_environments import Guess

from turnwise_server.app import create_app
from turnwise_server.settings import Settings

JSON = {"content-type": "application/json"}


async def post(api, path: str, content: bytes, content_type: str = "application/json") -> httpx.Response:
    return await api.http.post(path, content=content, headers={"content-type": content_type})


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"env": "guess", "sed": 1}', "sed: "),
        (b'{"env": "guess", "index": "1"}', "index: "),
        (b'{"env": "guess", "index": -1}', "index: "),
        (b'{"env": "guess", "seed": 9007199254740993}', ""),
        (b'{"env": "guess", "seed": 1e400}', "seed: "),
        (b'{"env": "guess", "options": {"note": 123456789012345678901234567890}}', ""),
        (b'{"env": "guess", "options": {"note": NaN}}', ""),
        (b'{"env": "guess", "options": {"note": "\\ud800"}}', "body: "),
        (b'{"env": "guess", "options": {"note": ' + b"[" * 5000 + b"]" * 5000 + b"}}", "body: "),
        (b'{"env": "guess", "options": {"max_turns": 0}}', "options of 'guess': max_turns"),
        (b'{"env": "guess", "options": {"turns": 3}}', "options of 'guess'"),
        (b'{"env": "guess", "key": ""}', "key: "),
        (b'{"env": "guess", "actions": [{"text": 3}]}', "actions.0.text: "),
        (b'{"env": "guess"', "body: "),
        (b"", "body: "),
        (b"\xff\xfe", "body: "),
    ],
)
async def test_a_bad_create_is_one_clear_line(api, refusal, body, where):
    assert refusal(await post(api, "/v1/sessions", body), "invalid-request").startswith(where)


@pytest.mark.parametrize(
    "action",
    [
        b'{"text": "\\udc00"}',
        b'{"text": "a", "thought": "b"}',
        b'{"tool_calls": [{"id": "c0_0", "name": "f", "arguments": {"n": 9007199254740993}}]}',
        b'{"tool_calls": [{"id": "c0_0", "name": "f", "arguments": {"n": -1e999}}]}',
        b'{"tool_calls": [{"id": "c0_0", "name": "f", "arguments": {"n": '
        + b'{"n":' * 300
        + b"1"
        + b"}" * 300
        + b"}}]}",
        b'{"tool_calls": [{"name": "f"}]}',
        b"null",
    ],
)
async def test_a_bad_action_is_refused_and_no_turn_is_taken(api, refusal, action):
    sid = await api.open()
    refusal(await post(api, f"/v1/sessions/{sid}/step", b'{"turn": 0, "action": ' + action + b"}"), "invalid-request")
    assert (await api.get(sid)).json()["turn"] == 0


async def test_deep_but_bounded_json_is_fine(api):
    """150 levels parse, are hashed, and come back."""
    sid = await api.open()
    deep = b"[" * 150 + b"]" * 150
    call = b'{"id": "c0_0", "name": "f", "arguments": {"n": ' + deep + b"}}"
    body = b'{"turn": 0, "action": {"tool_calls": [' + call + b"]}}"
    assert (await post(api, f"/v1/sessions/{sid}/step", body)).status_code == 200
    assert (await api.get(sid, "/history")).status_code == 200


async def test_only_json_is_read(api, refusal):
    body = b'{"env": "guess"}'
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert "application/json" in refusal(await post(api, "/v1/sessions", body, content_type), "invalid-request")
    assert (await post(api, "/v1/sessions", body, "application/json; charset=utf-8")).status_code == 201


async def test_bodies_are_bounded(serve, refusal):
    api = await serve(max_body=2000)
    body = json.dumps({"env": "guess", "options": {"note": "x" * 2000}}).encode()
    assert "2000 bytes" in refusal(await post(api, "/v1/sessions", body), "payload-too-large")

    async def chunks():
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    refusal(await api.http.post("/v1/sessions", content=chunks(), headers=JSON), "payload-too-large")
    assert (await api.create(options={"note": "x" * 100})).status_code == 201


async def test_a_detail_does_not_quote_a_whole_body(api, refusal):
    detail = refusal(await api.create(options={"max_turns": "x" * 100_000}), "invalid-request")
    assert len(detail) <= 500


async def test_unknown_paths_and_methods(api, refusal):
    refusal(await api.http.get("/v2/sessions"), "not-found")
    refusal(await api.http.get("/v1/sessions/"), "not-found")
    refusal(await api.get("s_0"), "not-found")
    answer = await api.http.put("/v1/sessions")
    assert (answer.status_code, answer.json()["type"]) == (405, "about:blank")
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.headers["allow"].split(", ")) & {"GET", "POST"}


async def test_a_fault_of_the_server_is_a_problem_too(api, monkeypatch, caplog):
    monkeypatch.setattr("turnwise_server.operations.EnvPage", None)
    answer = await api.http.get("/v1/envs")
    assert (answer.status_code, answer.json()["type"]) == (500, "about:blank")
    assert answer.headers["x-turnwise-protocol"] == "1"
    assert "NoneType" not in answer.text
    assert "NoneType" in caplog.text


async def test_a_reference_needs_the_trainer(api, refusal, as_user):
    sid = await api.open(index=42)
    answer = await api.get(sid, "/reference")
    refusal(answer, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    refusal(await api.get(sid, "/reference", headers=as_user("ann")), "forbidden")
    refusal(await api.get(sid, "/reference", headers=as_user("root")), "forbidden")
    ours = await api.get(sid, "/reference", headers=as_user("coach"))
    assert ours.json() == {"answers": ["42"], "data": {}}
    hers = await api.open(headers=as_user("ann"))
    refusal(await api.get(hers, "/reference", headers=as_user("coach")), "not-found")


async def test_sessions_belong_to_their_tokens_name(api, refusal, as_user):
    hers = await api.open(headers=as_user("ann"))
    for stranger in (as_user("bob"), as_user("coach"), None):
        refusal(await api.get(hers, headers=stranger), "not-found")
        refusal(await api.step(hers, 0, "1", headers=stranger), "not-found")
        refusal(await api.fork(hers, headers=stranger), "not-found")
        refusal(await api.delete(hers, headers=stranger), "not-found")
    assert (await api.step(hers, 0, "1", headers=as_user("ann"))).status_code == 200
    assert (await api.get(hers, headers=as_user("root"))).json()["turn"] == 1
    assert (await api.http.get("/v1/sessions", headers=as_user("root"))).json()["total"] == 1
    assert (await api.http.get("/v1/sessions", headers=as_user("bob"))).json()["total"] == 0
    await api.delete(hers, headers=as_user("ann"))
    refusal(await api.get(hers, headers=as_user("bob")), "not-found")  # nor does its tombstone exist for others
    refusal(await api.get(hers, headers=as_user("ann")), "session-deleted")


async def test_on_loopback_the_trainer_also_acts_on_unnamed_sessions(api, as_user, refusal):
    sid = await api.open()
    assert (await api.step(sid, 0, "1", headers=as_user("coach"))).status_code == 200
    refusal(await api.step(sid, 1, "1", headers=as_user("ann")), "not-found")
    assert (await api.http.get("/v1/sessions", headers=as_user("coach"))).json()["total"] == 1


@pytest.mark.parametrize("header", ["Bearer wrong-token-0123456789", "Bearer ", "Basic YTpi", "Bearer \xff", ""])
async def test_a_wrong_token_is_refused_even_where_none_is_needed(api, refusal, header):
    answer = await api.http.get("/v1/envs", headers={"authorization": header.encode("latin-1")})
    refusal(answer, "unauthorized")


async def test_off_loopback_every_call_needs_a_token(serve, refusal, as_user):
    api = await serve(host="0.0.0.0")
    for path in ("/v1/envs", "/v1/sessions", "/docs", "/openapi.json", "/nothing"):
        refusal(await api.http.get(path), "unauthorized")
    refusal(await api.create(), "unauthorized")
    assert (await api.http.get("/healthz")).json() == {"status": "ok"}
    assert (await api.http.get("/readyz")).json() == {"status": "ready"}
    sid = await api.open(headers=as_user("ann"))
    assert (await api.http.get("/v1/envs", headers={**as_user("ann"), "host": "envs:8000"})).status_code == 200
    refusal(await api.get(sid, headers=as_user("graph")), "forbidden")
    refusal(await api.create(headers=as_user("graph")), "forbidden")
    refusal(await api.get(sid, "/reference", headers=as_user("coach")), "not-found")


async def test_on_loopback_only_our_names_are_answered(api, refusal):
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]:8000", "", "localhost@evil"):
        refusal(await api.http.get("/v1/envs", headers={"host": host}), "forbidden")
    for host in ("127.0.0.1", "127.0.0.1:1", "LOCALHOST:8000", "[::1]:8000", "[::1]"):
        assert (await api.http.get("/v1/envs", headers={"host": host})).status_code == 200
    assert (await api.http.get("/healthz", headers={"host": "10.0.0.7:8000"})).status_code == 200


async def test_readiness_follows_the_lifespan():
    app = create_app([Guess], Settings())
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    assert (await http.get("/readyz")).status_code == 503
    async with app.router.lifespan_context(app):
        assert (await http.get("/readyz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 503


async def test_two_environments_with_one_id_are_refused():
    with pytest.raises(ValueError, match="guess, guess"):
        create_app([Guess, Guess], Settings())


async def test_openapi_is_complete(api):
    document = (await api.http.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        "/v1/batch",
        "/v1/envs",
        "/v1/envs/{env}",
        "/v1/envs/{env}/tasks",
        "/v1/sessions",
        "/v1/sessions/{session_id}",
        "/v1/sessions/{session_id}/step",
        "/v1/sessions/{session_id}/finish",
        "/v1/sessions/{session_id}/fork",
        "/v1/sessions/{session_id}/history",
        "/v1/sessions/{session_id}/reference",
    }
    schemas = document["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= set(schemas)
    assert "HTTPValidationError" not in schemas
    body = document["paths"]["/v1/sessions/{session_id}/step"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/StepRequest"}
    assert schemas["StepRequest"]["required"] == ["turn", "action"]


async def test_the_manual_names_every_refusal_and_call(api):
    manual = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    for path, methods in paths.items():
        assert path.replace("session_id", "id") in manual
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                for name in re.findall(r"`([a-z:-]+)`", answer["description"]):
                    assert re.search(rf"\| {status} \| [^|]*`{name}`", manual), name


async def test_the_docs_page_needs_nothing_from_elsewhere(api):
    answer = await api.http.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"https?:|//[a-z]", answer.text)
    assert 'fetch("openapi.json")' in answer.text
