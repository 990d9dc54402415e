"""Opening, replaying, forking, listing and giving up sessions."""

from __future__ import annotations

import asyncio

import pytest
from toy_environments import Guess, Slow
from waiting import eventually

from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Action
from turnwise_envs.wire import CreateRequest
from turnwise_server.auth import ANONYMOUS, Caller
from turnwise_server.log import Intent
from turnwise_server.refusal import Refusal
from turnwise_server.settings import Settings
from turnwise_server.store import SessionStore


def acts(*texts: str) -> list[dict]:
    return [{"text": text} for text in texts]


async def test_create_is_idempotent_by_key(api, refusal, as_user):
    first = await api.create(index=3, key="a")
    sid = first.json()["session_id"]
    await api.step(sid, 0, "10")
    again = await api.create(index=3, key="a")
    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.json()["session_id"], again.json()["turn"]) == (sid, 1)
    assert "key" in refusal(await api.create(index=4, key="a"), "invalid-request")
    assert (await api.create(index=3, key="a", headers=as_user("ann"))).status_code == 201  # keys have owners
    assert (await api.create(index=3)).json()["session_id"] != sid
    await api.delete(sid)
    refusal(await api.create(index=3, key="a"), "session-deleted")


async def test_concurrent_creates_with_one_key_make_one_session(api):
    answers = await asyncio.gather(*(api.create("slow", actions=acts("a"), key="same") for _ in range(4)))
    assert len({answer.json()["session_id"] for answer in answers}) == 1
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]


async def test_a_failed_create_frees_its_key(api, refusal):
    refusal(await api.create("crashing", index=13, key="x"), "env-failed")
    assert (await api.create("crashing", index=1, key="x")).status_code == 201


async def test_replay(api, refusal):
    original = await api.open(index=42, seed=5)
    for turn, text in enumerate(["1", "2", "3"]):
        await api.step(original, turn, text)
    view = (await api.get(original)).json()
    replayed = await api.create(index=42, seed=5, actions=acts("1", "2", "3"), expect_hash=view["log_hash"])
    assert replayed.status_code == 201
    assert {**replayed.json(), "session_id": original} == view

    before = Guess.alive
    other = await api.create(index=42, seed=6, actions=acts("1", "2", "3"), expect_hash=view["log_hash"])
    assert view["log_hash"] in refusal(other, "replay-mismatch")
    too_long = await api.create(index=1, actions=acts("1", "2"))
    assert "ended at turn 1" in refusal(too_long, "replay-mismatch")
    assert Guess.alive == before  # what was opened for a refused replay is closed


async def test_a_replay_may_end_the_episode(api, refusal):
    view = (await api.create(index=1, actions=acts("0", "1"))).json()
    assert (view["status"], view["turn"]) == ("done", 2)
    refusal(await api.step(view["session_id"], 2, "1"), "session-done")


async def test_forks_equal_fresh_replays(api):
    """By snapshot (now) and by replay (earlier), and then each goes its own way with the same randomness."""
    parent = await api.open(index=42, seed=9)
    for turn, text in enumerate(["1", "2", "3"]):
        await api.step(parent, turn, text)
    for at_turn in (0, 2, 3, None):
        answer = await api.fork(parent, key=f"k{at_turn}", at_turn=at_turn, count=2)
        assert answer.status_code == 201
        prefix = ["1", "2", "3"][:at_turn]
        twin = await LiveEpisode.replay(Guess, "train", 42, 9, {}, [Action(text=text) for text in prefix])
        sessions = answer.json()["sessions"]
        assert [view["turn"] for view in sessions] == [len(prefix)] * 2
        assert [view["log_hash"] for view in sessions] == [twin.log_hash] * 2
        assert len({view["session_id"] for view in sessions} | {parent}) == 3
        await twin.step(Action(text="50"))
        for view in sessions:
            step = await api.step(view["session_id"], len(prefix), "50")
            assert step.json()["log_hash"] == twin.log_hash
    assert (await api.get(parent)).json()["turn"] == 3


async def test_fork_is_idempotent_by_key(api, refusal):
    parent = await api.open()
    first = await api.fork(parent, key="x", count=2)
    again = await api.fork(parent, key="x", count=2)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    refusal(await api.fork(parent, key="x", count=3), "invalid-request")
    other = await api.open()
    assert (await api.fork(other, key="x", count=2)).status_code == 201  # a key belongs to its parent
    await api.delete(first.json()["sessions"][0]["session_id"])
    refusal(await api.fork(parent, key="x", count=2), "session-deleted")


