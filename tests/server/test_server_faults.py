"""Environments that raise, hang, lie or try to exit: tried once more, then failed for good, and never a reward."""

from __future__ import annotations

import logging

import pytest
from toy_environments import Crashing, Slow


@pytest.fixture(autouse=True)
def _fresh_crashes():
    Crashing.seen.clear()
    Crashing.closed.clear()


async def test_one_crash_is_survived(api, caplog):
    """The session is rebuilt to turn 1 and the action runs once more; the hash is that of an undisturbed one."""
    sid = await api.open("crashing")
    await api.step(sid, 0, "a")
    answer = await api.step(sid, 1, "crash once")
    assert answer.status_code == 200
    assert answer.json()["turn"] == 2
    undisturbed = await api.open("crashing", actions=[{"text": "a"}, {"text": "crash once"}])
    assert answer.json()["log_hash"] == (await api.get(undisturbed)).json()["log_hash"]
    assert sum(Crashing.closed.values()) == 1  # the lost environment, and not the rebuilt one
    assert "secret-answer" in caplog.text  # whoever runs the server learns why


async def test_two_crashes_fail_the_session(api, refusal):
    sid = await api.open("crashing")
    await api.step(sid, 0, "a")
    detail = refusal(await api.step(sid, 1, "crash"), "env-failed")
    assert "KeyError" in detail
    assert "secret-answer" not in detail
    view = (await api.get(sid)).json()
    assert (view["status"], view["turn"]) == ("failed", 1)
    history = (await api.get(sid, "/history")).json()
    assert [(step["turn"], step["reward"], step["status"]) for step in history["steps"]] == [(1, 0.5, "live")]
    refusal(await api.step(sid, 1, "b"), "env-failed")
    refusal(await api.finish(sid, 1), "env-failed")
    refusal(await api.fork(sid), "env-failed")
    assert (await api.step(sid, 0, "a")).status_code == 200
    refusal(await api.step(sid, 0, "b"), "turn-conflict")
    assert set(Crashing.closed.values()) == {1}
    assert len(Crashing.closed) == 2  # the lost and the rebuilt environment, each closed once


@pytest.mark.parametrize("text", ["exit", "cancel"])
async def test_an_environment_cannot_take_the_server_down(api, refusal, text):
    sid = await api.open("crashing")
    refusal(await api.step(sid, 0, text), "env-failed")
    assert (await api.http.get("/healthz")).status_code == 200


async def test_a_hanging_step_is_cut_off_twice(serve, refusal):
    api = await serve(step_timeout=2)
    sid = await api.open("slow")
    await api.step(sid, 0, "a")
    Slow.steps.clear()
    assert "TimeoutError" in refusal(await api.step(sid, 1, "hang"), "env-failed")
    assert Slow.steps == {"hang": 2, "a": 1}
    assert (await api.get(sid)).json()["status"] == "failed"


async def test_a_hanging_reset_is_cut_off_and_closed(serve, refusal):
    api = await serve(step_timeout=0.3)
    before = Slow.alive
    refusal(await api.create("slow", index=99), "env-failed")
    assert Slow.alive == before


async def test_a_liar_cannot_be_rebuilt(api, refusal):
    sid = await api.open("liar")
    await api.step(sid, 0, "x")
    refusal(await api.step(sid, 1, "crash"), "env-failed")
    assert len((await api.get(sid, "/history")).json()["steps"]) == 1


async def test_what_is_not_deterministic_is_not_tried_again(api, refusal):
    sid = await api.open("live")
    assert "not tried again" in refusal(await api.step(sid, 0, "crash"), "env-failed")


async def test_a_crash_in_reset(api, refusal, caplog):
    with caplog.at_level(logging.WARNING):
        detail = refusal(await api.create("crashing", index=13), "env-failed")
    assert "secret-13" not in detail
    assert "secret-13" in caplog.text
    assert (await api.http.get("/v1/sessions")).json()["total"] == 0


async def test_failed_sessions_do_not_count_as_live(serve, refusal):
    api = await serve(max_sessions=1)
    refusal(await api.step(await api.open("crashing"), 0, "crash"), "env-failed")
    assert (await api.create("crashing")).status_code == 201
