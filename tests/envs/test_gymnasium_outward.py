"""Our environments as Gymnasium environments in this process, checked by Gymnasium."""

from __future__ import annotations

import asyncio
import warnings

import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from turnwise_envs import (  # noqa: E402
    Environment,
    EnvSpec,
    FunctionTaskSet,
    Message,
    Observation,
    SplitSpec,
    StepResult,
    ToolSpec,
    UnknownEnvironment,
    UnknownTask,
)
from turnwise_envs.errors import EpisodeDone, InvalidOptions  # noqa: E402
from turnwise_envs.outward.gymnasium import LocalEnv  # noqa: E402
from turnwise_envs.outward.texts import UnicodeText  # noqa: E402


@pytest.fixture
def env():
    env = LocalEnv("household", render_mode="ansi")
    yield env
    env.close()


@pytest.mark.parametrize("name", ["household"])
def test_gymnasium_finds_nothing_to_say(name):
    env = gymnasium.make("turnwise_envs.outward.gymnasium:turnwise/Local-v0", env=name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    env.close()
    env.close()


def test_an_episode(env):
    observation, info = env.reset(seed=0, options={"index": 1})
    assert "clean some cup and put it in microwave" in observation == env.render()
    assert observation in env.observation_space
    assert (info["task_id"], info["turn"], info["end"]) == ("household/train/1", 0, None)
    commands = [
        "go to cabinet 1", "open cabinet 1", "take cup 1 from cabinet 1", "go to sinkbasin 1",
        "clean cup 1 with sinkbasin 1", "go to microwave 1", "open microwave 1", "move cup 1 to microwave 1",
    ]  # fmt: skip
    results = [env.step(command) for command in commands]
    assert all(
        command in info["admissible_actions"] for command, (*_, info) in zip(commands[1:], results, strict=False)
    )
    _, reward, terminated, truncated, info = results[-1]
    assert (reward, terminated, truncated, info["end"], info["metrics"]) == (
        1.0,
        True,
        False,
        "solved",
        {"success": 1.0},
    )
    with pytest.raises(EpisodeDone):
        env.step("look")


def test_seeds_splits_and_options(env):
    def drawn(**reset):
        return env.reset(**reset)[1]["task_id"]

    assert [drawn(seed=5), drawn()] == [drawn(seed=5), drawn()]
    assert drawn(seed=1, options={"split": "valid_unseen"}).startswith("household/valid_unseen/")
    env.reset(seed=0, options={"index": 0, "options": {"max_turns": 2}})
    assert [env.step("look")[3] for _ in range(2)] == [False, True]
    with pytest.raises(InvalidOptions, match="no option 'indx'; it has: index, split, options"):
        env.reset(options={"indx": 1})
    with pytest.raises(UnknownTask):
        env.reset(options={"index": -1})
    with pytest.raises(UnknownEnvironment):
        LocalEnv("no-such-environment")
    with pytest.raises(UnknownTask):
        LocalEnv("household", split="no-such-split")


def test_before_the_first_reset(env):
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("look")


async def test_inside_an_event_loop(env):
    assert asyncio.get_running_loop().is_running()
    assert env.reset(seed=0, options={"index": 1})[1]["turn"] == 0


class Adder(Environment):
    """Tool calls in, tool messages out."""

    spec = EnvSpec(
        id="adder",
        action_format="tools",
        tools=[ToolSpec(name="add", description="Add.")],
        splits=[SplitSpec(name="train", size=3)],
    )
    tasks = FunctionTaskSet(spec, lambda split, index: "Add.")

    async def reset(self, task, seed, options):
        return Observation.say("Add.")

    async def step(self, action):
        said = [Message(role="tool", content=str(c.arguments), tool_call_id=c.id) for c in action.tool_calls]
        return StepResult(observation=Observation(messages=said or [Message(content=f"no call: {action.text}")]))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ('{"name": "add", "arguments": {"a": 1}}', "{'a': 1}"),
        ('[{"name": "add"}, {"name": "add", "arguments": [2]}]', "{}\nNone"),
        ("add 1", "no call: add 1"),
        ("[]", "no call: []"),
        ("[" * 10_000, "no call: " + "[" * 10_000),
    ],
)
def test_tool_calls_in_json(action, said):
    env = LocalEnv(Adder)
    env.reset(seed=0)
    assert env.step(action)[0] == said
    env.close()


def test_texts_are_what_utf_8_can_carry():
    space = UnicodeText(3)
    assert ["☃" in space, "abcd" in space, "\ud800" in space, 5 in space] == [True, False, False, False]
