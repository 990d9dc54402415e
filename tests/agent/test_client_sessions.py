"""Sessions over the real server in this process, with a network and servers that fail where it hurts."""

import asyncio

import httpx
import pytest
from remote_world import TOKEN, Fragile, InProcess, Ledger, LedgerThree, LedgerTwo, Oracle
from waiting import eventually

from turnwise_agent.client import TurnwiseClient
from turnwise_agent.errors import (
    EnvFailed,
    InvalidRequest,
    NotForkable,
    ReplayMismatch,
    ServerUnreachable,
    SessionDone,
    SessionGone,
    Unauthorized,
)
from turnwise_envs import Action
from turnwise_envs.episode import LiveEpisode


@pytest.fixture(autouse=True)
def _fresh_count():
    Ledger.lived.clear()


@pytest.fixture
def network():
    network = InProcess()
    network.start("one", Ledger, Oracle, Fragile)
    return network


def connect(network, *hosts, patience=60.0):
    urls = [f"http://{host}" for host in hosts or ("one",)]
    return TurnwiseClient(urls, token=TOKEN, transport=network, patience=patience)


def says(text):
    return Action(text=text)


async def undisturbed(*texts, index=3, seed=5, finish=None):
    """The hash of the same episode when nothing goes wrong, without any server or client."""
    episode = await LiveEpisode.start(Ledger, "train", index, seed, {})
    for text in texts:
        await episode.step(says(text))
    if finish:
        await episode.finish(finish)
    Ledger.lived.clear()
    return episode.log_hash


async def test_an_episode(network):
    async with connect(network) as client, await client.create("ledger", index=3, options={"start": 10}) as session:
        assert session.observation.text == "Ledger 3. Speak, or stop. ☃"
        assert (session.turn, session.done, session.max_turns) == (0, False, 40)
        assert session.task.id == "ledger/train/3"
        first = session.log_hash
        result = await session.step(says("four"))
        assert result.observation == session.observation
        assert result.observation.text.startswith("14 characters")
        assert (result.turn, session.turn, result.reward, session.done) == (1, 1, 0.0, False)
        assert session.log_hash == result.log_hash != first
        result = await session.step(says("stop"))
        assert (result.reward, result.terminated, session.done, result.info.end) == (18.0, True, True, "solved")
        with pytest.raises(SessionDone):
            await session.step(says("more"))
        history = await session.history()
        assert [step.action.text for step in history.steps] == ["four", "stop"]
        assert history.steps[-1].log_hash == session.log_hash
        assert history.initial.log_hash == first
        assert (await session.reference()).answers == ["gold 3"]
    assert client.stats.steps == 2
    assert client.stats.retries == client.stats.rebuilds == 0


async def test_finish_scores_the_state_as_it_is(network):
    async with connect(network) as client, await client.create("ledger") as session:
        await session.step(says("sixsix"))
        result = await session.finish("context_overflow")
        assert (result.reward, result.truncated, result.info.end) == (3.0, True, "finished:context_overflow")
        assert session.done
        assert session.turn == 1
        with pytest.raises(InvalidRequest, match="finish: reason"):
            await session.finish("")


async def test_the_server_does_not_know_the_token(network):
    async with TurnwiseClient("http://one", token="not-this-one", transport=network) as client:
        with pytest.raises(
            Unauthorized, match=r"POST /v1/sessions: unknown token .* `turnwise serve` prints"
        ) as caught:
            await client.create("ledger")
    assert "not-this-one" not in str(caught.value)


