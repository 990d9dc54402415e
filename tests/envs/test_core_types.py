"""The nouns: frozen, closed, and refusing numbers that are none."""

import math

import pytest
from pydantic import BaseModel, ValidationError

from turnwise_envs import (
    Action,
    EnvSpec,
    Message,
    Observation,
    Reference,
    SplitSpec,
    StepInfo,
    StepResult,
    Task,
    ToolCall,
    ToolSpec,
    wire,
)

EXAMPLES: list[BaseModel] = [
    EnvSpec(id="e", splits=[SplitSpec(name="train", size=3)], tools=[ToolSpec(name="t", description="d")]),
    Task(env="e", split="train", index=0, id="e/train/0", instruction="Go."),
    Reference(answers=["42"], data={"k": [1]}),
    Action(text="x", tool_calls=[ToolCall(id="c0_0", name="t", raw="{", parse_error="broken")]),
    Observation(
        messages=[Message(role="tool", content="3", tool_call_id="c0_0")], state_key="k", admissible_actions=["a"]
    ),
    StepResult(observation=Observation.say("On."), reward=1.0, info=StepInfo(counters={"n": 1}, metrics={"em": 0.5})),
    wire.CreateRequest(env="e", actions=[Action(text="x")], expect_hash="h"),
]


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: type(model).__name__)
def test_round_trip_and_closed(model: BaseModel) -> None:
    kind = type(model)
    assert kind.model_validate_json(model.model_dump_json()) == model
    with pytest.raises(ValidationError, match="surprise"):
        kind.model_validate({**model.model_dump(), "surprise": 1})
    newer_server = {**model.model_dump(mode="json"), "surprise": 1}
    assert kind.model_validate(newer_server, extra="ignore") == model
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, next(iter(kind.model_fields)), None)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_rewards_and_metrics_are_finite(number: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        StepResult(observation=Observation.say("."), reward=number)
    with pytest.raises(ValidationError, match="finite"):
        StepInfo(metrics={"em": number})


def test_an_empty_action_is_legal() -> None:
    assert Action() == Action(text="", tool_calls=[])


def test_done_and_text() -> None:
    observation = Observation(messages=[Message(content="a"), Message(content="b")])
    assert observation.text == "a\nb"
    assert not StepResult(observation=observation).done
    assert StepResult(observation=observation, truncated=True).done
    assert StepResult(observation=observation, terminated=True).done


def test_the_public_names_exist() -> None:
    import turnwise_envs

    assert all(getattr(turnwise_envs, name) is not None for name in turnwise_envs.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = turnwise_envs.nonsense