async def test_a_fork_awaits_the_step_in_flight(api):
    parent = await api.open("slow")
    step, forked = await asyncio.gather(api.step(parent, 0, "a"), api.fork(parent))
    view = forked.json()["sessions"][0]
    assert view["turn"] == 1
    assert view["log_hash"] == step.json()["log_hash"]


async def test_a_finished_parent_forks(api, refusal):
    parent = await api.open(index=42)
    await api.step(parent, 0, "1")
    ended = (await api.finish(parent, 1, "enough")).json()
    done = (await api.fork(parent, key="end")).json()["sessions"][0]
    assert (done["status"], done["turn"], done["log_hash"]) == ("done", 1, ended["log_hash"])
    refusal(await api.step(done["session_id"], 1, "2"), "session-done")
    live = (await api.fork(parent, key="begin", at_turn=0)).json()["sessions"][0]
    assert (live["status"], live["turn"]) == ("live", 0)
    assert (await api.step(live["session_id"], 0, "42")).json()["reward"] == 1.0


async def test_fork_refusals(api, refusal):
    parent = await api.open()
    assert "current turn 0" in refusal(await api.fork(parent, at_turn=1), "invalid-request")
    refusal(await api.fork(parent, key="n", at_turn=-1), "invalid-request")
    refusal(await api.fork(await api.open("live")), "not-forkable")
    liar = await api.open("liar")
    await api.step(liar, 0, "x")
    assert "not deterministic" in refusal(await api.fork(liar), "not-forkable")


async def test_a_fork_is_all_or_nothing(serve, refusal):
    api = await serve(max_sessions=4)
    parent = await api.open()
    answer = await api.fork(parent, key="many", count=4)
    refusal(answer, "too-many-sessions")
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["retry_after"] == 5.0
    assert (await api.http.get("/v1/sessions")).json()["total"] == 1
    assert (await api.fork(parent, key="many", count=3)).status_code == 201
    refusal(await api.create(), "too-many-sessions")


async def test_only_live_sessions_count_against_the_limit(serve, refusal):
    api = await serve(max_sessions=2)
    sids = [await api.open(index=1) for _ in range(2)]
    refusal(await api.create(), "too-many-sessions")
    for sid in sids:
        await api.step(sid, 0, "1")
    third = await api.open(index=1)
    await api.step(third, 0, "1")
    refusal(await api.get(sids[0]), "session-expired")  # two finished ones are kept, the oldest gives way
    assert (await api.get(sids[1], "/history")).status_code == 200


async def test_delete(api, refusal):
    sid = await api.open()
    before = Guess.alive
    assert (await api.delete(sid)).status_code == 204
    assert (await api.delete(sid)).status_code == 204
    refusal(await api.get(sid), "session-deleted")
    refusal(await api.step(sid, 0, "1"), "session-deleted")
    refusal(await api.delete("s_unknown"), "not-found")
    await eventually(lambda: Guess.alive == before - 1)  # environments are closed beside the answer


async def test_deleting_during_a_step_answers_all_who_wait(api, refusal):
    """The step in flight, its duplicate, another action and a fork; none of them touches a closed environment."""
    sid = await api.open("slow")
    Slow.steps.clear()
    waiting = [
        asyncio.create_task(call)
        for call in (api.step(sid, 0, "hang"), api.step(sid, 0, "hang"), api.step(sid, 0, "go"), api.fork(sid))
    ]
    await eventually(lambda: Slow.steps["hang"] and api.app.state.desk.intake.in_flight == 4)
    before = Slow.alive
    assert (await api.delete(sid)).status_code == 204
    for answer in await asyncio.gather(*waiting):
        refusal(answer, "session-deleted")
    assert Slow.steps == {"hang": 1}
    await eventually(lambda: Slow.alive == before - 1)


async def test_deleting_while_a_request_arrives(api, refusal):
    sid = await api.open()
    Guess.steps.clear()

    async def slow_body():
        yield b'{"turn": 0, '
        assert (await api.delete(sid)).status_code == 204
        yield b'"action": {"text": "late"}}'

    headers = {"content-type": "application/json"}
    refusal(await api.http.post(f"/v1/sessions/{sid}/step", content=slow_body(), headers=headers), "session-deleted")
    assert not Guess.steps


