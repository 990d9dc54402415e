"""Worker processes by themselves: whose call failed when one ends, who merely moves, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from waiting import PATIENCE, eventually
from worker_environments import ALL, Rough, Saving

from turnwise_envs import Action, InvalidOptions, UnknownTask
from turnwise_envs.environment import SyncEnvironment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.errors import EnvironmentFault, EpisodeDone
from turnwise_server.hosts import Beginning, EnvironmentGone, EnvironmentLost
from turnwise_server.workers.errors import WorkerDied
from turnwise_server.workers.frames import HEADER, MAX_FRAME, FrameReader, FrameTooLarge, frame
from turnwise_server.workers.host import WorkerHost
from turnwise_server.workers.pool import WorkerPool, environment

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@asynccontextmanager
async def hosting(size: int = 1, limit: float = 300.0, **more):
    host = WorkerHost(WorkerPool(ALL, size, limit, **more))
    try:
        yield host
    finally:
        await host.close()


async def begin(host, env_class=Rough, index=0, **options):
    return await host.start(env_class, "train", index, 0, options)


def say(text: str) -> Action:
    return Action(text=text)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def resident(pid: int) -> int:
    """KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def in_group(group: int) -> list[int]:
    """The processes that a worker leads."""

    def group_of(process: Path) -> int:
        try:
            return int((process / "stat").read_text().rpartition(")")[2].split()[2])
        except (FileNotFoundError, ProcessLookupError):
            return -1

    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if group_of(path) == group]


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_same_on_the_loop_of_the_server():
    """uvloop, whose transports and descriptors are its own."""

    async def scene() -> None:
        async with hosting(limit=2.0) as host:
            for word in ("exit", "hang"):
                bad, good = await begin(host), await begin(host, index=1)
                assert (await good.step(say("a"))).reward == 0.5
                with pytest.raises(EnvironmentFault):
                    await bad.step(say(word))
                with pytest.raises(EnvironmentGone):
                    await good.step(say("a"))
            assert host.pool.restarts == {"crash": 1, "hang": 1}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


async def undisturbed(env_class, index, texts, **options) -> LiveEpisode:
    """What the actions lead to in this process. One thread, for sqlite3 insists on that."""
    with ThreadPoolExecutor(1) as thread:
        asyncio.get_running_loop().set_default_executor(thread)
        episode = await LiveEpisode.start(env_class, "train", index, 0, options)
        for text in texts:
            await episode.step(say(text))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    return episode


# What a worker does


async def test_an_episode_in_a_worker_is_the_episode():
    """Same task, observations, rewards, hashes and end as in this process."""
    there = await undisturbed(Rough, 3, ["a", "b", "c"], max_turns=3)
    async with hosting() as host:
        episode = await begin(host, index=3, max_turns=3)
        assert episode.worker.pid != os.getpid()
        assert (episode.task, episode.initial, episode.initial_hash) == (there.task, there.initial, there.initial_hash)
        for text in ("a", "b", "c"):
            await episode.step(say(text))
        assert episode.records == there.records
        assert (episode.turn, episode.done) == (3, True)
        assert episode.records[-1].result.reward == 0.25  # the step's 0.5 and the score of -0.25
        with pytest.raises(EpisodeDone):
            await episode.step(say("d"))


async def test_a_finish_is_scored_there():
    async with hosting() as host:
        episode = await begin(host)
        await episode.step(say("a"))
        result = await episode.finish("enough")
        assert (result.observation.text, result.reward, result.info.end) == ("score 1", -0.25, "finished:enough")
        assert (episode.turn, episode.done, len(episode.records)) == (1, True, 2)


