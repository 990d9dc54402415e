"""OpenEnv servers as environments of ours: their server, unchanged, in a process of its own; and our own, by their wire."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from turnwise_envs import UnknownEnvironment, registry
from turnwise_envs.check import check_env
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.errors import EnvironmentFault
from turnwise_envs.types import Action, ToolCall

pytest.importorskip("websockets")


@pytest.fixture(scope="module")
def serve():
    """``serve("words")``: the address of OpenEnv's server with that environment."""
    if not (Path(sys.prefix) / "openenv" / "0.10.0" / "openenv").is_dir():
        pytest.skip("OpenEnv 0.10.0 is not beside the virtual environment: make install")
    running: dict[str, tuple[subprocess.Popen[str], str]] = {}

    def start(kind: str) -> str:
        if kind not in running:
            command = [sys.executable, str(Path(__file__).with_name("openenv_games.py")), kind]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            running[kind] = process, process.stdout.readline().strip()
            wait_for(running[kind][1])
        return running[kind][1]

    yield start
    for process, _ in running.values():
        process.terminate()
        process.wait(20)
        process.stdout.close()


def wait_for(url: str) -> None:
    import time
    import urllib.error
    import urllib.request

    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{url} does not answer")


def play(env, actions, *, index=0):
    async def run():
        episode = await LiveEpisode.start(env, "train", index)
        try:
            return episode.initial, [await episode.step(action) for action in actions]
        finally:
            await episode.close()

    return asyncio.run(run())


def call(**arguments) -> Action:
    return Action(tool_calls=[ToolCall(id="c0_0", name="act", arguments=arguments)])


def test_a_text_field(serve):
    env = registry.load("openenv", {"url": serve("words"), "instruction": "Guess the word."})
    assert (env.spec.id, env.spec.action_format, env.spec.deterministic) == ("openenv:Words", "text", False)
    first, (no, refused, yes) = play(
        env, [Action(text=said) for said in ("amber", "explode", "<think>hm</think> cedar")], index=2
    )
    assert first.text == "Guess the word.\n\nOne of amber, birch, cedar, delta."
    assert (no.observation.text, no.reward, no.done) == ("no (1)", 0.0, False)
    assert (refused.info.action_valid, "boom" in refused.observation.text, refused.done) == (False, True, False)
    assert (yes.observation.text, yes.reward, yes.terminated, yes.info.end) == ("yes", 1.0, True, "solved")


def test_several_fields_are_a_tool(serve):
    env = registry.load("openenv", {"url": serve("grid")})
    (tool,) = env.spec.tools
    assert (tool.name, tool.parameters["required"]) == ("act", ["x", "y"])
    first, (moved, wrong, home) = play(env, [call(x=1, y=1), call(x="left"), call(x=1, y=2)])
    assert "act(x: integer, y: integer)" in first.text
    assert [m.content for m in moved.observation.messages] == ["x: 1\ny: 1"]
    assert (wrong.info.action_valid, "Wrong arguments" in wrong.observation.text) == (False, True)
    assert (home.reward, home.terminated) == (1.0, True)


def test_it_keeps_the_contract_and_promises_no_determinism(serve):
    report = check_env(registry.load("openenv", {"url": serve("words")}), episodes=1)
    assert report.ok, report
    told = {finding.check: finding for finding in report.findings}
    assert (told["determinism"].status, "not deterministic" in told["determinism"].message) == ("skipped", True)


@pytest.mark.slow
def test_where_the_user_promises_determinism_it_is_checked(serve):
    report = check_env(registry.load("openenv", {"url": serve("words"), "deterministic": "true"}), episodes=2)
    assert report.ok, report
    assert {finding.check: finding.status for finding in report.findings}["fresh-process"] == "ok"


def test_nobody_there():
    with pytest.raises(UnknownEnvironment, match=r"no OpenEnv server at http://127\.0\.0\.1:1/schema"):
        registry.load("openenv", {"url": "http://127.0.0.1:1"})
    with pytest.raises(UnknownEnvironment, match="begins with http"):
        registry.load("openenv", {"url": "ws://127.0.0.1:1"})


def test_a_server_that_goes_away_is_a_fault_not_a_reward(serve):
    command = [sys.executable, str(Path(__file__).with_name("openenv_games.py")), "words"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().strip()
    wait_for(url)
    env = registry.load("openenv", {"url": url})

    async def run():
        episode = await LiveEpisode.start(env, "train", 0)
        process.kill()
        process.wait(20)
        with pytest.raises(EnvironmentFault):
            await episode.step(Action(text="amber"))
        await episode.close()
        assert episode.turn == 0

    asyncio.run(run())
    process.stdout.close()
