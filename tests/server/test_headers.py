"""Headers: what every answer carries, request ids, and requests that contradict themselves."""

from __future__ import annotations

import pytest

from turnwise_server.headers import ALWAYS, Asked, completed, request_id
from turnwise_server.refusal import Refusal


async def test_every_answer_is_closed_to_other_sites(api):
    for path in ("/v1/envs", "/v1/sessions/s_0", "/nothing", "/healthz", "/metrics"):
        headers = (await api.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-turnwise-protocol"] == "1"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


async def test_the_page_may_only_ask_us_and_be_in_no_frame(api):
    policies = (await api.http.get("/docs")).headers.get_list("content-security-policy")
    assert len(policies) == 1
    assert "connect-src 'self'" in policies[0]
    assert "frame-ancestors 'none'" in policies[0]


async def test_a_request_keeps_the_id_it_came_with(api):
    assert (await api.http.get("/v1/envs", headers={"x-request-id": "run-1:7"})).headers["x-request-id"] == "run-1:7"
    for wild in ("a b", "x" * 65, "é", ""):
        answer = await api.http.get("/v1/envs", headers={"x-request-id": wild.encode()})
        assert answer.headers["x-request-id"] not in (wild, "")


def test_new_ids_differ():
    assert request_id([]) != request_id([])


@pytest.mark.parametrize("name", ["host", "authorization", "origin"])
def test_a_header_that_decides_comes_once(name):
    with pytest.raises(Refusal, match=f"{name} came twice"):
        Asked([(name.encode(), b"a"), (b"accept", b"*/*"), (name.encode(), b"b")])
    Asked([(b"accept", b"a"), (b"accept", b"b")])


def test_what_is_asked():
    asked = Asked([(b"host", b"h"), (b"content-length", b"12"), (b"x-forwarded-for", b"1.2.3.4")])
    assert (asked.host, asked.length, asked.chunked, asked.forwarded, asked.origin) == ("h", 12, False, True, None)
    assert Asked([(b"transfer-encoding", b"chunked")]).chunked
    assert Asked([(b"content-length", b"9" * 30)]).length == 0


def test_a_policy_of_its_own_is_kept():
    own = (b"content-security-policy", b"default-src 'self'")
    assert completed([own], "r").count(own) == 1
    assert len(completed([own], "r")) == len(ALWAYS) + 2
