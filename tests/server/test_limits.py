"""Admission: what does not fit is refused at once, what was let in goes on, and a stopping server finishes it."""

from __future__ import annotations

import asyncio
import resource
import time

import pytest
from toy_environments import Slow
from waiting import eventually

from turnwise_server.limits import Intake, descriptors
from turnwise_server.refusal import Refusal


def test_operations_are_bounded_in_all_and_for_each_client():
    intake = Intake(most=3, most_each=2, most_bytes=100)
    intake.enter("ann")
    intake.enter("ann")
    with pytest.raises(Refusal, match="you have 2 operations") as refused:
        intake.enter("ann")
    assert (refused.value.problem, refused.value.retry_after) == ("overloaded", 1.0)
    intake.enter("bob")
    with pytest.raises(Refusal, match="3 operations are in flight"):
        intake.enter("eve")
    intake.leave("ann")
    intake.enter("eve")
    assert intake.in_flight == 3


def test_bytes_of_bodies_are_bounded():
    intake = Intake(most=3, most_each=3, most_bytes=100)
    intake.reserve(60)
    with pytest.raises(Refusal, match="60 bytes"):
        intake.reserve(41)
    intake.reserve(40)
    intake.free(60)
    intake.reserve(60)


async def test_a_stopping_intake_waits_for_what_is_inside():
    intake = Intake(most=3, most_each=3, most_bytes=100)
    intake.enter("ann")
    intake.stop()
    with pytest.raises(Refusal, match="stopping"):
        intake.enter("ann")
    assert not await intake.idle(0.01)
    asyncio.get_running_loop().call_later(0.02, intake.leave, "ann")
    assert await intake.idle(60)


def test_descriptors_are_raised_only_as_far_as_they_may(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert [descriptors(1000), descriptors(2000), descriptors(10_000)] == [1024, 2000, 4096]
    assert asked == [(2000, 4096), (4096, 4096)]


async def test_overload_is_refused_while_admitted_work_goes_on(serve, refusal, as_user, gate):
    api = await serve(max_requests=3, max_client_requests=2)
    sid, other = await api.open("slow"), await api.open("slow")
    hers = await api.open("slow", headers=as_user("ann"))
    steps = [asyncio.create_task(api.step(one, 0, gate.text)) for one in (sid, other)]
    await eventually(lambda: Slow.steps[gate.text] == 2)
    answer = await api.get(sid)
    assert "you have 2" in refusal(answer, "overloaded")
    assert answer.headers["retry-after"] == "1"
    steps.append(asyncio.create_task(api.step(hers, 0, gate.text, headers=as_user("ann"))))
    await eventually(lambda: Slow.steps[gate.text] == 3)
    refusal(await api.get(hers, headers=as_user("bob")), "overloaded")
    assert (await api.http.get("/healthz")).status_code == 200
    assert (await api.http.get("/metrics")).status_code == 200  # overload can be seen
    gate.open()
    assert [answer.status_code for answer in await asyncio.gather(*steps)] == [200, 200, 200]
    assert (await api.get(sid)).status_code == 200


async def test_each_call_of_a_batch_counts(serve, gate):
    api = await serve(max_requests=4, max_client_requests=4)
    sids = [await api.open("slow") for _ in range(5)]
    calls = [
        {"method": "POST", "path": f"/v1/sessions/{sid}/step", "body": {"turn": 0, "action": {"text": gate.text}}}
        for sid in sids
    ]
    sent = asyncio.create_task(api.http.post("/v1/batch", json={"requests": calls}))
    await eventually(lambda: api.app.state.metrics.rejections["overloaded"] == 2)
    gate.open()
    answer = (await sent).json()
    assert [reply["status"] for reply in answer["responses"]] == [200, 200, 200, 429, 429]  # the batch is one as well
    assert answer["responses"][3]["body"]["type"] == "urn:turnwise:overloaded"


async def test_large_bodies_wait_outside(serve, refusal):
    """The memory of a large body is spoken for before it is read, and given back."""
    api = await serve(max_body=200_000, max_buffered=200_000)
    reading, release = asyncio.Event(), asyncio.Event()

    async def slowly():
        reading.set()
        yield b'{"env": "guess", "options": {"note": "'
        await release.wait()
        yield b'"}}'

    json = {"content-type": "application/json"}
    first = asyncio.create_task(api.http.post("/v1/sessions", content=slowly(), headers=json))
    await reading.wait()
    large = {"note": "x" * 50_000}
    refusal(await api.create(options=large), "overloaded")
    assert (await api.create()).status_code == 201  # a small one needs no room
    release.set()
    assert (await first).status_code == 201
    assert (await api.create(options=large)).status_code == 201


async def test_a_body_that_says_it_is_too_large_is_not_read(serve, refusal):
    api = await serve(max_body=2000)

    async def never():
        yield b"{"
        raise AssertionError("the body was read")

    headers = {"content-type": "application/json", "content-length": "40000"}
    answer = await api.http.post("/v1/sessions", content=never(), headers=headers)
    refusal(answer, "payload-too-large")


async def test_a_body_of_a_million_little_values_is_refused_quickly(api, refusal):
    json = {"content-type": "application/json"}
    for little in (b"[]", rb'"\""'):
        note = b"[" + b",".join([little] * 60_000) + b"]"
        body = b'{"env": "guess", "options": {"note": ' + note + b"}}"
        began = time.process_time()
        assert "50000 values" in refusal(
            await api.http.post("/v1/sessions", content=body, headers=json), "invalid-request"
        )
        assert time.process_time() - began < 20  # in quadratic time it is minutes
    long = {"note": ',[{"' * 60_000}  # the same signs in a string are only text
    assert (await api.create(options=long)).status_code == 201


async def test_nothing_is_let_in_after_the_stop(api, refusal, gate):
    sid = await api.open("slow")
    step = asyncio.create_task(api.step(sid, 0, gate.text))
    await eventually(lambda: Slow.steps[gate.text])
    api.app.state.desk.stop()
    answer = await api.create()
    refusal(answer, "overloaded")
    assert answer.headers["retry-after"] == "5"
    gate.open()
    assert await api.app.state.desk.idle(60)
    assert (await step).status_code == 200