async def test_a_snapshot_travels_to_another_worker():
    texts = ["a", "b", "c", "d"]
    there = await undisturbed(Saving, 5, texts)
    async with hosting(2) as host:
        first = await begin(host, Saving, index=5)
        for text in texts[:2]:
            await first.step(say(text))
        beginning = Beginning(first.task, first.seed, first.options, first.initial, first.initial_hash)
        second = await host.restore(Saving, beginning, 2, first.log_hash, await host.snapshot(first))
        assert second.worker is not first.worker
        for text in texts[2:]:
            await second.step(say(text))
        assert (second.turn, second.log_hash) == (4, there.log_hash)
        assert second.records[2:] == there.records[2:]


async def test_what_the_environment_refuses_keeps_its_type():
    async with hosting() as host:
        with pytest.raises(UnknownTask, match="tasks 0 to 99"):
            await begin(host, index=100)
        with pytest.raises(InvalidOptions, match="sparkle"):
            await begin(host, sparkle=True)
        assert host.pool.states()[0].episodes == 0


async def test_an_exception_names_its_kind_and_place():
    async with hosting() as host:
        with pytest.raises(EnvironmentFault, match="reset of rough/train/13") as caught:
            await begin(host, index=13)
        assert type(caught.value.__cause__).__name__ == "RuntimeError"
        episode = await begin(host)
        for word, kind in (("raise", "KeyError"), ("sysexit", "SystemExit")):
            with pytest.raises(EnvironmentFault) as caught:
                await episode.step(say(word))
            assert type(caught.value.__cause__).__name__ == kind
            assert "worker_environments.py" in "".join(caught.value.__cause__.__notes__)
        assert host.pool.restarts == {"crash": 0, "hang": 0}


async def test_tasks_and_references_come_from_workers():
    async with hosting() as host:
        page = await host.tasks(Rough, "train", 98, 5)
        assert ([task.index for task in page.items], page.total) == ([98, 99], 100)
        assert (await host.reference(Rough, page.items[0])).answers == ["gold"]
        with pytest.raises(UnknownTask):
            await host.tasks(Rough, "nowhere", 0, 1)


async def test_noise_and_large_answers():
    async with hosting() as host:
        episode = await begin(host)
        assert (await episode.step(say("print"))).observation.text.startswith("1 ")
        assert len((await episode.step(say("huge 3000000"))).observation.text) == 3_000_000
        with pytest.raises(EnvironmentFault, match="more than fit"):
            await episode.step(say(f"huge {MAX_FRAME}"))


def test_a_class_that_no_process_can_import_is_refused():
    class Local(SyncEnvironment):
        spec = Rough.spec

    with pytest.raises(ValueError, match=r"<locals>.Local: define it at the top of a module"):
        WorkerPool([Local], 1, 1.0)


# Who fails and who moves


@pytest.mark.parametrize("word", ["exit", "kill"])
async def test_a_crash_is_the_fault_of_the_call_that_ran(word):
    async with hosting() as host:
        guilty, waiting, idle = [await begin(host, index=index) for index in range(3)]
        assert guilty.worker is waiting.worker is idle.worker
        crash = asyncio.create_task(guilty.step(say(word)))
        neighbour = asyncio.create_task(waiting.step(say("a")))
        with pytest.raises(EnvironmentFault) as caught:
            await crash
        assert isinstance(caught.value, EnvironmentLost)
        assert isinstance(caught.value.__cause__, WorkerDied)
        with pytest.raises(EnvironmentGone):
            await neighbour
        with pytest.raises(EnvironmentGone):
            await idle.step(say("a"))
        assert host.pool.restarts == {"crash": 1, "hang": 0}
        again = await begin(host)
        assert again.worker.pid != guilty.worker.pid
        assert (await again.step(say("a"))).reward == 0.5


async def test_the_time_of_a_call_begins_when_it_runs():
    """The last of three slow ones is within the limit, though it waited for longer."""
    async with hosting(limit=4.0) as host:
        three = [await begin(host, index=index) for index in range(3)]
        await asyncio.gather(*(one.step(say("sleep 1.5")) for one in three))
        assert host.pool.restarts == {"crash": 0, "hang": 0}


