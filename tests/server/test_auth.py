"""Who may do what: the loopback rule behind proxies, names, origins, and tokens files."""

from __future__ import annotations

import pytest

from turnwise_server.auth import Token, Tokens, read_tokens
from turnwise_server.refusal import Refusal
from turnwise_server.settings import Settings


async def test_what_a_proxy_forwards_does_not_come_from_this_machine(api, refusal, as_user):
    for header in ("x-forwarded-for", "forwarded"):
        refusal(await api.http.get("/v1/envs", headers={header: "for=198.51.100.7"}), "unauthorized")
        headers = {header: "for=198.51.100.7", **as_user("ann")}
        assert (await api.http.get("/v1/envs", headers=headers)).status_code == 200


async def test_under_another_allowed_name_a_token_is_needed(serve, refusal, as_user):
    api = await serve(allowed_hosts="Lab.Example, [2001:db8::1]")
    refusal(await api.http.get("/v1/envs", headers={"host": "lab.example"}), "unauthorized")
    for name in ("lab.example", "LAB.example:443", "[2001:db8::1]:8000"):
        assert (await api.http.get("/v1/envs", headers={"host": name, **as_user("ann")})).status_code == 200
    assert (await api.http.get("/v1/envs")).status_code == 200
    refusal(await api.http.get("/v1/envs", headers={"host": "evil.example", **as_user("ann")}), "forbidden")


async def test_off_loopback_names_can_be_bound_too(serve, refusal, as_user):
    api = await serve(host="0.0.0.0", allowed_hosts="envs")
    assert (await api.http.get("/v1/envs", headers={"host": "envs:8000", **as_user("ann")})).status_code == 200
    refusal(await api.http.get("/v1/envs", headers={"host": "127.0.0.1:8000", **as_user("ann")}), "forbidden")


async def test_metrics_need_their_scope_off_loopback(serve, refusal, as_user):
    api = await serve(host="0.0.0.0")
    refusal(await api.http.get("/metrics"), "unauthorized")
    refusal(await api.http.get("/metrics", headers=as_user("ann")), "forbidden")
    assert (await api.http.get("/metrics", headers=as_user("graph"))).status_code == 200
    assert (await (await serve()).http.get("/metrics")).status_code == 200


async def test_two_tokens_are_none(api, refusal, as_user):
    """A proxy and we might believe different ones."""
    twice = [("authorization", as_user(name)["authorization"]) for name in ("ann", "root")]
    refusal(await api.http.get("/v1/sessions/s_0", headers=twice), "forbidden")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:3000", "http://[", "file://"])
async def test_pages_of_others_open_no_socket(api, origin):
    status, problem = await handshake(api, origin)
    assert (status, problem) == (403, "urn:turnwise:forbidden")


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:8000", "https://lab.example"])
async def test_our_own_pages_and_programs_do(serve, origin):
    api = await serve(allowed_origins="https://Lab.example")
    assert await handshake(api, origin) == (101, None)


async def test_a_socket_needs_the_host_and_the_token_as_well(serve, api):
    assert (await handshake(api, None, host=b"evil.example"))[0] == 403
    assert (await handshake(await serve(host="0.0.0.0"), None))[0] == 401


async def handshake(api, origin: str | None, host: bytes = b"127.0.0.1:8000") -> tuple[int, str | None]:
    """Status and problem type of a handshake; 101 is a socket."""
    import json

    headers = [(b"host", host)] + ([] if origin is None else [(b"origin", origin.encode())])
    incoming = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
    sent = []

    async def receive():
        return incoming.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/v1/ws",
        "query_string": b"",
        "headers": headers,
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
    await api.app(scope, receive, send)
    if sent[0]["type"] == "websocket.accept":
        return 101, None
    return sent[0]["status"], json.loads(sent[1]["body"])["type"]


def test_names_in_variables(monkeypatch):
    monkeypatch.setenv("TURNWISE_ALLOWED_HOSTS", "a.example,B.example  c.example")
    assert Settings().allowed_hosts == {"a.example", "b.example", "c.example"}
    assert Settings().allowed_origins == frozenset()


def test_a_token_does_not_show():
    token = Token(name="ann", token="very-secret-token-1", scopes=frozenset({"act"}))
    assert "very-secret-token-1" not in repr(token)
    assert "very-secret-token-1" not in repr(Tokens([token]).caller("Bearer very-secret-token-1", local=False))


def test_scopes_do_not_grow():
    tokens = Tokens([Token(name="graph", token="graph-token-0123456789", scopes=frozenset({"metrics"}))])
    assert tokens.caller("bearer graph-token-0123456789", local=False).scopes == {"metrics"}
    with pytest.raises(Refusal, match="lacks scope 'act'"):
        tokens.caller("Bearer graph-token-0123456789", local=False).require("act")
    assert tokens.caller("Bearer graph-token-0123456789", local=True).scopes == {"metrics", "act"}


@pytest.mark.parametrize("token", ["has a blank inside it", "über-geheimes-zeichen", "line\\nline-0123456789"])
def test_a_token_that_no_header_can_carry_is_refused(tmp_path, token):
    path = tmp_path / "tokens.jsonl"
    path.write_text(f'{{"name": "a", "token": "{token}", "scopes": []}}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: token: ") as refused:
        read_tokens(path)
    assert token not in str(refused.value)
