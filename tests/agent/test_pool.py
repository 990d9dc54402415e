"""Several servers behind one client: placement, health, names with several addresses, failover and its mismatches."""

import asyncio
import json
import socket
import time

import httpx
import pytest
from remote_world import TOKEN, InProcess, Ledger, LedgerTwo, Oracle
from waiting import eventually

from turnwise_agent.client import TurnwiseClient, link, pool
from turnwise_agent.client.mismatch import Mismatch
from turnwise_agent.errors import (
    AgentError,
    Overloaded,
    ReplayMismatch,
    ServerUnreachable,
    SessionGone,
    TooManyMismatches,
)
from turnwise_envs import Action
from turnwise_server import store


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(pool, "_WATCH_S", 0.05)
    monkeypatch.setattr(pool, "_RESOLVE_AGAIN_S", 0.05)
    monkeypatch.setattr(link, "_LOST_S", 0.3)


@pytest.fixture
def network():
    network = InProcess()
    for host in ("one", "two", "three"):
        network.start(host, Ledger, Oracle)
    return network


def connect(network, *servers, **arguments):
    urls = [server if ":" in server else f"http://{server}" for server in servers]
    return TurnwiseClient(urls, token=TOKEN, transport=network, **{"patience": 60.0, **arguments})


def says(text):
    return Action(text=text)


def host(session):
    return repr(session).rpartition("/")[2].rstrip(">")


async def looked_at(network, name):
    """Return when the client's watch has been at this host after now, and has made up its mind."""
    before = network.asked[name]
    await eventually(lambda: network.asked[name] >= before + 2)


async def test_new_sessions_go_where_fewest_are(network):
    async with connect(network, "one", "two", "three") as client:
        sessions = [await client.create("ledger", index=index) for index in range(7)]
        counts = sorted([host(session) for session in sessions].count(name) for name in ("one", "two", "three"))
        assert counts == [2, 2, 3]
        for session in [session for session in sessions if host(session) == "two"]:
            await session.close()
        assert {host(await client.create("ledger")) for _ in range(2)} == {"two"}


async def test_sessions_opened_at_once_are_spread_too(network):
    async with connect(network, "one", "two", "three") as client:
        await client.spec("ledger")
        sessions = await asyncio.gather(*(client.create("ledger", index=index) for index in range(30)))
        assert (
            sorted([host(session) for session in sessions].count(name) for name in ("one", "two", "three")) == [10] * 3
        )


async def test_a_full_server_hands_over_at_once(network):
    network.start("one", Ledger, max_sessions=1)
    async with connect(network, "one", "two") as client, connect(network, "one") as other:
        await other.create("ledger")
        await client.spec("ledger")
        before = time.monotonic()
        assert {host(await client.create("ledger", index=index)) for index in range(3)} == {"two"}
        assert time.monotonic() - before < 4  # a full server asks for five seconds


async def test_where_all_are_full_room_is_waited_for(network, monkeypatch):
    monkeypatch.setattr(store, "RETRY_AFTER", 0.2)
    for name in ("one", "two"):
        network.start(name, Ledger, max_sessions=1)
    async with connect(network, "one", "two") as client:
        both = [await client.create("ledger") for _ in range(2)]
        for session in both:  # wherever it is that there is room again
            another = asyncio.create_task(client.create("ledger"))
            await asyncio.sleep(0.3)
            assert not another.done()
            await session.close()
            assert host(await another) == host(session)
    async with connect(network, "one", "two", patience=1.0) as client:
        with pytest.raises(Overloaded):
            await client.create("ledger")


async def test_a_session_moves_long_before_patience_is_spent(network):
    async with connect(network, "one", "two", patience=60) as client:
        sessions = [await client.create("ledger", index=index) for index in range(4)]
        for session in sessions:
            await session.step(says("one"))
        network.stop("one")
        before = time.monotonic()
        await asyncio.gather(*(session.step(says("two")) for session in sessions))
        assert time.monotonic() - before < 30
        assert {host(session) for session in sessions} == {"two"}
        assert client.stats.rebuilds == 2


