"""Our echo environment: it says what it is told, so that a step costs what the server and the client cost."""

from __future__ import annotations

from turnwise_envs import Action, Environment, EnvSpec, FunctionTaskSet, Observation, SplitSpec, StepResult, Task
from turnwise_envs.types import JsonObject


class Echo(Environment):
    """Says back the text of an action. Ends only by its limit of turns, which nobody reaches."""

    spec = EnvSpec(id="echo", max_turns=10_000_000, splits=[SplitSpec(name="train")])
    tasks = FunctionTaskSet(spec, lambda split, index: "Say something.")

    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        return Observation.say(task.instruction)

    async def step(self, action: Action) -> StepResult:
        return StepResult(observation=Observation.say(action.text))