class TestLostAnswers:
    """The server did it, the answer got lost: asked again, it must not happen twice."""

    async def test_step(self, network):
        async with connect(network) as client, await client.create("ledger", index=3, seed=5) as session:
            network.drop_answers = 3
            await session.step(says("hello"))
            assert Ledger.lived["hello"] == 1
            assert client.stats.retries == 3
            assert client.stats.steps == 1
            assert session.log_hash == await undisturbed("hello")

    async def test_create(self, network):
        async with connect(network) as client:
            network.drop_answers = 2
            session = await client.create("ledger")
            listed = await httpx.AsyncClient(transport=network, base_url="http://one").get(
                "/v1/sessions", headers={"authorization": f"Bearer {TOKEN}"}
            )
            assert [item["session_id"] for item in listed.json()["items"]] == [session.session_id]

    async def test_fork(self, network):
        async with connect(network) as client:
            session = await client.create("ledger")
            network.drop_answers = 2
            children = await session.fork(3)
            listed = await httpx.AsyncClient(transport=network, base_url="http://one").get(
                "/v1/sessions", headers={"authorization": f"Bearer {TOKEN}"}
            )
            assert listed.json()["total"] == 4
            assert len({child.session_id for child in children}) == 3

    async def test_finish(self, network):
        async with connect(network) as client, await client.create("ledger", index=3, seed=5) as session:
            network.drop_answers = 1
            result = await session.finish("enough")
            assert result.info.end == "finished:enough"
            assert session.log_hash == await undisturbed(finish="enough")

    async def test_close(self, network):
        async with connect(network) as client:
            session = await client.create("ledger")
            network.drop_answers = 1
            await session.close()
            with pytest.raises(SessionGone) as caught:
                await session.step(says("hello?"))
            assert caught.value.type == "session-deleted"
            assert client.stats.rebuilds == 0


class TestForgotten:
    """The server has lost its memory: the session is rebuilt from the client's log."""

    async def test_step(self, network):
        async with connect(network) as client, await client.create("ledger", index=3, seed=5) as session:
            await session.step(says("one"))
            await session.step(says("two"))
            before = session.session_id
            network.start("one", Ledger)
            await session.step(says("three"))
            assert session.log_hash == await undisturbed("one", "two", "three")
            assert session.session_id != before
            assert session.turn == 3
            assert (session.rebuilds, client.stats.rebuilds, client.stats.replayed_steps) == (1, 1, 2)
            assert client.stats.steps == 3

    async def test_again_and_again(self, network):
        texts = [f"say {turn}" for turn in range(6)]
        async with connect(network) as client, await client.create("ledger", index=3, seed=5) as session:
            for text in texts:
                await session.step(says(text))
                network.start("one", Ledger)
            assert session.log_hash == await undisturbed(*texts)
            assert session.rebuilds == 5
            assert client.stats.replayed_steps == 1 + 2 + 3 + 4 + 5

    async def test_history_of_a_finished_episode(self, network):
        async with connect(network) as client, await client.create("ledger", index=3, seed=5) as session:
            await session.step(says("one"))
            ended = await session.finish("enough")
            network.start("one", Ledger)
            history = await session.history()
            assert [step.action for step in history.steps] == [says("one"), None]
            assert history.steps[-1].log_hash == ended.log_hash == session.log_hash

    async def test_fork_of_a_finished_episode(self, network):
        async with connect(network) as client, await client.create("ledger", index=3, seed=5) as session:
            await session.step(says("one"))
            await session.finish("enough")
            [child] = await session.fork()
            assert child.done
            network.start("one", Ledger)
            assert len((await child.history()).steps) == 2
            assert child.log_hash == session.log_hash

    async def test_fork_and_its_branches(self, network):
        async with connect(network) as client:
            session = await client.create("ledger", index=3, seed=5)
            for text in ("one", "two", "three"):
                await session.step(says(text))
            network.start("one", Ledger)
            early, *now = await session.fork(1, at_turn=1) + await session.fork(2)
            assert [early.turn, now[0].turn, now[1].turn] == [1, 3, 3]
            assert client.stats.forks == 3
            network.start("one", Ledger)
            await early.step(says("zwei"))
            await now[0].step(says("four"))
            assert early.log_hash == await undisturbed("one", "zwei")
            assert now[0].log_hash == await undisturbed("one", "two", "three", "four")
            assert now[1].log_hash == session.log_hash == await undisturbed("one", "two", "three")
            assert (session.rebuilds, early.rebuilds, now[0].rebuilds, now[1].rebuilds) == (1, 1, 1, 0)

    async def test_calls_at_the_same_time_rebuild_once(self, network):
        async with connect(network) as client, await client.create("ledger") as session:
            await session.step(says("one"))
            network.start("one", Ledger)
            histories = await asyncio.gather(*(session.history() for _ in range(8)))
            assert {len(history.steps) for history in histories} == {1}
            assert session.rebuilds == 1

    async def test_options_go_along(self, network):
        async with connect(network) as client:
            session = await client.create("ledger", split="open", index=12345, options={"start": 100})
            network.start("one", Ledger)
            assert (await session.step(says("12345"))).observation.text.startswith("105 characters")
            assert session.task.id == "ledger/open/12345"

    async def test_another_history_is_refused(self, network):
        async with connect(network) as client, await client.create("ledger") as session:
            await session.step(says("one"))
            network.start("one", LedgerTwo)
            with pytest.raises(ReplayMismatch):
                await session.step(says("two"))
            assert session.turn == 1

    async def test_another_score_of_a_finish_is_refused(self, network):
        async with connect(network) as client, await client.create("ledger") as session:
            await session.step(says("one"))
            await session.finish("enough")
            network.start("one", LedgerThree)
            with pytest.raises(ReplayMismatch, match=r"replaying 1 actions of ledger/train/0 gave hash"):
                await session.history()

    async def test_what_has_effects_is_never_replayed(self, network):
        async with connect(network) as client, await client.create("oracle") as session:
            await session.step(says("send the mail"))
            network.start("one", Oracle)
            with pytest.raises(SessionGone) as caught:
                await session.step(says("and another"))
            assert caught.value.type == "not-found"
            assert client.stats.rebuilds == 0
            assert Oracle.lived["send the mail"] == 1

    async def test_closing_what_is_gone(self, network):
        async with connect(network) as client:
            async with await client.create("ledger"):
                network.start("one", Ledger)
            async with await client.create("ledger"):
                network.stop("one")