async def test_a_server_that_comes_back_soon_keeps_its_sessions(network, monkeypatch):
    monkeypatch.setattr(link, "_LOST_S", 30.0)
    async with connect(network, "one", "two") as client:
        session = await client.create("ledger")
        name, app = host(session), network._apps[host(session)]
        network.stop(name)
        step = asyncio.create_task(session.step(says("one")))
        await asyncio.sleep(0.3)
        network._apps[name] = app
        assert (await step).turn == 1
        assert (session.rebuilds, host(session)) == (0, name)


async def test_what_may_not_move_waits(network):
    async with connect(network, "one", "two", patience=3.0) as client:
        session = await client.create("oracle")
        network.stop(host(session))
        before = time.monotonic()
        with pytest.raises(ServerUnreachable):
            await session.step(says("once only"))
        assert time.monotonic() - before >= 3.0
        assert Oracle.lived["once only"] == 0


async def test_a_dead_server_is_noticed_without_being_asked_for_anything(network):
    async with connect(network, "one", "two") as client:
        await client.create("ledger")
        network.stop("one")
        await looked_at(network, "one")
        retries = client.stats.retries
        assert {host(await client.create("ledger")) for _ in range(4)} == {"two"}
        assert client.stats.retries == retries
        network.start("one", Ledger)
        await looked_at(network, "one")
        assert host(await client.create("ledger")) == "one"


