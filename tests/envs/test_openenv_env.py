"""OpenEnv servers as environments of ours: their server, unchanged, in a process of its own; and our own, by their wire."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from waiting import until

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
        process.wait(60)
        process.stdout.close()


def wait_for(url: str) -> None:
    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=60).close()
        except OSError:
            return False
        return True

    until(answers)


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


def test_an_end_without_reward_is_a_failure(serve):
    env = registry.load("openenv", {"url": serve("words")})
    _, (no, given_up) = play(env, [Action(text="birch"), Action(text="pass")])
    assert (no.info.end, no.info.metrics) == (None, {})
    assert (given_up.observation.text, given_up.reward, given_up.terminated) == ("It was amber.", 0.0, True)
    assert (given_up.info.end, given_up.info.metrics) == ("failed", {"return": 0.0})


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
        process.wait(60)
        with pytest.raises(EnvironmentFault):
            await episode.step(Action(text="amber"))
        await episode.close()
        assert episode.turn == 0

    asyncio.run(run())
    process.stdout.close()


ADDER = """
from turnwise_envs import Environment, EnvSpec, FunctionTaskSet, Message, Observation, SplitSpec, StepResult, ToolSpec

NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}

class Adder(Environment):
    spec = EnvSpec(id="adder", action_format="tools", tools=[ToolSpec(name="add", description="Add.", parameters=NUMBERS)],
                   splits=[SplitSpec(name="train", size=3)])
    tasks = FunctionTaskSet(spec, lambda split, index: "Add.")

    async def reset(self, task, seed, options):
        return Observation.say("Reach ten.")

    async def step(self, action):
        (call,) = action.tool_calls
        total = call.arguments["a"] + call.arguments["b"]
        said = Message(role="tool", content=str(total), tool_call_id=call.id)
        return StepResult(observation=Observation(messages=[said]), reward=float(total == 10), terminated=total == 10)
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """The address of a server of ours, which speaks OpenEnv's wire, with a text environment and one of tools."""
    pytest.importorskip("uvicorn")
    place = tmp_path_factory.mktemp("ours")
    (place / "adder_world.py").write_text(ADDER)
    command = [sys.executable, "-m", "turnwise_envs", "serve", "household", "adder_world:Adder"]
    command += ["--port", "0", "--journal", str(place / "journal")]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.terminate()
        process.wait(60)


def test_tools_are_tools(ours):
    env = registry.load("openenv", {"url": f"{ours}/openenv/adder"})
    assert [tool.name for tool in env.spec.tools] == ["add"]

    def add(*calls):
        return Action(
            tool_calls=[ToolCall(id=f"c0_{i}", name="add", arguments=arguments) for i, arguments in enumerate(calls)]
        )

    first, (three, wrong, ten) = play(
        env, [add({"a": 1, "b": 2}), add({"a": 1}), add({"a": 4, "b": 6}, {"a": 1, "b": 1})]
    )
    assert "Reach ten." in first.text
    assert [(m.role, m.tool_call_id, m.content) for m in three.observation.messages] == [("tool", "c0_0", "3")]
    assert (wrong.info.action_valid, "Wrong arguments" in wrong.observation.text) == (False, True)
    assert [m.content for m in ten.observation.messages] == ["10", "Not run: the episode ended with the call before."]
    assert (ten.reward, ten.terminated, ten.info.end) == (1.0, True, "solved")


def test_our_own_server_by_their_wire(ours):
    from turnwise_envs.household import Household

    env = registry.load("openenv", {"url": f"{ours}/openenv/household", "instruction": "Do it."})
    assert env.spec.action_format == "text"
    first, (looked,) = play(env, [Action(text="go to cabinet 1")], index=1)
    there, (expected,) = play(Household, [Action(text="go to cabinet 1")], index=1)
    assert first.text == f"Do it.\n\n{there.text}"
    assert looked.observation.text == expected.observation.text
