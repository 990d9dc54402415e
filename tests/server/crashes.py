"""Crash tests: servers that are killed under load, players that carry on, and histories that must not show it.

A :class:`Server` is one ``turnwise serve`` process that can be killed and started again on its port. :func:`play` takes
one plan of a session through whatever happens: it sends a call again until it is answered. :func:`crash_test` keeps
many plans going while ``disturb`` does its worst, then plays the same plans on a server of its own that nobody
disturbs, and compares every history byte for byte.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import aiohttp
from ports import held

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "from turnwise_server.commands import app; app()"]
TURNS = 12
FORK_AT = 5
#: Seconds between two tries of a call that was not answered, and for all of them.
PAUSE = 0.05
PATIENCE = 240.0
UNBOUNDED = aiohttp.ClientTimeout(total=None)


class Server:
    """One server process with ``--journal directory``; ``arguments`` are environments and further options."""

    def __init__(self, directory: Path, *arguments: str, **variables: str) -> None:
        self._holder = held()
        self.port = self._holder.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = [*arguments, "--port", str(self.port), "--journal", str(directory)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TURNWISE_")}
        self._environ = {**kept, "XDG_STATE_HOME": str(directory.parent / f"state-{self.port}"), **variables}
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        return self._process and self._process.pid

    def start(self) -> None:
        """Returns when requests are accepted."""
        self._process = subprocess.Popen(
            [*COMMAND, *self._arguments], cwd=HERE, env=self._environ, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert ready.startswith("turnwise: serving"), f"the server did not start: {ready!r}"

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is closed."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=120)
        code = self._process.returncode
        self._process = None
        return code


@dataclass(frozen=True)
class Plan:
    """What one player does: an episode of ``env``, a fork in the middle of it, and the child's own way on."""

    number: int
    env: str
    turns: int = TURNS

    @property
    def body(self) -> dict[str, object]:
        return {
            "env": self.env,
            "index": 90,
            "seed": self.number,
            "options": {"max_turns": TURNS},
            "key": f"plan-{self.number}",
        }

    def texts(self, branch: str) -> list[str]:
        """Actions by turn; a branch has the first ones in common with the trunk."""
        trunk = random.Random(self.number)
        own = random.Random(f"{self.number}{branch}")
        texts = [f"{trunk.randrange(80)}" for _ in range(FORK_AT)]
        return texts + [f"{own.randrange(80)} é\u2028" for _ in range(self.turns - FORK_AT)]


@dataclass
class Transcript:
    """What the servers acknowledged to one player: session ids by branch, and the very answers by session and turn."""

    sessions: dict[str, str] = field(default_factory=dict)
    answers: dict[tuple[str, int], bytes] = field(default_factory=dict)
    retries: int = 0


class Player:
    """Calls ``url()`` until it is answered; 503 and 429 are no answers."""

    def __init__(self, http: aiohttp.ClientSession, url: Callable[[], str]) -> None:
        self._http = http
        self._url = url
        self.transcript = Transcript()

    async def call(self, method: str, path: str, body: object = None) -> bytes:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    async with self._http.request(method, self._url() + path, json=body) as response:
                        content = await response.read()
                        if response.status not in (429, 503):
                            assert response.status < 300, f"{method} {path}: {response.status} {content.decode()}"
                            return content
                except (aiohttp.ClientError, ConnectionError):
                    pass
                self.transcript.retries += 1
                await asyncio.sleep(PAUSE)

    async def step(self, sid: str, turn: int, text: str) -> None:
        path = f"/v1/sessions/{sid}/step"
        answer = await self.call("POST", path, {"turn": turn, "action": {"text": text}})
        assert json.loads(answer)["turn"] == turn + 1
        assert self.transcript.answers.setdefault((sid, turn), answer) == answer

    async def play(self, plan: Plan) -> Transcript:
        chance = random.Random(plan.number)
        sessions = self.transcript.sessions
        trunk = sessions["trunk"] = json.loads(await self.call("POST", "/v1/sessions", plan.body))["session_id"]
        texts = plan.texts("trunk")
        for turn, text in enumerate(texts):
            await self.step(trunk, turn, text)
            if chance.random() < 0.2:
                past = chance.randrange(turn + 1)
                await self.step(trunk, past, texts[past])  # sent twice: the same answer
            if turn + 1 == FORK_AT:
                fork = {"at_turn": turn, "count": 2, "key": "x"}
                forked = json.loads(await self.call("POST", f"/v1/sessions/{trunk}/fork", fork))["sessions"]
                for number, view in enumerate(forked):
                    sessions[f"branch {number}"] = view["session_id"]
        for branch, sid in list(sessions.items())[1:]:
            texts = plan.texts(branch)
            for turn in range(FORK_AT - 1, len(texts) - 2):
                await self.step(sid, turn, texts[turn])
            answer = await self.call("POST", f"/v1/sessions/{sid}/finish", {"turn": len(texts) - 2, "reason": "enough"})
            assert json.loads(answer)["status"] == "done"
        return self.transcript