async def test_idle_sessions_expire(gate):
    """By a clock of our own: ten seconds without a request, and not ten seconds of work."""
    now = 0.0
    store = SessionStore({"guess": Guess, "slow": Slow}, Settings(idle_timeout=10), clock=lambda: now)
    caller = Caller(ANONYMOUS, frozenset({"act"}))
    idle, _ = await store.create(caller, CreateRequest(env="guess", key="k"))
    asked, _ = await store.create(caller, CreateRequest(env="guess"))
    working, _ = await store.create(caller, CreateRequest(env="slow"))
    step = asyncio.create_task(working.submit(Intent.step(0, Action(text=gate.text))))
    await asyncio.sleep(0)
    before = Guess.alive
    now = 9.0
    assert await store.get(caller, asked.id) is asked
    now = 10.5
    await store.sweep()  # ``working`` is served right now
    page = await store.page(caller, None, 0, 10)
    assert [item.session_id for item in page.items] == [asked.id, working.id]
    gate.open()
    await step
    now = 20.4
    assert await store.get(caller, working.id) is working  # its time began anew when the step was done
    for lost in (idle, asked):
        with pytest.raises(Refusal) as refused:
            await store.get(caller, lost.id)
        assert refused.value.problem == "session-expired"
    with pytest.raises(Refusal) as refused:
        await store.create(caller, CreateRequest(env="guess", key="k"))
    assert refused.value.problem == "session-expired"
    await store.delete(caller, idle.id)  # as good as deleted
    await store.close()
    assert Guess.alive == before - 2


async def test_the_sweeper_frees_what_nobody_asks_for(serve, refusal):
    api = await serve(idle_timeout=0.1)
    before = Guess.alive
    sid = (await api.create()).json()["session_id"]
    await eventually(lambda: Guess.alive == before)
    refusal(await api.get(sid), "session-expired")
    assert (await api.delete(sid)).status_code == 204


async def test_listing(api, refusal, as_user):
    sids = [await api.open(index=1) for _ in range(3)]
    await api.step(sids[1], 0, "1")
    await api.open(headers=as_user("ann"))
    page = (await api.http.get("/v1/sessions")).json()
    assert [item["session_id"] for item in page["items"]] == sids
    assert page["total"] == 3
    assert page["items"][1] == {
        "session_id": sids[1],
        "env": "guess",
        "task_id": "guess/train/1",
        "turn": 1,
        "status": "done",
    }
    live = (await api.http.get("/v1/sessions", params={"status": "live", "offset": 1, "limit": 5})).json()
    assert ([item["session_id"] for item in live["items"]], live["total"]) == ([sids[2]], 2)
    refusal(await api.http.get("/v1/sessions?status=asleep"), "invalid-request")
    refusal(await api.http.get("/v1/sessions?limit=1001"), "invalid-request")
    assert refusal(await api.http.get("/v1/sessions?page=2"), "invalid-request").startswith("page: ")


async def test_environments_and_tasks(api, refusal):
    page = (await api.http.get("/v1/envs")).json()
    assert [spec["id"] for spec in page["items"]] == ["guess", "slow", "crashing", "liar", "live", "blocking"]
    assert (await api.http.get("/v1/envs/guess")).json() == Guess.spec.model_dump()
    tasks = (await api.http.get("/v1/envs/guess/tasks?offset=98&limit=10")).json()
    assert ([task["id"] for task in tasks["items"]], tasks["total"]) == (["guess/train/98", "guess/train/99"], 100)
    unbounded = (await api.http.get("/v1/envs/slow/tasks?split=open&offset=1000000&limit=1")).json()
    assert (unbounded["items"][0]["index"], unbounded["total"]) == (1000000, None)
    assert "guess, slow" in refusal(await api.http.get("/v1/envs/chess"), "unknown-env")
    refusal(await api.http.get("/v1/envs/chess/tasks"), "unknown-env")
    refusal(await api.http.get("/v1/envs/guess/tasks?split=test"), "unknown-task")
    refusal(await api.create("chess"), "unknown-env")
    refusal(await api.create(index=100), "unknown-task")
    refusal(await api.create(split="test"), "unknown-task")


async def test_a_stopping_server_gives_up_what_is_in_flight(serve):
    """The lifespan ends with a step in flight and an unfinished create: both are given up, and nothing hangs."""
    api = await serve(step_timeout=3600)
    sid = await api.open("slow")
    Slow.steps.clear()
    waiting = [
        asyncio.create_task(api.step(sid, 0, "hang")),
        asyncio.create_task(api.create("slow", actions=acts("hang"), key="x")),
    ]
    await eventually(lambda: Slow.steps == {"hang": 2})
    async with asyncio.timeout(60):
        await api.app.state.store.close()
        await asyncio.wait(waiting)