@pytest.mark.parametrize("word", ["hang", "spin", "clutch"])
async def test_a_hang_is_killed_when_its_time_is_up(word):
    async with hosting(limit=2.0) as host:
        first, second = [await begin(host, index=index) for index in range(2)]
        slow = asyncio.create_task(first.step(say(word)))
        neighbour = asyncio.create_task(second.step(say("a")))
        with pytest.raises(EnvironmentFault, match=r"took longer than 2 s") as caught:
            await slow
        assert isinstance(caught.value.__cause__, TimeoutError)
        with pytest.raises(EnvironmentGone):
            await neighbour
        assert host.pool.restarts == {"crash": 0, "hang": 1}


async def test_before_it_is_killed_a_hung_worker_says_where_it_is(capfd):
    async with hosting(limit=2.0) as host:
        episode = await begin(host)
        with pytest.raises(EnvironmentFault):
            await episode.step(say("spin"))
        await episode.worker.gone.wait()
    assert "in step_sync" in capfd.readouterr().err


async def test_a_hanging_reset_is_killed_too():
    async with hosting(limit=2.0) as host:
        with pytest.raises(EnvironmentFault, match="reset of rough/train/99"):
            await begin(host, index=99)
        assert (await begin(host, index=1)).turn == 0


async def test_a_worker_killed_while_idle_is_nobodys_fault():
    """As the out-of-memory killer does it."""
    async with hosting() as host:
        episode = await begin(host)
        os.kill(episode.worker.pid, signal.SIGKILL)
        await eventually(lambda: host.pool.restarts["crash"] == 1)
        with pytest.raises(EnvironmentGone):
            await episode.step(say("a"))
        await episode.close()


@LINUX
async def test_an_end_is_seen_though_a_grandchild_holds_the_socket():
    async with hosting() as host:
        episode = await begin(host)
        await episode.step(say("grandchild"))
        with pytest.raises(EnvironmentFault):
            await asyncio.wait_for(episode.step(say("exit")), PATIENCE)


async def test_other_workers_never_notice():
    async with hosting(2, limit=3600) as host:
        bad, good = await begin(host, index=0), await begin(host, index=1)
        assert bad.worker is not good.worker
        hanging = asyncio.create_task(bad.step(say("spin")))
        for _ in range(40):
            await good.step(say("a"))
        assert not hanging.done()
        await host.close()
        with pytest.raises(EnvironmentFault):
            await hanging


async def test_sessions_are_spread_and_pinned():
    async with hosting(2) as host:
        episodes = [await begin(host, index=index) for index in range(6)]
        pids = [episode.worker.pid for episode in episodes]
        assert sorted(pids.count(pid) for pid in set(pids)) == [3, 3]
        for episode in episodes[:2]:
            await episode.step(say("a"))
        await asyncio.gather(*(one.close() for one in episodes if one.worker.pid == pids[0]))
        assert (await begin(host)).worker.pid == pids[0]
        assert [state.episodes for state in host.pool.states()] == [1, 3]


async def test_who_gives_up_waiting_leaves_no_trace(tmp_path):
    async with hosting() as host:
        first, second = await begin(host, index=0), await begin(host, index=1)
        running = asyncio.create_task(first.step(say(f"until {tmp_path / 'gate'}")))
        waiting = [asyncio.create_task(second.step(say("a"))) for _ in range(4)]
        await asyncio.sleep(0.05)
        for task in waiting[1:]:
            task.cancel()
        (tmp_path / "gate").touch()
        await running
        assert (await waiting[0]).observation.text.startswith("1 ")
        await asyncio.sleep(0)
        assert (await second.step(say("a"))).observation.text.startswith("2 ")  # none of the three happened


# What a worker knows, and what stays behind


