"""The clients against real server processes, killed without warning."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing

import pytest
from remote_world import Ledger, served
from waiting import PATIENCE

from turnwise_agent.client import SyncClient, TurnwiseClient, link
from turnwise_agent.errors import Forbidden, ProtocolError, ServerUnreachable, Unauthorized
from turnwise_envs import Action
from turnwise_envs.episode import LiveEpisode

SESSIONS = 64
TURNS = 8


def says(text):
    return Action(text=text)


async def undisturbed(index, texts):
    episode = await LiveEpisode.start(Ledger, "train", index, seed=1, options={})
    for text in texts:
        await episode.step(says(text))
    return episode.log_hash


@pytest.mark.parametrize("forgets", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_64_episodes_outlive_their_server_being_killed(tmp_path, forgets):
    texts = [f"turn {turn}" for turn in range(TURNS)]
    halfway, killed = asyncio.Semaphore(0), asyncio.Event()

    async def play(client, index):
        async with await client.create("ledger", index=index, seed=1) as session:
            for turn, text in enumerate(texts):
                await session.step(says(text))
                if turn == TURNS // 2:
                    halfway.release()
                    if index % 2:  # the others are in the middle of things when it happens
                        await killed.wait()
            return session.log_hash, session.rebuilds

    with served(tmp_path, "Ledger") as server:
        async with TurnwiseClient(server.url, patience=200) as client:
            playing = [asyncio.create_task(play(client, index)) for index in range(SESSIONS)]
            for _ in range(SESSIONS // 4):
                await halfway.acquire()
            await asyncio.to_thread(server.kill)
            killed.set()
            if forgets:
                server.forget()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            played = await asyncio.gather(*playing)
    for index, (log_hash, _) in enumerate(played):
        assert log_hash == await undisturbed(index, texts)
    assert client.stats.rebuilds == sum(rebuilds for _, rebuilds in played)
    if forgets:
        assert client.stats.rebuilds > 0
        assert client.stats.replayed_steps > 0
    assert client.stats.steps == SESSIONS * TURNS
    assert client.stats.retries > 0


async def test_a_server_that_is_behind_what_it_acknowledged(tmp_path):
    """As after a power cut: the journal ends a turn earlier than the client's log."""
    with served(tmp_path, "Ledger") as server:
        async with TurnwiseClient(server.url) as client:
            session = await client.create("ledger", index=3, seed=1)
            await session.step(says("one"))
            (journal,) = tmp_path.glob("state/turnwise/journals/*/journal-*.sqlite")
            with closing(sqlite3.connect(journal)) as source, closing(sqlite3.connect(tmp_path / "old")) as copy:
                source.backup(copy)
            await session.step(says("two"))
            await asyncio.to_thread(server.kill)
            for part in journal.parent.glob(f"{journal.name}*"):
                part.unlink()
            (tmp_path / "old").rename(journal)
            await asyncio.to_thread(server.start)
            await session.step(says("three"))
            assert session.rebuilds == 1
            assert [step.turn for step in (await session.history()).steps] == [1, 2, 3]
            assert session.log_hash == await undisturbed(3, ["one", "two", "three"])


