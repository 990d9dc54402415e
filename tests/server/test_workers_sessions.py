"""Sessions whose environments live in worker processes: protocol.md's "When things break", seen by clients."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from waiting import eventually
from worker_environments import ALL


@pytest.fixture
def start(serve):
    async def start(**settings):
        return await serve(ALL, **{"workers": 1, "step_timeout": 300, **settings})

    return start


def pids(api) -> list[int]:
    return [state.pid for state in api.app.state.workers.states()]


async def hash_of(api, env: str, texts: list[str], **fields) -> str:
    """Where an undisturbed session gets to."""
    sid = await api.open(env, actions=[{"text": text} for text in texts], **fields)
    return (await api.get(sid)).json()["log_hash"]


@pytest.mark.parametrize("env", ["rough", "saving"])
@pytest.mark.parametrize("how", ["exit", "kill", "hang"])
async def test_one_loss_is_survived(start, env, how, tmp_path):
    """The session is rebuilt to turn 2 in a new process and the action runs once more; nobody can tell."""
    api = await start(step_timeout=2.5 if how == "hang" else 300)
    texts = ["a", "b", f"once-{how} {tmp_path / 'mark'}", "c"]
    sid = await api.open(env, index=4)
    answers = [await api.step(sid, turn, text) for turn, text in enumerate(texts)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json()["reward"] for answer in answers] == [0.5] * 4
    assert answers[-1].json()["log_hash"] == await hash_of(api, env, texts, index=4)
    assert api.app.state.metrics.worker_restarts == {"crash": how != "hang", "hang": how == "hang"}


@pytest.mark.parametrize(("how", "kind"), [("exit", "WorkerDied"), ("spin", "TimeoutError"), ("raise", "KeyError")])
async def test_a_second_loss_fails_the_session(start, refusal, caplog, how, kind):
    api = await start(step_timeout=2 if how == "spin" else 300)
    sid = await api.open("rough")
    await api.step(sid, 0, "a")
    detail = refusal(await api.step(sid, 1, how), "env-failed")
    assert kind in detail
    assert "secret-answer" not in detail
    assert how != "raise" or "secret-answer" in caplog.text  # whoever runs the server learns why
    view = (await api.get(sid)).json()
    assert (view["status"], view["turn"]) == ("failed", 1)
    assert len((await api.get(sid, "/history")).json()["steps"]) == 1
    refusal(await api.step(sid, 1, "b"), "env-failed")
    assert (await api.step(sid, 0, "a")).status_code == 200
    other = await api.open("rough")
    assert (await api.step(other, 0, "a")).status_code == 200


async def test_the_neighbours_of_a_crash_go_on(start, refusal):
    """One worker, one session that kills it twice; the others, waiting behind it or idle, lose nothing by it."""
    api = await start()
    bad, waiting, idle = [await api.open("rough", index=index) for index in range(3)]
    for sid in (waiting, idle):
        await api.step(sid, 0, "a")
    crash, step = await asyncio.gather(api.step(bad, 0, "exit"), api.step(waiting, 1, "b"))
    refusal(crash, "env-failed")
    assert step.json()["log_hash"] == await hash_of(api, "rough", ["a", "b"], index=1)
    assert (await api.step(idle, 1, "b")).json()["log_hash"] == await hash_of(api, "rough", ["a", "b"], index=2)
    assert api.app.state.metrics.worker_restarts["crash"] == 2


async def test_a_neighbour_survives_any_number_of_crashes(start):
    """Being moved is not a loss: the second one would be final."""
    api = await start()
    good = await api.open("rough")
    for turn in range(2):
        bad = [await api.open("rough", index=index) for index in range(1, 3)]
        crashes = [asyncio.create_task(api.step(sid, 0, "kill")) for sid in bad]
        await asyncio.sleep(0)
        assert (await api.step(good, turn, "a")).status_code == 200
        assert {answer.status_code for answer in await asyncio.gather(*crashes)} == {500}
    assert (await api.get(good)).json()["log_hash"] == await hash_of(api, "rough", ["a"] * 2)


async def test_a_reset_that_kills_its_worker_is_tried_twice(start, refusal):
    api = await start()
    assert "WorkerDied" in refusal(await api.create("rough", index=66), "env-failed")
    assert api.app.state.metrics.worker_restarts["crash"] == 2


async def test_a_session_can_be_opened_during_a_crash(start):
    api = await start()
    bad = await api.open("rough")
    crash, answer = await asyncio.gather(api.step(bad, 0, "exit"), api.create("rough", index=1))
    assert (crash.status_code, answer.status_code) == (500, 201)


async def test_an_idle_session_does_not_notice_that_its_worker_was_killed(start):
    api = await start()
    sid = await api.open("saving")
    await api.step(sid, 0, "a")
    os.kill(pids(api)[0], signal.SIGKILL)
    assert (await api.step(sid, 1, "b")).json()["log_hash"] == await hash_of(api, "saving", ["a", "b"])


async def test_a_fork_does_not_notice_either(start):
    api = await start()
    for env in ("rough", "saving"):
        sid = await api.open(env)
        await api.step(sid, 0, "a")
        (killed,) = pids(api)
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda killed=killed: killed not in pids(api))
        answer = await api.fork(sid, count=2)
        assert answer.status_code == 201, answer.text
        for child in answer.json()["sessions"]:
            step = await api.step(child["session_id"], 1, "b")
            assert step.json()["log_hash"] == await hash_of(api, env, ["a", "b"])


async def test_what_is_not_deterministic_is_not_tried_again(start, refusal):
    api = await start()
    guilty, innocent = await api.open("fickle"), await api.open("fickle", index=1)
    await api.step(innocent, 0, "a")
    assert "not tried again" in refusal(await api.step(guilty, 0, "exit"), "env-failed")
    refusal(await api.step(innocent, 1, "b"), "session-lost")  # its action did not run, and its state is gone
    assert len((await api.get(innocent, "/history")).json()["steps"]) == 1


async def test_waiting_for_ones_turn_is_not_counted_as_ones_time(start):
    api = await start(step_timeout=4)
    sids = [await api.open("rough", index=index) for index in range(3)]
    answers = await asyncio.gather(*(api.step(sid, 0, "sleep 1.5") for sid in sids))
    assert [answer.status_code for answer in answers] == [200] * 3
    assert api.app.state.metrics.worker_restarts == {"crash": 0, "hang": 0}


async def test_other_sessions_go_on_while_one_hangs(start, refusal):
    """Those of the other worker do not wait for it."""
    api = await start(workers=2, step_timeout=3600)
    bad, good = await api.open("rough"), await api.open("rough", index=1)
    hanging = asyncio.create_task(api.step(bad, 0, "spin"))
    for turn in range(40):
        assert (await api.step(good, turn, "a")).status_code == 200
    assert not hanging.done()
    await api.delete(bad)
    refusal(await hanging, "session-deleted")


async def test_deleting_a_session_that_hangs(start, refusal, tmp_path):
    api = await start(step_timeout=2.0)
    sid = await api.open("rough")
    hanging = asyncio.create_task(api.step(sid, 0, f"once-hang {tmp_path / 'mark'}"))
    await eventually((tmp_path / "mark").exists)
    assert (await api.delete(sid)).status_code == 204
    refusal(await hanging, "session-deleted")
    other = await api.open("rough", index=1)  # waits until the hung call is cut off
    assert (await api.step(other, 0, "a")).status_code == 200
    assert api.app.state.metrics.worker_restarts["hang"] == 1


async def test_a_hanging_or_failing_reset(start, refusal, caplog):
    api = await start(step_timeout=2)
    assert "TimeoutError" in refusal(await api.create("rough", index=99), "env-failed")
    detail = refusal(await api.create("rough", index=13), "env-failed")
    assert "RuntimeError" in detail
    assert "secret-13" not in detail
    assert "secret-13" in caplog.text
    assert (await api.http.get("/v1/sessions")).json()["total"] == 0
    assert [state.episodes for state in api.app.state.workers.states()] == [0]


async def test_tasks_and_references(start, as_user, refusal):
    api = await start()
    page = (await api.http.get("/v1/envs/rough/tasks", params={"offset": 98})).json()
    assert ([task["index"] for task in page["items"]], page["total"]) == ([98, 99], 100)
    refusal(await api.http.get("/v1/envs/rough/tasks", params={"split": "nowhere"}), "unknown-task")
    refusal(await api.create("rough", index=100), "unknown-task")
    refusal(await api.create("rough", options={"sparkle": 1}), "invalid-request")
    sid = await api.open("rough", headers=as_user("coach"))
    assert (await api.get(sid, "/reference", headers=as_user("coach"))).json()["answers"] == ["gold"]


async def test_done_and_deleted_sessions_leave_their_worker(start):
    api = await start()
    won, finished, deleted = [await api.open("rough", index=index) for index in range(3)]
    await api.step(won, 0, "win")
    await api.finish(finished, 0)
    await api.delete(deleted)
    await eventually(lambda: not api.app.state.workers.states()[0].episodes)


async def test_no_process_without_need(serve):
    api = await serve(workers=2)
    await api.open("guess")
    assert pids(api) == []
