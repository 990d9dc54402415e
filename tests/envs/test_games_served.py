"""Games that nobody here wrote, served by `turnwise serve` and won over HTTP by scripted agents.

Experts play in this process; where the environment is deterministic both must end with the same hash: the same bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from turnwise_envs import registry
from turnwise_envs.episode import LiveEpisode

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Agent = Callable[[list[str]], str]

SETS = ("leg_counting", "chain_sum", "basic_arithmetic", "word_sorting", "maze")


@contextmanager
def served(tmp_path, *words: str) -> Iterator[httpx.Client]:
    """A server in a process of its own, started as a user starts it."""
    command = [sys.executable, "-m", "turnwise_envs", "serve", *words, "--port", "0", "--workers", "1"]
    command += ["--step-timeout", "240"]  # Java and large imports on a busy machine
    with subprocess.Popen(
        [*command, "--journal", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert " on http" in line, line
            with httpx.Client(base_url=line.split()[-1], timeout=600) as client:
                yield client
        finally:
            process.terminate()
            process.wait(60)


def roll_out(client: httpx.Client, env: str, agent: Agent, index: int) -> dict:
    """The last answer of an episode."""
    session = client.post("/v1/sessions", json={"env": env, "index": index, "seed": 1}).raise_for_status().json()
    heard, answer = [text_of(session)], session
    while answer["status"] == "live":
        body = {"turn": answer["turn"], "action": {"text": agent(heard)}}
        answer = client.post(f"/v1/sessions/{session['session_id']}/step", json=body).raise_for_status().json()
        heard.append(text_of(answer))
    return answer


def text_of(answer: dict) -> str:
    return "\n".join(message["content"] for message in answer["observation"]["messages"])


def expert(name: str, index: int, **arguments: str) -> tuple[Agent, str]:
    """Says what the expert says in this process; and the hash that the episode has here in the end."""

    async def run() -> tuple[list[str], str]:
        episode = await LiveEpisode.start(registry.load(name, arguments), "train", index, 1)
        said = []
        while not episode.done:
            action = episode.env.expert_action()
            assert action is not None
            said.append(action.text)
            await episode.step(action)
        await episode.close()
        return said, episode.log_hash

    said, log_hash = asyncio.run(run())
    return lambda heard: said[len(heard) - 1], log_hash


def halving(heard: list[str]) -> str:
    """TextArena's GuessTheNumber."""
    low, high = 1, 20
    for hint in heard[1:]:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if "higher" in hint else (low, middle - 1)
    return f"[{(low + high) // 2}]"


def hanoi(heard: list[str]) -> str:
    """TextArena's TowerOfHanoi with three disks."""
    return ["[A C]", "[A B]", "[C B]", "[A C]", "[B A]", "[B C]", "[A C]"][len(heard) - 1]


def mastermind(heard: list[str]) -> str:
    """TextArena's Mastermind: always the first code that fits all answers."""
    known = [
        (tuple(map(int, code.split())), int(black), int(white))
        for hint in heard[1:]
        for code, black, white in re.findall(r"Submitted \[([\d ]+)\]. Feedback: (\d) black .* (\d) white", hint)
    ]
    for code in itertools.permutations(range(1, 7), 4):
        if all(pegs(code, guess) == (black, white) for guess, black, white in known):
            return f"[{' '.join(map(str, code))}]"
    raise AssertionError("no code fits")


def pegs(code: tuple[int, ...], guess: tuple[int, ...]) -> tuple[int, int]:
    black = sum(a == b for a, b in zip(code, guess, strict=True))
    return black, len(set(code) & set(guess)) - black


def test_gymnasium(tmp_path):
    pytest.importorskip("gymnasium")
    solid = ("--make", '{"is_slippery": false}')
    with served(tmp_path, "gymnasium:FrozenLake-v1", *solid, "gymnasium:Taxi-v4") as client:
        for index in range(3):
            lake, there = expert("gymnasium:FrozenLake-v1", index, make=solid[1])
            last = roll_out(client, "gymnasium:FrozenLake-v1", lake, index)
            assert (last["reward"], last["info"]["end"], last["log_hash"]) == (1.0, "solved", there)
            taxi, there = expert("gymnasium:Taxi-v4", index)
            last = roll_out(client, "gymnasium:Taxi-v4", taxi, index)
            assert (last["reward"], last["info"]["end"], last["log_hash"]) == (20.0, "solved", there)


def test_reasoning_gym(tmp_path):
    pytest.importorskip("reasoning_gym")
    with served(tmp_path, *(f"reasoning-gym:{name}" for name in SETS)) as client:
        for name in SETS:
            agent, there = expert(f"reasoning-gym:{name}", 5)
            last = roll_out(client, f"reasoning-gym:{name}", agent, 5)
            assert (last["reward"], last["info"]["end"], last["log_hash"]) == (1.0, "solved", there)


def test_textarena(tmp_path):
    pytest.importorskip("textarena")
    agents = {"GuessTheNumber-v0": halving, "TowerOfHanoi-v0": hanoi, "Mastermind-v0": mastermind}
    with served(tmp_path, *(f"textarena:{game}" for game in agents)) as client:
        for game, agent in agents.items():
            for index in range(3):
                last = roll_out(client, f"textarena:{game}", agent, index)
                assert (last["reward"], last["info"]["end"]) == (1.0, "solved"), (game, index, last)


def test_scienceworld(tmp_path):
    pytest.importorskip("scienceworld")
    if shutil.which("java") is None:
        pytest.skip("needs PROGRAM: java")
    agent, _ = expert("scienceworld:boil", 1)
    with served(tmp_path, "scienceworld:boil") as client:
        last = roll_out(client, "scienceworld:boil", agent, 1)
    assert (last["info"]["metrics"]["success"], last["info"]["end"]) == (1.0, "solved")