class TestNames:
    """Addresses of the kind dns+http://NAME:PORT."""

    @pytest.fixture
    async def book(self, monkeypatch):
        """What names resolve to, and under "looks" how often somebody looked; a test writes into it."""
        book = {"looks": 0}

        async def getaddrinfo(name, port, **_):
            book["looks"] += 1
            if not book.get(name):
                raise socket.gaierror(-2, "Name or service not known")
            return [
                (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in book[name]
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        return book

    async def looked_up(self, book):
        """Return when the client has looked its names up after now, and has made up its mind."""
        before = book["looks"]
        await eventually(lambda: book["looks"] >= before + 2)

    async def test_every_address_is_a_server(self, network, book):
        book["ledger"] = ["one", "two", "one"]
        async with connect(network, "dns+http://ledger:80") as client:
            sessions = [await client.create("ledger") for _ in range(4)]
            assert sorted(host(session).removesuffix(":80") for session in sessions) == ["one", "one", "two", "two"]
            network.stop("one")
            await asyncio.gather(*(session.step(says("x")) for session in sessions))
            assert client.stats.rebuilds == 2

    async def test_replicas_come_and_go(self, network, book):
        book["ledger"] = ["one"]
        async with connect(network, "dns+http://ledger:80") as client:
            first = await client.create("ledger")
            book["ledger"] = ["one", "two"]
            await self.looked_up(book)
            second = await client.create("ledger")
            assert host(second) == "two:80"
            book["ledger"] = ["two"]
            await self.looked_up(book)
            assert host(await client.create("ledger")) == "two:80"
            assert (await first.step(says("still served where it lives"))).turn == 1
            assert first.rebuilds == 0

    async def test_servers_are_called_by_their_name(self, book):
        seen = []

        def handle(request):
            seen.append((request.url.host, request.headers["host"]))
            return httpx.Response(200, json={"items": [], "total": 0}, headers={"x-turnwise-protocol": "1"})

        book["ledger"] = ["10.0.0.7"]
        async with TurnwiseClient("dns+http://ledger:8000", transport=httpx.MockTransport(handle)) as client:
            await client.envs()
        assert set(seen) == {("10.0.0.7", "ledger:8000")}

    async def test_a_name_with_both_kinds_of_address_is_not_twice_as_many_servers(self, book):
        book.update(both=["10.0.0.7", "fd00::7"], six=["fd00::7", "fd00::8"])
        assert await pool.addresses(httpx.URL("http://both:8000")) == {"http://10.0.0.7:8000"}
        assert await pool.addresses(httpx.URL("http://six")) == {"http://[fd00::7]:80", "http://[fd00::8]:80"}

    async def test_a_name_that_comes_late(self, network, book):
        async with connect(network, "dns+http://ledger:80") as client:
            creating = asyncio.create_task(client.create("ledger"))
            await self.looked_up(book)
            book["ledger"] = ["one"]
            assert (await creating).turn == 0

    async def test_a_name_that_never_comes(self, network, book):
        async with connect(network, "dns+http://nobody:80", patience=0.3) as client:
            with pytest.raises(ServerUnreachable, match=r"cannot find the servers: .*not known"):
                await client.create("ledger")

    @pytest.mark.parametrize("address", ["dns+https://x", "dns+x", "dns+http://"])
    def test_what_is_no_name(self, address):
        with pytest.raises(AgentError):
            TurnwiseClient(address)


class TestMismatch:
    """The other server has another idea of the same environment."""

    async def test_both_transcripts_are_kept(self, network, tmp_path):
        network.start("two", LedgerTwo)
        async with connect(network, "one", mismatch_dir=tmp_path / "bad", mismatch_rate=1.0) as client:
            session = await client.create("ledger", index=3, options={"start": 5})
            for text in ("a", "bc"):
                await session.step(says(text))
            network._apps["one"] = network._apps["two"]
            with pytest.raises(ReplayMismatch):
                await session.step(says("def"))
            assert session.status == "failed"
            with pytest.raises(SessionGone):
                await session.step(says("def"))
            assert client.mismatches.count == 1
            [kept] = client.mismatches.kept
            assert (kept.session.env, kept.session.index, kept.session.options) == ("ledger", 3, {"start": 5})
            assert [told.action.text for told in kept.ours] == [told.action.text for told in kept.theirs] == ["a", "bc"]
            assert [told.answer.observation.text[:12] for told in kept.ours] == ["6 characters", "8 characters"]
            assert {told.answer.observation.text for told in kept.theirs} == {"All is different now."}
            assert kept.turn == 0
            [file] = (tmp_path / "bad").iterdir()
            assert file.name == "mismatch-0001-ledger-train-3.json"
            assert Mismatch.model_validate(json.loads(file.read_text())) == kept

    async def test_too_many_stop_the_run(self, network):
        network.start("two", LedgerTwo)
        async with connect(network, "one", mismatch_rate=0.1) as client:
            sessions = [await client.create("ledger", index=index) for index in range(30)]
            for session in sessions:
                await session.step(says("x"))
            network._apps["one"] = network._apps["two"]
            for session in sessions[:3]:  # a tenth of thirty
                with pytest.raises(ReplayMismatch):
                    await session.step(says("y"))
            with pytest.raises(TooManyMismatches, match=r"4 of 30 sessions .* mismatch_rate=0\.1 allows"):
                await sessions[3].step(says("y"))
            assert client.mismatches.count == 4

    async def test_a_few_are_tolerated_whatever_the_rate(self, network):
        network.start("two", LedgerTwo)
        async with connect(network, "one", mismatch_rate=0.0) as client:
            sessions = [await client.create("ledger", index=index) for index in range(3)]
            for session in sessions:
                await session.step(says("x"))
            network._apps["one"] = network._apps["two"]
            for session in sessions[:2]:
                with pytest.raises(ReplayMismatch):
                    await session.step(says("y"))
            with pytest.raises(TooManyMismatches):
                await sessions[2].step(says("y"))

    async def test_a_fork_remembers_what_its_parent_was_told(self, network):
        network.start("two", LedgerTwo)
        async with connect(network, "one", mismatch_rate=1.0) as client:
            parent = await client.create("ledger")
            for text in ("a", "b", "c"):
                await parent.step(says(text))
            [child] = await parent.fork(at_turn=2)
            network._apps["one"] = network._apps["two"]
            with pytest.raises(ReplayMismatch):
                await child.step(says("d"))
            assert [told.answer.turn for told in client.mismatches.kept[0].ours] == [1, 2]
