"""Environments for the rollout engine's tests: one that does what it is told, one that stumbles when it starts."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from turnwise_envs import Action, Environment, EnvSpec, FunctionTaskSet, Observation, SplitSpec, StepInfo, StepResult


class Talk(Environment):
    """Ten times an action's length is its reward in percent. "stop" solves, "boom" breaks it, "forget" starts the
    context anew, "long" is answered at length. A finish is worth 0.25. A start takes ``wait`` seconds."""

    spec = EnvSpec(
        id="talk",
        max_turns=6,
        splits=[SplitSpec(name="train", size=100)],
        options_schema={
            "type": "object",
            "properties": {"max_turns": {"type": "integer"}, "wait": {"type": "number"}},
            "additionalProperties": False,
        },
    )
    tasks = FunctionTaskSet(spec, lambda split, index: f"Talk {index}.")

    async def reset(self, task, seed, options):
        await asyncio.sleep(options.get("wait", 0.0))
        self.turns = 0
        return Observation.say(task.instruction)

    async def step(self, action: Action) -> StepResult:
        self.turns += 1
        reward = len(action.text) / 10
        match action.text:
            case "boom":
                raise RuntimeError("boom")
            case "stop":
                said = Observation.say("Bye.")
                return StepResult(observation=said, reward=reward, terminated=True, info=StepInfo(end="solved"))
            case "forget":
                said = Observation.say(f"Anew after {self.turns}.", context="replace")
            case "long":
                said = Observation.say("word " * 30)
            case text:
                said = Observation.say(f"{self.turns}: {text}")
        return StepResult(observation=said, reward=reward)

    async def finish(self, reason: str) -> StepResult:
        return StepResult(observation=Observation.say("Closed."), reward=0.25, truncated=True)


class Stumbles(Talk):
    """Fails at every other start; task 99 at every one."""

    spec = Talk.spec.model_copy(update={"id": "stumbles"})
    tasks = FunctionTaskSet(spec, lambda split, index: f"Mind the step {index}.")
    starts: ClassVar[int] = 0

    async def reset(self, task, seed, options):
        type(self).starts += 1
        if task.index == 99 or self.starts % 2:
            raise RuntimeError("stumbled")
        return await super().reset(task, seed, options)
