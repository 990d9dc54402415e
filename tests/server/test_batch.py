"""POST /v1/batch: many calls in one request."""

import asyncio

import pytest
from toy_environments import Guess, Slow
from waiting import eventually

from turnwise_server.batch import MAX_CALLS


async def batch(api, *calls, **kwargs):
    answer = await api.http.post("/v1/batch", json={"requests": list(calls)}, **kwargs)
    assert answer.status_code == 200, answer.text
    return [(reply["status"], reply["body"]) for reply in answer.json()["responses"]]


def call(method, path, body=None, **more):
    return {"method": method, "path": path, "body": body, **more}


def step(sid, turn, text):
    return call("POST", f"/v1/sessions/{sid}/step", {"turn": turn, "action": {"text": text}})


async def test_replies_are_what_http_would_answer_and_in_order(api):
    sid = await api.open(index=5)
    calls = [
        call("POST", "/v1/sessions", {"env": "guess", "index": 3, "key": "a"}),
        call("GET", f"/v1/sessions/{sid}"),
        call("GET", "/v1/envs"),
        call("GET", "/v1/envs/guess"),
        call("GET", "/v1/envs/guess/tasks?split=train&offset=2&limit=1"),
        call("GET", "/v1/sessions?status=done&limit=5"),
        call("GET", f"/v1/sessions/{sid}/history"),
        call("GET", f"/v1/sessions/{sid}/reference"),
        call("POST", "/v1/sessions", {"env": "guess", "index": -1}),
        call("POST", "/v1/sessions", {"env": "maze"}),
        call("GET", "/v1/envs/guess/tasks?limit=x"),
        call("GET", "/v1/envs/%67uess"),
        call("GET", "/v1/nothing"),
        call("GET", "/v1/sessions/"),
        call("DELETE", "/v1/envs"),
    ]
    replies = await batch(api, *calls)
    for each, (status, body) in zip(calls, replies, strict=True):
        alone = await api.http.request(each["method"], each["path"], json=each["body"])
        if each["body"] and each["body"].get("key"):
            assert (status, alone.status_code) == (201, 200)
        else:
            assert status == alone.status_code
        said = alone.json()
        if status == 405:  # the wording is Starlette's there
            said["detail"] = body["detail"]
        assert body == said


async def test_every_operation_can_be_called(api):
    [(status, made)] = await batch(api, call("POST", "/v1/sessions", {"env": "guess", "index": 5}))
    assert status == 201
    sid = made["session_id"]
    [(status, stepped)] = await batch(api, step(sid, 0, "1"))
    assert (status, stepped["turn"]) == (200, 1)
    [(status, forked)] = await batch(api, call("POST", f"/v1/sessions/{sid}/fork", {"count": 2, "key": "k"}))
    assert (status, len(forked["sessions"])) == (201, 2)
    [(status, ended)] = await batch(api, call("POST", f"/v1/sessions/{sid}/finish", {"turn": 1, "reason": "x"}))
    assert (status, ended["status"]) == (200, "done")
    assert await batch(api, call("DELETE", f"/v1/sessions/{sid}")) == [(204, None)]
    assert (await api.get(sid)).status_code == 410


async def test_calls_run_at_once(api, gate):
    sids = [await api.open("slow", index=index) for index in range(32)]
    asked = asyncio.create_task(batch(api, *(step(sid, 0, gate.text) for sid in sids)))
    await eventually(lambda: Slow.steps[gate.text] == 32)
    gate.open()
    replies = await asked
    assert [status for status, _ in replies] == [200] * 32
    assert [body["session_id"] for _, body in replies] == sids


async def test_the_same_step_twice_in_a_batch_happens_once(api):
    sid = await api.open("slow")
    text = f"twice {sid}"
    (one, first), (two, second) = await batch(api, step(sid, 0, text), step(sid, 0, text))
    assert (one, two) == (200, 200)
    assert first == second
    assert Slow.steps[text] == 1


@pytest.mark.parametrize(
    "bad",
    [
        7,
        None,
        {},
        {"method": "GET"},
        {"method": "GET", "path": 5},
        {"method": "GET", "path": "/v1/envs", "colour": "red"},
        {"method": "GET", "path": "/v1/envs", "body": {}},
        {"method": "POST", "path": "/v1/sessions"},
        {"method": "POST", "path": "/v1/batch", "body": {"requests": []}},
        {"method": "GET", "path": "/v1/ws"},
    ],
)
async def test_a_bad_call_is_refused_alone(api, bad):
    (ok, _), (status, problem), (fine, _) = await batch(api, call("GET", "/v1/envs"), bad, call("GET", "/v1/envs"))
    assert (ok, fine) == (200, 200)
    assert status == 422
    assert problem["type"] == "urn:turnwise:invalid-request"


async def test_what_is_no_batch(api, refusal):
    async def post(content, content_type="application/json"):
        return await api.http.post("/v1/batch", content=content, headers={"content-type": content_type})

    assert "requests" in refusal(await post(b"{}"), "invalid-request")
    refusal(await post(b'{"requests": {}}'), "invalid-request")
    refusal(await post(b'{"requests": []}', "text/plain"), "invalid-request")
    refusal(await post(b'{"requests": [' + b"[" * 300 + b"]" * 300 + b"]}"), "invalid-request")
    refusal(await post(b'{"requests": [' + b"7," * 3_000_000 + b"7]}"), "payload-too-large")
    detail = refusal(await post(b'{"requests": [' + b"7," * MAX_CALLS + b"7]}"), "invalid-request")
    assert f"at most {MAX_CALLS}" in detail
    assert (await post(b'{"requests": []}')).json() == {"responses": []}


async def test_a_batch_speaks_for_its_caller(api, as_user):
    hers = await api.open(headers=as_user("ann"))
    [(status, _)] = await batch(api, step(hers, 0, "1"), headers=as_user("bob"))
    assert status == 404
    [(status, _)] = await batch(api, step(hers, 0, "1"), headers=as_user("ann"))
    assert status == 200
    replies = await batch(
        api, call("GET", f"/v1/sessions/{hers}/reference"), call("GET", "/v1/envs"), headers=as_user("ann")
    )
    assert [status for status, _ in replies] == [403, 200]


async def test_one_hung_call_does_not_keep_the_others_from_running(serve):
    api = await serve(step_timeout=2)
    slow, quick = await api.open("slow"), await api.open("guess", index=5)
    text = f"quick {quick}"
    waiting = asyncio.create_task(batch(api, step(slow, 0, "hang"), step(quick, 0, text)))
    await eventually(lambda: Guess.steps[text])
    assert not waiting.done()
    (failed, _), (fine, _) = await waiting
    assert (failed, fine) == (500, 200)
