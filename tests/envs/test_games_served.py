"""Games that nobody here wrote, served by `turnwise serve` and won over HTTP, through our client, by scripted agents.

Experts play in this process; where the environment is deterministic both must end with the same hash: the same bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from turnwise_envs import registry
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Action, ToolCall
from turnwise_envs.wire import StepView

pytest.importorskip("httpx")
pytest.importorskip("fastapi")

import httpx

from turnwise_agent.client import SyncClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

#: Says something, or calls a tool, after all that it has heard.
Agent = Callable[[list[str]], str | dict[str, Any]]

SETS = ("leg_counting", "chain_sum", "basic_arithmetic", "word_sorting", "maze")


@contextmanager
def served(tmp_path: Path, *words: str) -> Iterator[SyncClient]:
    """A server in a process of its own, started as a user starts it, and a client of it."""
    command = [sys.executable, "-m", "turnwise_envs", "serve", *words, "--port", "0", "--workers", "1"]
    command += ["--step-timeout", "240"]  # Java and large imports on a busy machine
    with subprocess.Popen(
        [*command, "--journal", str(tmp_path / "journal")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()
            assert " on http" in line, line
            with SyncClient(line.split()[-1], timeout=600) as client:
                yield client
        finally:
            process.terminate()
            process.wait(60)


def roll_out(client: SyncClient, env: str, agent: Agent, index: int) -> StepView:
    """The last answer of an episode."""
    with client.create(env, index=index, seed=1) as session:
        heard = [session.observation.text]
        while not session.done:
            answer = session.step(as_action(agent(heard), session.turn))
            heard.append(answer.observation.text)
    return answer


def as_action(said: str | dict[str, Any], turn: int) -> Action:
    if isinstance(said, str):
        return Action(text=said)
    (tool,) = said
    return Action(tool_calls=[ToolCall(id=f"c{turn}_0", name=tool, arguments=said[tool])])


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


def test_gymnasium(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    solid = ("--make", '{"is_slippery": false}')
    with served(tmp_path, "gymnasium:FrozenLake-v1", *solid, "gymnasium:Taxi-v4") as client:
        for index in range(3):
            lake, there = expert("gymnasium:FrozenLake-v1", index, make=solid[1])
            last = roll_out(client, "gymnasium:FrozenLake-v1", lake, index)
            assert (last.reward, last.info.end, last.log_hash) == (1.0, "solved", there)
            taxi, there = expert("gymnasium:Taxi-v4", index)
            last = roll_out(client, "gymnasium:Taxi-v4", taxi, index)
            assert (last.reward, last.info.end, last.log_hash) == (20.0, "solved", there)


def test_reasoning_gym(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym")
    with served(tmp_path, *(f"reasoning-gym:{name}" for name in SETS)) as client:
        for name in SETS:
            agent, there = expert(f"reasoning-gym:{name}", 5)
            last = roll_out(client, f"reasoning-gym:{name}", agent, 5)
            assert (last.reward, last.info.end, last.log_hash) == (1.0, "solved", there)


def test_textarena(tmp_path: Path) -> None:
    pytest.importorskip("textarena")
    agents = {"GuessTheNumber-v0": halving, "TowerOfHanoi-v0": hanoi, "Mastermind-v0": mastermind}
    with served(tmp_path, *(f"textarena:{game}" for game in agents)) as client:
        for game, agent in agents.items():
            for index in range(3):
                last = roll_out(client, f"textarena:{game}", agent, index)
                assert (last.reward, last.info.end) == (1.0, "solved"), (game, index, last)


def test_scienceworld(tmp_path: Path) -> None:
    pytest.importorskip("scienceworld")
    if shutil.which("java") is None:
        pytest.skip("needs PROGRAM: java")
    agent, _ = expert("scienceworld:boil", 1)
    with served(tmp_path, "scienceworld:boil") as client:
        last = roll_out(client, "scienceworld:boil", agent, 1)
    assert (last.info.metrics["success"], last.info.end) == (1.0, "solved")


def test_textworld_generates_games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three worlds, compiled by the server and by nobody before it, won by what TextWorld says wins from here."""
    pytest.importorskip("textworld")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = {"rooms": "2", "objects": "3", "quest_length": "2"}
    with served(tmp_path, "textworld", "--rooms", "2", "--objects", "3", "--quest-length", "2") as client:
        for index in range(3):
            agent, there = expert("textworld", index, **small)
            last = roll_out(client, "textworld", agent, index)
            assert (last.info.metrics, last.info.end) == ({"score": 1.0, "success": 1.0}, "solved")
            assert last.log_hash == there


STORY = """"The Vault" by Turnwise

The Hall is a room. "Dust everywhere." The Cellar is down from the Hall. The ruby is a thing in the Cellar.

After taking the ruby: say "It is yours."; end the story finally saying "You have won".
"""


def test_a_story_for_the_z_machine(tmp_path: Path) -> None:
    """A story that Jericho's interpreter plays and has never heard of: text only, so the agent listens."""
    pytest.importorskip("textworld")
    from textworld.generator.inform7.world2inform7 import compile_inform7_game

    compile_inform7_game(STORY, str(tmp_path / "vault.z8"))

    def thief(heard: list[str]) -> str:
        if "You have won" in heard[-1]:
            return "quit"
        return "take ruby" if "You can see a ruby here." in heard[-1] else "go down"

    with served(tmp_path, f"textworld:{tmp_path / 'vault.z8'}") as client:
        (spec,) = client.envs()
        last = roll_out(client, spec.id, thief, 0)
    assert (last.turn, last.terminated, last.reward) == (3, True, 0.0)  # nobody told the interpreter what winning is


def test_openenv(tmp_path: Path) -> None:
    """OpenEnv's own server, ours before it, our client before that."""
    if not (Path(sys.prefix) / "openenv" / "0.10.0" / "openenv").is_dir():
        pytest.skip("OpenEnv 0.10.0 is not beside the virtual environment: make install")
    words = iter(("amber", "birch", "cedar", "delta"))
    agents: dict[str, tuple[str, Agent, int]] = {
        "words": ("openenv:Words", lambda heard: next(words), 4),
        "grid": ("openenv:Grid", lambda heard: {"act": {"x": 1, "y": 1} if len(heard) < 3 else {"x": 0, "y": 1}}, 3),
    }
    for kind, (env, agent, turns) in agents.items():
        with theirs(kind) as url, served(tmp_path / kind, "openenv", "--url", url) as client:
            last = roll_out(client, env, agent, 3)
            assert (last.reward, last.info.end, last.turn) == (1.0, "solved", turns)
            assert not client.spec(env).deterministic


@contextmanager
def theirs(kind: str) -> Iterator[str]:
    """The address of a server of OpenEnv's, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("openenv_games.py")), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            for _ in range(600):
                try:
                    httpx.get(f"{url}/health").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(30)
