"""Sessions that nobody asks for leave memory, and come back with the next request as if nothing had happened."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest
from toy_environments import Guess, Live, Slow
from waiting import eventually

from turnwise_envs import Action
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.wire import CreateRequest, ForkRequest
from turnwise_server.auth import ANONYMOUS, Caller
from turnwise_server.journal.journal import Journal
from turnwise_server.log import Intent
from turnwise_server.refusal import Refusal
from turnwise_server.settings import Settings
from turnwise_server.store import SessionStore

ME = Caller(ANONYMOUS, frozenset({"act"}))


class Plain(Guess):
    """Without snapshots."""

    spec = Guess.spec.model_copy(update={"id": "plain", "snapshot": False})


class Awake:
    """A store with a journal and a clock of its own."""

    def __init__(self, directory, **settings) -> None:
        self.now = 1000.0
        served = {env.spec.id: env for env in (Guess, Plain, Slow, Live)}
        self.settings = Settings(passivate_after=10, **settings)
        self.journal = Journal.open(directory, served, "normal")
        self.store = SessionStore(served, self.settings, clock=lambda: self.now, journal=self.journal)

    async def open(self, env: str = "guess", index: int = 42, **fields) -> str:
        session, _ = await self.store.create(ME, CreateRequest(env=env, index=index, **fields))
        return session.id

    async def step(self, sid: str, turn: int, text: str):
        return await (await self.store.get(ME, sid)).submit(Intent.step(turn, Action(text=text)))

    async def fork(self, sid: str, at_turn: int | None, count: int) -> list[str]:
        parent = await self.store.get(ME, sid)
        sessions, _ = await self.store.fork(ME, parent, ForkRequest(at_turn=at_turn, count=count, key=f"k{at_turn}"))
        return [session.id for session in sessions]

    async def rest(self, seconds: float = 11.0) -> None:
        self.now += seconds
        await self.store.sweep()

    async def refusal(self, sid: str) -> str:
        with pytest.raises(Refusal) as refused:
            await self.store.get(ME, sid)
        return refused.value.problem


@pytest.fixture
async def awake(tmp_path):
    started = []

    def start(**settings) -> Awake:
        started.append(Awake(tmp_path, **settings))
        return started[-1]

    yield start
    for each in started:
        await each.store.close()


@pytest.mark.parametrize("env", ["guess", "plain"])
async def test_what_rests_comes_back_in_the_same_state(awake, env):
    here = awake()
    kind = Guess if env == "guess" else Plain
    alive = kind.alive
    sid = await here.open(env, seed=7)
    for turn in range(3):
        await here.step(sid, turn, str(turn))
    await here.rest()
    assert kind.alive == alive
    twin = await LiveEpisode.start(kind, "train", 42, 7)
    for text in "0123":
        await twin.step(Action(text=text))
    Guess.steps.clear()
    assert (await here.step(sid, 2, "2")).turn == 3  # answered from the log: no environment is needed
    assert not Guess.steps
    assert (await here.step(sid, 3, "3")).log_hash == twin.log_hash
    assert sum(Guess.steps.values()) == (1 if env == "guess" else 4)


async def test_a_request_keeps_it_awake_and_work_too(awake, gate):
    here = awake()
    asked, idle, busy = await here.open(), await here.open(), await here.open("slow")
    step = asyncio.create_task(here.step(busy, 0, gate.text))
    await eventually(lambda: Slow.steps[gate.text])
    here.now += 9
    first = await here.store.get(ME, asked)
    resting = await here.store.get(ME, idle)
    here.now += 9
    resting.last_used -= 9
    slow = await here.store.get(ME, busy)
    slow.last_used -= 100
    await here.store.sweep()
    assert await here.store.get(ME, asked) is first
    assert await here.store.get(ME, busy) is slow
    assert await here.store.get(ME, idle) is not resting
    gate.open()
    await step


async def test_whoever_holds_a_session_that_rested_is_served_by_its_successor(awake):
    """A request looks its session up, waits for its body, and the session leaves memory meanwhile: no turn twice."""
    here = awake()
    sid = await here.open()
    held = await here.store.get(ME, sid)
    await here.rest()
    Guess.steps.clear()
    first, again = await asyncio.gather(here.step(sid, 0, "a"), held.submit(Intent.step(0, Action(text="a"))))
    assert first == again
    assert Guess.steps == {"a": 1}
    assert (await held.submit(Intent.step(1, Action(text="b")))).turn == 2
    assert (await here.store.get(ME, sid)).view().turn == 2
    branches = await held.fork(1, 2)
    assert [branch.log.turn for branch in branches] == [1, 1]


async def test_resting_and_stepping_at_once(awake):
    here = awake()
    sid = await here.open()
    Guess.steps.clear()
    for turn in range(5):
        here.now += 11
        sweep = asyncio.create_task(here.store.sweep())
        for _ in range(turn):  # wherever the sweep is by then
            await asyncio.sleep(0)
        assert (await here.step(sid, turn, f"{turn}")).turn == turn + 1
        await sweep
    assert Guess.steps == {f"{turn}": 1 for turn in range(5)}


async def test_fork_of_what_rests_starts_at_the_nearest_snapshot(awake):
    here = awake(snapshot_every=2)
    sid = await here.open(seed=3)
    for turn in range(5):
        await here.step(sid, turn, f"{turn}")
    await here.rest()
    Guess.steps.clear()
    children = await here.fork(sid, 3, 4)
    assert Guess.steps == {"2": 4}  # from the snapshot at turn 2, one step each
    twin = await LiveEpisode.replay(Guess, "train", 42, 3, {}, [Action(text=f"{turn}") for turn in range(3)])
    await twin.step(Action(text="x"))
    assert [(await here.step(child, 3, "x")).log_hash for child in children] == [twin.log_hash] * 4
    Guess.steps.clear()
    await here.fork(sid, 1, 1)  # before any snapshot: from the beginning
    assert Guess.steps == {"0": 1}
    Guess.steps.clear()
    await here.fork(sid, None, 2)  # where it went to rest
    assert not Guess.steps


async def test_a_snapshot_that_does_not_fit_is_passed_over(awake, monkeypatch, caplog):
    here = awake()
    sid = await here.open()
    await here.step(sid, 0, "a")
    await here.rest()
    monkeypatch.setattr(Guess, "restore", lambda self, snapshot: 1 / 0)
    assert (await here.step(sid, 1, "b")).turn == 2
    assert "replaying it from the start" in caplog.text


async def test_what_cannot_come_back_stays(awake):
    here = awake()
    sid = await here.open("live")
    await here.step(sid, 0, "a")
    session = await here.store.get(ME, sid)
    await here.rest()
    assert await here.store.get(ME, sid) is session
    assert (await here.step(sid, 1, "b")).turn == 2


async def test_abandoned_sessions_take_no_capacity(awake):
    """At the limit, a new session takes the place of what has been idle longest; if all were just used, it must wait."""
    here = awake(max_sessions=3)
    sids = [await here.open(index=40 + number) for number in range(3)]
    with pytest.raises(Refusal) as refused:
        await here.open()
    assert (refused.value.problem, refused.value.retry_after) == ("too-many-sessions", 5.0)
    here.now += 6
    await here.step(sids[0], 0, "a")
    fresh = [await here.open() for _ in range(2)]
    with pytest.raises(Refusal):
        await here.open()
    for sid in (*sids, *fresh):  # one that comes back pushes another out, whenever that was used
        assert (await here.store.get(ME, sid)).view().status == "live"
    assert (await here.step(sids[0], 1, "b")).turn == 2


async def test_nobody_goes_for_what_has_no_room_anyway(awake):
    here = awake(max_sessions=3)
    sids = [await here.open() for _ in range(3)]
    here.now += 6
    session = await here.store.get(ME, sids[0])
    here.now += 6
    with pytest.raises(Refusal) as refused:
        await here.store.fork(ME, session, ForkRequest(count=10, key="k"))
    assert refused.value.problem == "too-many-sessions"
    assert await here.store.get(ME, sids[0]) is session


async def test_no_room_while_all_are_at_work(awake, gate):
    here = awake(max_sessions=2)
    rested = await here.open()
    here.now += 6
    slow = [await here.open("slow") for _ in range(2)]
    steps = [asyncio.create_task(here.step(sid, 0, gate.text)) for sid in slow]
    await eventually(lambda: Slow.steps[gate.text] == 2)
    assert await here.refusal(rested) == "too-many-sessions"
    gate.open()
    await asyncio.gather(*steps)
    assert (await here.step(rested, 0, "a")).turn == 1


async def test_time_is_over_for_what_rests_too(awake, monkeypatch):
    """Idle and total lifetime go on while a session is not in memory."""
    here = awake(idle_timeout=100, lifetime=250)
    wall = [here.journal.opened_at]
    monkeypatch.setattr("time.time", lambda: wall[0] + here.now - 1000.0)
    looked_at, stepped, used, ended = [await here.open() for _ in range(4)]
    await (await here.store.get(ME, ended)).submit(Intent.finish(0, "enough"))
    await here.rest(50)
    await here.store.get(ME, looked_at)
    await here.step(stepped, 0, "a")
    await here.rest(20)
    here.now += 60  # 130 for what was not asked for, 80 for the others
    assert await here.refusal(used) == "session-expired"
    await here.store.get(ME, looked_at)
    await here.store.get(ME, stepped)
    await here.rest(90)
    await here.step(stepped, 1, "b")
    await here.rest(40)  # 260 since they were opened
    assert await here.refusal(stepped) == "session-expired"
    assert await here.refusal(looked_at) == "session-expired"
    assert (await here.store.get(ME, ended)).status == "done"  # kept for the time of --retain
    assert (await here.store.page(ME, None, 0, 10)).total == 1


async def test_nobody_is_idle_while_the_server_is_away(awake, monkeypatch):
    here = awake(idle_timeout=100)
    sid = await here.open()
    await here.store.close()
    real = here.journal.opened_at
    monkeypatch.setattr("time.time", lambda: real + 5000.0)
    again = awake(idle_timeout=100)
    await again.store.sweep()
    assert (await again.step(sid, 0, "a")).turn == 1


@pytest.mark.slow
async def test_memory_of_what_rests(awake):
    """Hundreds of sessions of 20 kB leave next to nothing behind."""
    here = awake()

    async def open_and_rest(count: int) -> None:
        for _ in range(count):
            sid = await here.open("plain", options={"note": "x" * 10_000})
            await here.step(sid, 0, "y" * 10_000)
        await here.rest()
        gc.collect()

    await open_and_rest(50)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    await open_and_rest(300)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / 300 < 512
    assert not here.store._entries


async def test_without_a_journal_nothing_rests(serve):
    api = await serve(passivate_after=0.05)
    sid = await api.open()
    session = await api.app.state.store.get(ME, sid)
    session.last_used -= 10
    await api.app.state.store.sweep()
    assert await api.app.state.store.get(ME, sid) is session