class TestSeveralServers:
    async def test_sessions_are_spread_and_survive_their_server(self, network):
        network.start("two", Ledger)
        async with connect(network, "one", "two", patience=0.3) as client:
            sessions = [await client.create("ledger", index=index) for index in range(4)]
            for session in sessions:
                await session.step(says("hello"))
            hosts = [repr(session).rpartition("/")[2].rstrip(">") for session in sessions]
            assert sorted(hosts) == ["one", "one", "two", "two"]
            network.stop("one")
            await asyncio.gather(*(session.step(says("still here")) for session in sessions))
            assert [session.rebuilds for session in sessions] == [int(host == "one") for host in hosts]
            for index, session in enumerate(sessions):
                assert session.log_hash == await undisturbed("hello", "still here", index=index, seed=0)
            retries = client.stats.retries
            assert (await client.create("ledger")).turn == 0
            assert client.stats.retries == retries  # nobody asks the silent one for now

    async def test_all_are_gone(self, network):
        network.start("two", Ledger)
        async with connect(network, "one", "two", patience=0.2) as client:
            session = await client.create("ledger")
            network.stop("one")
            network.stop("two")
            with pytest.raises(ServerUnreachable):
                await session.step(says("hello?"))


async def test_going_on_from_a_stored_log(network):
    async with connect(network) as client:
        actions = [says("one"), says("two")]
        expected = await undisturbed("one", "two")
        session = await client.create("ledger", index=3, seed=5, actions=actions, expect_hash=expected)
        assert (session.turn, session.log_hash) == (2, expected)
        network.start("one", Ledger)
        await session.step(says("three"))
        assert session.log_hash == await undisturbed("one", "two", "three")
        with pytest.raises(ReplayMismatch):
            await client.create("ledger", index=4, seed=5, actions=actions, expect_hash=expected)


async def test_a_broken_environment(network):
    async with connect(network) as client, await client.create("fragile") as session:
        await session.step(says("fine"))
        with pytest.raises(EnvFailed):
            await session.step(says("boom"))
        assert (session.status, session.done, session.turn) == ("failed", True, 1)
        assert len((await session.history()).steps) == 1


async def test_forks_that_cannot_be(network):
    async with connect(network) as client:
        session = await client.create("ledger")
        with pytest.raises(InvalidRequest, match="at_turn"):
            await session.fork(at_turn=1)
        with pytest.raises(InvalidRequest, match="fork: count"):
            await session.fork(0)
        oracle = await client.create("oracle")
        with pytest.raises(NotForkable):
            await oracle.fork()


async def test_a_cancelled_step_can_be_asked_for_again(network):
    async with connect(network) as client, await client.create("ledger", index=3, seed=5) as session:
        network.drop_answers = 1000
        step = asyncio.create_task(session.step(says("hello")))
        await eventually(lambda: Ledger.lived["hello"])
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        network.drop_answers = 0
        await session.step(says("hello"))
        assert session.log_hash == await undisturbed("hello")
