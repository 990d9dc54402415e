"""The rules of a turn: taken once, answered from the log, joined in flight, refused in the protocol's order."""

from __future__ import annotations

import asyncio

from toy_environments import Guess, Slow
from waiting import eventually

from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Action


async def test_a_session_is_the_episode(api):
    """The whole answer of create, step and history equals what the episode itself says."""
    created = (await api.create(index=42, seed=7, options={"max_turns": 5})).json()
    twin = await LiveEpisode.start(Guess, "train", 42, 7, {"max_turns": 5})
    assert created["task"] == twin.task.model_dump()
    assert created["observation"] == twin.initial.model_dump()
    assert created["log_hash"] == twin.initial_hash
    assert (created["turn"], created["status"], created["max_turns"]) == (0, "live", 5)
    assert (created["env"], created["env_version"], created["seed"]) == ("guess", "1", 7)
    sid = created["session_id"]
    assert sid.startswith("s_")
    assert len(sid) == 34

    for turn, text in enumerate(["10", "90", "42"]):
        answer = await api.step(sid, turn, text)
        result = await twin.step(Action(text=text))
        assert answer.status_code == 200
        assert answer.headers["x-turnwise-protocol"] == "1"
        assert answer.json() == {
            "session_id": sid,
            "turn": turn + 1,
            **result.model_dump(),
            "status": "done" if text == "42" else "live",
            "log_hash": twin.log_hash,
        }
    history = (await api.get(sid, "/history")).json()
    assert history["initial"] == created
    assert [step["action"]["text"] for step in history["steps"]] == ["10", "90", "42"]
    assert [step["log_hash"] for step in history["steps"]] == [record.log_hash for record in twin.records]
    now = (await api.get(sid)).json()
    assert now == {
        **created,
        "turn": 3,
        "status": "done",
        "observation": twin.observation.model_dump(),
        "log_hash": twin.log_hash,
    }


async def test_a_taken_turn_answers_again_and_happens_once(api):
    sid = await api.open(index=42)
    Guess.steps.clear()
    first = await api.step(sid, 0, "10")
    await api.step(sid, 1, "11")
    again = await api.step(sid, 0, "10")
    assert again.status_code == 200
    assert again.json() == first.json()
    assert Guess.steps == {"10": 1, "11": 1}


async def test_an_equal_action_may_be_written_differently(api):
    """Equal canonical bytes count: defaults may be given or left out."""
    sid = await api.open()
    first = await api.step(sid, 0, "10")
    body = {"action": {"tool_calls": [], "text": "10"}, "turn": 0}
    again = await api.http.post(f"/v1/sessions/{sid}/step", json=body)
    assert again.json() == first.json()


async def test_refusals_come_in_order(api, refusal):
    sid = await api.open(index=42)
    await api.step(sid, 0, "10")
    refusal(await api.step(sid, 0, "11"), "turn-conflict")
    assert "is at turn 1" in refusal(await api.step(sid, 2, "11"), "turn-ahead")
    assert (await api.step(sid, 1, "42")).json()["terminated"] is True
    refusal(await api.step(sid, 0, "11"), "turn-conflict")
    refusal(await api.step(sid, 3, "11"), "turn-ahead")
    assert "ended at turn 2" in refusal(await api.step(sid, 2, "11"), "session-done")
    assert (await api.step(sid, 1, "42")).status_code == 200  # the last turn can still be asked for
    refusal(await api.finish(sid, 2), "session-done")


async def test_the_last_turn_is_scored(api):
    sid = await api.open(index=42, options={"max_turns": 2})
    await api.step(sid, 0, "1")
    last = (await api.step(sid, 1, "2")).json()
    assert (last["truncated"], last["terminated"], last["status"]) == (True, False, "done")
    assert last["reward"] == -0.5
    assert last["info"]["end"] == "max_turns"


async def test_concurrent_duplicates_are_one_step(api):
    sid = await api.open("slow")
    Slow.steps.clear()
    answers = await asyncio.gather(*(api.step(sid, 0, "same") for _ in range(5)))
    assert Slow.steps == {"same": 1}
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1


async def test_of_two_different_actions_at_once_one_is_taken(api, refusal):
    sid = await api.open("slow")
    Slow.steps.clear()
    one, other = await asyncio.gather(api.step(sid, 0, "one"), api.step(sid, 0, "other"))
    assert one.status_code == 200
    refusal(other, "turn-conflict")
    assert Slow.steps == {"one": 1}


async def test_the_same_words_at_the_next_turn_are_another_step(api, refusal, gate):
    """Somebody repeats an action at the next turn while the first is in flight: ahead, and then a turn of its own."""
    sid = await api.open("slow")
    Slow.steps.clear()
    first = asyncio.create_task(api.step(sid, 0, gate.text))
    await eventually(lambda: Slow.steps[gate.text])
    refusal(await api.step(sid, 1, gate.text), "turn-ahead")
    gate.open()
    assert (await first).json()["turn"] == 1
    assert (await api.step(sid, 1, gate.text)).json()["turn"] == 2
    assert Slow.steps == {gate.text: 2}


async def test_a_step_outlives_the_client_that_sent_it(api, gate):
    sid = await api.open("slow")
    Slow.steps.clear()
    sent = asyncio.create_task(api.step(sid, 0, gate.text))
    await eventually(lambda: Slow.steps[gate.text])
    sent.cancel()
    await asyncio.wait({sent})
    gate.open()
    answer = await api.step(sid, 0, gate.text)
    assert answer.json()["observation"]["messages"][0]["content"] == f"slept, {gate.text}"
    assert Slow.steps == {gate.text: 1}


async def test_finish(api, refusal):
    sid = await api.open(index=42)
    await api.step(sid, 0, "10")
    refusal(await api.finish(sid, 0), "turn-conflict")
    refusal(await api.finish(sid, 2), "turn-ahead")
    before = Guess.alive
    answer = (await api.finish(sid, 1, "context_overflow")).json()
    assert Guess.alive == before - 1  # a finished session holds no environment
    assert (answer["turn"], answer["truncated"], answer["status"]) == (1, True, "done")
    assert answer["info"]["end"] == "finished:context_overflow"
    assert answer["reward"] == -0.5
    assert (await api.finish(sid, 1, "context_overflow")).json() == answer
    refusal(await api.finish(sid, 1, "bored"), "turn-conflict")
    refusal(await api.step(sid, 1, "42"), "session-done")
    last = (await api.get(sid, "/history")).json()["steps"][-1]
    assert last == {**answer, "action": None}


async def test_a_slow_session_does_not_hold_up_others(api, gate):
    """Twenty sessions are in the middle of a step at once."""
    sids = [await api.open("slow", index=index) for index in range(20)]
    steps = [asyncio.create_task(api.step(sid, 0, gate.text)) for sid in sids]
    await eventually(lambda: Slow.steps[gate.text] == 20)
    gate.open()
    assert all(answer.status_code == 200 for answer in await asyncio.gather(*steps))


async def test_blocking_environments_run_beside_the_loop(api):
    sid = await api.open("blocking")
    assert (await api.step(sid, 0, "x")).json()["observation"]["messages"][0]["content"] == "done"