async def test_no_secret_reaches_a_worker(monkeypatch):
    monkeypatch.setenv("TURNWISE_TOKENS_FILE", "/somewhere/tokens.jsonl")
    monkeypatch.setenv("SOME_API_KEY", "s3cret-value")
    monkeypatch.setenv("WORLD_DATA", "/data/worlds")
    async with hosting(pass_on=["WORLD_DATA"]) as host:
        episode = await begin(host)
        seen = dict(json.loads((await episode.step(say("environ"))).observation.text))
    assert seen["WORLD_DATA"] == "/data/worlds"
    assert seen["PATH"] == os.environ["PATH"]
    assert not [name for name in seen if name.startswith("TURNWISE_") or "KEY" in name]
    assert "s3cret-value" not in str(seen)


def test_the_variables_of_a_worker():
    ours = {"PATH": "/bin", "LC_ALL": "C", "HF_TOKEN": "x", "A": "1", "B": "2"}
    assert environment(ours, ["A"]) == {"PATH": "/bin", "LC_ALL": "C", "A": "1"}


@LINUX
async def test_descriptors_and_processes_are_given_back():
    """Ten crashes and hangs later the server holds what it held before, and no child is left."""
    async with hosting(1, limit=2.0) as host:
        await begin(host)
        before = descriptors()
        pids = []
        for round_ in range(6):
            episode = await begin(host)
            pids.append(episode.worker.pid)
            with pytest.raises(EnvironmentFault):
                await episode.step(say("hang" if round_ == 0 else "exit"))
            await episode.close()
        await begin(host)
        await eventually(lambda: not any(map(alive, pids)))
        await eventually(lambda: descriptors() <= before)
        assert len(set(pids)) == 6
        pids.append(host.pool.states()[0].pid)
    await eventually(lambda: not any(map(in_group, pids)))  # not even as a zombie


@LINUX
async def test_hundreds_of_episodes_leave_nothing_in_a_worker():
    async with hosting() as host:

        async def some(count: int) -> int:
            for _ in range(count):
                episode = await begin(host)
                await episode.step(say("a"))
                await episode.close()
            await host.tasks(Rough, "train", 0, 0)  # after this, all closes have happened
            return resident(host.pool.states()[0].pid)

        before = await some(100)
        after = await some(400)
        assert host.pool.states()[0].episodes == 0
        assert after - before < 2048  # KiB; a leaked sqlite3 connection alone is some 10 KiB


@LINUX
async def test_what_an_environment_started_dies_with_its_worker():
    async with hosting() as host:
        episode = await begin(host)
        await episode.step(say("grandchild"))
        group = in_group(episode.worker.pid)
        assert len(group) == 2
    await eventually(lambda: not any(map(alive, group)))


async def test_closing_does_not_wait_for_a_hung_call(tmp_path):
    async with hosting(limit=3600) as host:
        episode = await begin(host)
        hanging = asyncio.create_task(episode.step(say(f"once-hang {tmp_path / 'mark'}")))
        await eventually((tmp_path / "mark").exists)
        async with asyncio.timeout(PATIENCE):
            await host.close()
        with pytest.raises(EnvironmentFault):
            await hanging
        with pytest.raises(EnvironmentFault, match="stopping"):
            await begin(host)
        assert host.pool.restarts == {"crash": 0, "hang": 0}


# Frames


def test_frames_survive_any_cut():
    payloads = [b"", b"a", b"b" * 300, b"\x00\xff"]
    stream = b"".join(map(frame, payloads))
    for size in (1, 3, 7, len(stream)):
        reader = FrameReader()
        got = [one for start in range(0, len(stream), size) for one in reader.feed(stream[start : start + size])]
        assert got == payloads


def test_frames_are_bounded():
    with pytest.raises(FrameTooLarge):
        frame(bytes(MAX_FRAME + 1))
    with pytest.raises(FrameTooLarge):
        FrameReader().feed(HEADER.pack(MAX_FRAME + 1))