async def test_one_of_three_replicas_is_killed_for_good(tmp_path, monkeypatch):
    monkeypatch.setattr(link, "_LOST_S", 1.5)
    texts = [f"turn {turn}" for turn in range(TURNS)]
    halfway, killed = asyncio.Semaphore(0), asyncio.Event()

    async def play(client, index):
        async with await client.create("ledger", index=index, seed=1) as session:
            for turn, text in enumerate(texts):
                await session.step(says(text))
                if turn == TURNS // 2:
                    halfway.release()
                    if index % 2:  # the others are in the middle of things when it happens
                        await killed.wait()
            return session.log_hash, session.rebuilds

    with ExitStack() as stack:
        one, two, three = (stack.enter_context(served(tmp_path / name, "Ledger")) for name in ("one", "two", "three"))
        async with TurnwiseClient([one.url, two.url, three.url], patience=200) as client:
            playing = [asyncio.create_task(play(client, index)) for index in range(SESSIONS)]
            for _ in range(SESSIONS // 4):
                await halfway.acquire()
            await asyncio.to_thread(two.kill)
            killed.set()
            played = await asyncio.gather(*playing)
            assert client.mismatches.count == 0
    for index, (log_hash, _) in enumerate(played):
        assert log_hash == await undisturbed(index, texts)
    assert 0 < client.stats.rebuilds <= SESSIONS // 3 + 1
    assert client.stats.steps == SESSIONS * TURNS


async def test_tokens(tmp_path):
    with served(tmp_path, "Ledger") as server:
        async with TurnwiseClient(server.url, token_file=server.token_file) as client:
            session = await client.create("ledger", index=7)
            await session.step(says("one"))
            assert (await session.reference()).answers == ["gold 7"]
            old = server.token_file.read_text()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert server.token_file.read_text() != old
            assert (await session.reference()).answers == ["gold 7"]
            assert session.turn == 1
        async with TurnwiseClient(server.url) as client:
            with pytest.raises((Unauthorized, Forbidden), match="trainer"):
                await (await client.create("ledger")).reference()
        async with TurnwiseClient(server.url, token="wrong") as client:
            with pytest.raises(Unauthorized, match="TURNWISE_TOKEN"):
                await client.envs()


async def test_a_step_slower_than_the_timeout_is_awaited_and_not_repeated(tmp_path):
    with served(tmp_path, "Slow") as server:
        async with TurnwiseClient(server.url, timeout=0.3, patience=PATIENCE) as client:
            session = await client.create("slow")
            result = await session.step(says("eight ch"))
            assert result.observation.text.startswith("8 characters")
            assert len((await session.history()).steps) == 1
            assert client.stats.retries >= 1


def test_the_synchronous_client(tmp_path):
    with served(tmp_path, "Ledger") as server:
        with SyncClient(server.url, token_file=server.token_file) as client:
            assert [spec.id for spec in client.envs()] == ["ledger"]
            assert client.spec("ledger").max_turns == 40
            page = client.tasks("ledger", "train", offset=998, limit=10)
            assert ([task.index for task in page.items], page.total) == ([998, 999], 1000)
            with client.create("ledger", index=2, seed=9, options={"start": 3}) as session:
                session.step(says("one"))
                left, right = session.fork(2)
                left.step(says("left"))
                assert (left.turn, right.turn, session.turn) == (2, 1, 1)
                assert right.log_hash == session.log_hash != left.log_hash
                assert right.finish("enough").reward == 3.0
                assert (right.done, right.status) == (True, "done")
                assert [step.action for step in right.history().steps] == [says("one"), None]
                assert session.reference().answers == ["gold 2"]
                assert session.observation.text.startswith("6 characters")
            with pytest.raises(ProtocolError):
                session.step(says("closed"))
            assert client.stats.steps == 2
            server.kill()
        with SyncClient(server.url, patience=0.2) as client, pytest.raises(ServerUnreachable):
            client.envs()


def test_ctrl_c_reaches_a_waiting_client(tmp_path):
    """A synchronous call that waits for a dead server can be interrupted at once."""
    code = (
        "import logging, signal, threading\n"
        "from turnwise_agent.client import SyncClient\n"
        "class Interrupt(logging.Handler):\n"
        "    def emit(self, record):  # it has begun to wait\n"
        "        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)\n"
        "logging.getLogger('turnwise.client').addHandler(Interrupt())\n"
        "try:\n"
        "    with SyncClient('http://127.0.0.1:9', patience=3600) as client:\n"
        "        client.envs()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.stdout == "interrupted\n", done.stderr


def test_a_call_that_nobody_waits_for_does_not_hold_up_the_end():
    """As an interrupt leaves it behind that comes just before somebody waits for it."""
    client = SyncClient("http://127.0.0.1:9")
    left = client._portal.start_task_soon(client._client.envs)
    before = time.monotonic()
    client.close()
    assert time.monotonic() - before < 60  # its patience is 120 s
    assert left.cancelled()