async def play_all(
    plans: Iterable[Plan],
    players: int,
    url: Callable[[int], str],
    going_on: Callable[[], bool] = lambda: True,
) -> dict[int, Transcript]:
    """``players`` take one plan after the other while there are any and ``going_on()``; transcripts by plan number.

    ``url(number)`` is where the session of that plan is now.
    """
    done: dict[int, Transcript] = {}
    left = iter(plans)

    async def one(http: aiohttp.ClientSession) -> None:
        for plan in left:
            done[plan.number] = await Player(http, partial(url, plan.number)).play(plan)
            if not going_on():
                return

    async with (
        aiohttp.ClientSession(timeout=UNBOUNDED, connector=aiohttp.TCPConnector(limit=0)) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(players):
            group.create_task(one(http))
    return done


async def histories(transcripts: dict[int, Transcript], url: Callable[[int], str]) -> dict[tuple[int, str], bytes]:
    """History bodies by plan and branch, with the session's random id taken out."""
    found = {}
    async with aiohttp.ClientSession(timeout=UNBOUNDED) as http:
        for number, transcript in transcripts.items():
            player = Player(http, partial(url, number))
            for branch, sid in transcript.sessions.items():
                body = await player.call("GET", f"/v1/sessions/{sid}/history")
                for (of, turn), answer in transcript.answers.items():
                    if of == sid:  # what was acknowledged stands in the history, word for word
                        assert body.count(answer[1:-1]) == 1, f"{branch} of plan {number}: turn {turn}"
                found[number, branch] = body.replace(sid.encode(), b"SESSION")
    return found


async def crash_test(
    servers: Sequence[Server],
    calm: Server,
    plan: Callable[[int], Plan],
    disturb: Callable[[Sequence[Server]], Awaitable[None]],
    players: int = 64,
) -> int:
    """The number of calls that had to be sent again. Servers are started here, and killed at the end.

    A session stays with its server, whatever ``disturb`` does to that.
    """

    def home(number: int) -> str:
        return servers[number % len(servers)].url

    with ExitStack() as stack:
        for server in (*servers, calm):
            stack.callback(server.kill)
            server.start()
        storm = asyncio.create_task(disturb(servers))
        played = await play_all(map(plan, count()), players, home, lambda: not storm.done())
        await storm
        after = await histories(played, home)
        quiet = await play_all(map(plan, played), 8, lambda number: calm.url)
        undisturbed = await histories(quiet, lambda number: calm.url)
    assert after.keys() == undisturbed.keys()
    for name, history in after.items():
        assert history == undisturbed[name], f"plan {name[0]}, {name[1]}"
    return sum(transcript.retries for transcript in played.values())


async def kills(servers: Sequence[Server], times: int, seed: int = 0) -> None:
    """SIGKILL one of the servers at ``times`` random moments, and start it again at once."""
    chance = random.Random(seed)
    for _ in range(times):
        await asyncio.sleep(chance.uniform(0.05, 0.8))
        server = chance.choice(servers)
        server.kill()
        await asyncio.to_thread(server.start)
