"""``turnwise envs --stats``: figures of an environment, and a line instead where there can be none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner, Result

from turnwise_envs import (
    Action,
    Environment,
    EnvSpec,
    FunctionTaskSet,
    Observation,
    SplitSpec,
    StepInfo,
    StepResult,
    SyncEnvironment,
    cli,
    registry,
)
from turnwise_envs.stats import Fare, measure, solved


class Door(Environment):
    """Two doors; the expert takes the left one and is right in the even tasks."""

    spec = EnvSpec(id="door", max_turns=3, splits=[SplitSpec(name="train", size=10), SplitSpec(name="endless")])
    tasks: ClassVar[FunctionTaskSet] = FunctionTaskSet(spec, lambda split, index: "Left or right?")

    async def reset(self, task, seed, options):
        self.right = task.index % 2 == 1
        return Observation.say(task.instruction, admissible_actions=["knock"])

    async def step(self, action):
        return self.take(action)

    def take(self, action):
        if action.text == "knock":
            return StepResult(observation=Observation.say("Knock.", admissible_actions=["knock"]), reward=-0.5)
        won = (action.text == "right") is self.right
        return StepResult(
            observation=Observation.say("Over."),
            reward=float(won),
            terminated=True,
            info=StepInfo(end="solved" if won else "failed"),
        )

    def expert_action(self):
        return Action(text="left")


class Novice(SyncEnvironment):
    """The same without an expert, and blocking."""

    spec = Door.spec.model_copy(update={"id": "novice"})
    tasks = FunctionTaskSet(spec, lambda split, index: "Left or right?")
    take = Door.take

    def reset_sync(self, task, seed, options):
        return Observation.say(task.instruction, admissible_actions=["knock"])

    def step_sync(self, action):
        return self.take(action)


class Needy(Door):
    """Notices only at its reset that something is missing."""

    spec = Door.spec.model_copy(update={"id": "needy"})
    tasks = FunctionTaskSet(spec, lambda split, index: "Left or right?")

    async def reset(self, task, seed, options):
        raise ModuleNotFoundError("No module named 'java'; pip install 'turnwise[games]'")


def turnwise(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "160"})


def test_how_an_expert_and_chance_fare() -> None:
    found = measure(Door, tasks=50)
    assert (found.env, found.split, found.size) == ("door", "train", 10)
    assert found.expert == Fare(episodes=10, success=0.5, reward=0.5, turns=1.0)
    assert found.random == Fare(episodes=10, success=0.0, reward=-1.5, turns=3.0)
    assert found.steps == 40
    assert found.steps_per_core >= found.live_steps_per_core > 0
    assert found.steps_per_second > 0
    assert found.reset_seconds > 0


def test_without_an_expert_and_with_limits() -> None:
    found = measure(Novice, tasks=4, split="endless")
    assert found.expert is None
    assert (found.size, found.random.episodes) == (None, 4)
    assert measure(Door, seconds=0.0).random.episodes == 1


@pytest.mark.parametrize(
    ("result", "success"),
    [
        ({"info": StepInfo(end="solved")}, True),
        ({"info": StepInfo(end="failed"), "reward": 1.0, "terminated": True}, False),
        ({"info": StepInfo(metrics={"success": 0.5}), "reward": 1.0, "terminated": True}, False),
        ({"info": StepInfo(metrics={"success": 1.0}, end="max_turns"), "truncated": True}, True),
        ({"reward": 1.0, "terminated": True}, True),
        ({"reward": 1.0, "truncated": True}, False),
        ({"reward": -1.0, "terminated": True}, False),
    ],
)
def test_what_counts_as_solved(result: dict[str, object], success: bool) -> None:
    assert solved(StepResult(observation=Observation.say(""), **result)) is success


def test_the_command_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    shown = turnwise("envs", "--stats", "examples.guess:Guess", "--tasks", "3")
    assert shown.exit_code == 0, shown.output
    assert "guess" in shown.output
    assert "none" in shown.output
    (figures,) = json.loads(turnwise("envs", "household", "--stats", "--tasks", "2", "--json").output)
    assert figures["expert"] == {**figures["expert"], "episodes": 2, "success": 1.0}
    wrapped = turnwise(
        "envs", "wrapped:household", "--stats", "--tasks", "2", "--options", '{"max_turns": 2}', "--json"
    )
    assert json.loads(wrapped.output)[0]["random"]["turns"] == 2.0


def test_what_cannot_be_measured_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for env_class in (Door, Needy):
        monkeypatch.setitem(registry._registered, env_class.spec.id, env_class)
    monkeypatch.setattr(registry, "installed", lambda: ["door", "gone", "needy"])
    shown = turnwise("envs", "--stats")
    assert shown.exit_code == 0, shown.output
    assert "50.0%" in shown.output
    assert "no environment 'gone'" in shown.output
    assert "'turnwise[games]'" in shown.output
    rows = json.loads(turnwise("envs", "--stats", "--json").output)
    assert [row.get("error", "")[:14] for row in rows] == ["", "no environment", "reset of needy"]
