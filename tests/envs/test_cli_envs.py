"""``turnwise envs``, ``play`` and ``check-env`` as a user runs them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from turnwise_envs import cli, registry
from turnwise_envs.episode import LiveEpisode

ROOT = Path(__file__).parents[2]
GUESS = "examples.guess:Guess"


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def turnwise(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(cli.app, list(arguments), input=typed, env={"COLUMNS": "120"})


def test_envs_lists_what_is_installed() -> None:
    table = turnwise("envs")
    assert table.exit_code == 0
    assert all(word in table.output for word in ("id", "splits", "turns", "household", "train 10000"))
    listed = json.loads(turnwise("envs", "--json").output)
    assert [spec["id"] for spec in listed] == registry.installed()
    assert listed[0].keys() >= {"id", "version", "splits", "max_turns", "action_format", "description"}


def test_a_broken_plug_in_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "installed", lambda: ["household", "gone"])
    result = turnwise("envs")
    assert result.exit_code == 0
    assert "household" in result.output
    assert "no environment 'gone'" in result.output
    assert json.loads(turnwise("envs", "--json").output)[1]["id"] == "gone"


def test_one_environment_in_detail_with_an_example_task() -> None:
    result = turnwise("envs", GUESS)
    assert "guess/train/0" in result.output
    assert "I think of a number" in result.output
    detail = json.loads(turnwise("envs", GUESS, "--json").output)
    assert detail["spec"]["max_turns"] == 8
    assert detail["example_task"]["id"] == "guess/train/0"


def test_play_to_the_end() -> None:
    result = turnwise("play", GUESS, "--index", "7", typed="3\n\nno idea\n:hint\n:actions\n:help\n7\n")
    assert result.exit_code == 0
    assert "at most 8 turns" in result.output
    assert "Higher.\nturn 1/8, reward 0" in result.output
    assert "Write a number.\nturn 2/8, reward 0, not understood" in result.output
    assert "has no expert" in result.output
    assert "does not list its actions" in result.output
    assert ":quit" in result.output
    assert result.output.endswith("The episode ended after 3 turns: terminated. Total reward 1.\n")


@pytest.mark.parametrize("typed", ["3\n", "3\n:quit\n99\n"])
def test_the_end_of_the_input_and_quit_score_the_episode(typed: str) -> None:
    result = turnwise("play", GUESS, typed=typed)
    assert result.exit_code == 0
    assert "ended after 1 turns: finished:quit" in result.output


async def _expert_commands() -> list[str]:
    episode = await LiveEpisode.start(registry.load("household"), "train", 0)
    commands = []
    while not episode.done:
        expert = episode.env.expert_action()
        assert expert is not None
        commands.append(expert.text)
        await episode.step(expert)
    return commands


def test_hints_are_what_the_expert_does_and_lead_to_the_end() -> None:
    hints = asyncio.run(_expert_commands())
    result = turnwise("play", "household", typed="".join(f":hint\n{hint}\n" for hint in hints))
    assert [line[2:] for line in result.output.splitlines() if line.startswith("> ")][::2] == hints
    assert f"ended after {len(hints)} turns: solved. Total reward 1." in result.output


def test_tools_are_called_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adder_world.py").write_text(
        "from turnwise_envs import *\n"
        "class Adder(Environment):\n"
        "    spec = EnvSpec(id='adder', action_format='tools', tools=[ToolSpec(name='add', description='Adds.')])\n"
        "    tasks = FunctionTaskSet(spec, lambda split, index: 'Add.')\n"
        "    async def reset(self, task, seed, options):\n"
        "        return Observation.say(task.instruction)\n"
        "    async def step(self, action):\n"
        "        call = action.tool_calls[0]\n"
        "        text = f'{call.id} {call.name} {sum(call.arguments[\"x\"])}'\n"
        "        message = Message(role='tool', content=text, tool_call_id=call.id)\n"
        "        return StepResult(observation=Observation(messages=[message]))\n"
    )
    monkeypatch.chdir(tmp_path)
    typed = ':call add {"x": [1, 2]}\n:call add {"x": [3]}\n:call add {\n:call\n'
    result = turnwise("play", "adder_world:Adder", typed=typed)
    assert result.exit_code == 0
    assert "tool add(): Adds." in result.output
    assert "c0_0 add 3" in result.output
    assert "c1_0 add 3" in result.output
    assert "the arguments are not JSON" in result.output
    assert ':call NAME {"argument": "value"}' in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["play", "hosehold"], "no environment 'hosehold'"),
        (["play", GUESS, "--index", "100"], "tasks 0 to 99, not 100"),
        (["play", GUESS, "--split", "test"], "no split 'test'"),
        (["play", GUESS, "--options", "{"], "--options is not JSON"),
        (["play", GUESS, "--options", "[]"], "must be a JSON object"),
        (["play", GUESS, "--options", '{"a": 1}'], "'a' was unexpected"),
        (["envs", "examples.guess:Nobody"], "no attribute 'Nobody'"),
        (["check-env", "nowhere:Env"], "ModuleNotFoundError"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str) -> None:
    result = turnwise(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("turnwise: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_the_example_passes_and_is_twenty_lines() -> None:
    result = turnwise("check-env", GUESS, "--episodes", "1")
    assert result.exit_code == 0, result.output
    assert "0 failed" in result.output
    code = [line for line in (ROOT / "examples/guess.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 22


def test_check_env_fails_with_exit_code_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trusting_world.py").write_text(
        "from turnwise_envs import *\n"
        "class Trusting(Environment):\n"
        "    spec = EnvSpec(id='trusting')\n"
        "    tasks = FunctionTaskSet(spec, lambda split, index: 'Say a number.')\n"
        "    async def reset(self, task, seed, options):\n"
        "        return Observation.say(task.instruction)\n"
        "    async def step(self, action):\n"
        "        return StepResult(observation=Observation.say(f'{int(action.text)}'))\n"
    )
    monkeypatch.chdir(tmp_path)
    result = turnwise("check-env", "trusting_world:Trusting", "--episodes", "1")
    assert result.exit_code == 1
    assert "no mistake of the policy may raise" in " ".join(result.output.split())
    report = json.loads(turnwise("check-env", "trusting_world:Trusting", "--episodes", "1", "--json").output)
    assert not report["ok"]
    assert [finding["check"] for finding in report["findings"] if finding["status"] == "failed"] == ["junk"]


def test_a_set_of_two_is_caught_whatever_the_hash_seed_here_is(tmp_path: Path) -> None:
    (tmp_path / "coin_world.py").write_text(
        "from turnwise_envs import *\n"
        "class Coin(Environment):\n"
        "    spec = EnvSpec(id='coin')\n"
        "    tasks = FunctionTaskSet(spec, lambda split, index: 'Call it.')\n"
        "    async def reset(self, task, seed, options):\n"
        "        return Observation.say(' or '.join({'heads', 'tails'}))\n"
        "    async def step(self, action):\n"
        "        return StepResult(observation=Observation.say('?'))\n"
    )
    code = "import sys; sys.argv = ['turnwise', 'check-env', 'coin_world:Coin', '--episodes', '1', '--json']\n"
    code += "from turnwise_envs.cli import app; app()"
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        failed = [finding for finding in json.loads(done.stdout)["findings"] if finding["status"] == "failed"]
        assert [finding["check"] for finding in failed] == ["fresh-process"]
