"""Small environments with known behaviour, for the server's tests (also by import path: ``toy_environments:Guess``)."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

from turnwise_envs import (
    Action,
    Environment,
    EnvSpec,
    FunctionTaskSet,
    Observation,
    Reference,
    SplitSpec,
    StepResult,
    SyncEnvironment,
    Task,
)

OPTIONS = {
    "type": "object",
    "properties": {"max_turns": {"type": "integer", "minimum": 1}, "note": {}},
    "additionalProperties": False,
}


def _spec(env_id: str, **fields) -> EnvSpec:
    return EnvSpec(
        id=env_id,
        max_turns=6,
        splits=[SplitSpec(name="train", size=100), SplitSpec(name="open", size=None)],
        options_schema=OPTIONS,
        **fields,
    )


def _tasks(spec: EnvSpec) -> FunctionTaskSet:
    return FunctionTaskSet(
        spec,
        lambda split, index: "Guess a number from 0 to 99.",
        lambda task: Reference(answers=[str(task.index)]),
    )


class Guess(Environment):
    """Guess ``index``; each answer carries a seeded random number, so that RNG copies matter. Counts its life."""

    spec = _spec("guess", snapshot=True)
    tasks = _tasks(spec)
    alive: ClassVar[int] = 0
    steps: ClassVar[Counter] = Counter()

    async def reset(self, task: Task, seed: int, options) -> Observation:
        type(self).alive += 1
        self.secret = task.index
        self.rng = random.Random(seed)
        return Observation.say(task.instruction)

    async def step(self, action: Action) -> StepResult:
        type(self).steps[action.text] += 1
        if action.text.strip() == str(self.secret):
            return StepResult(observation=Observation.say("Right."), reward=1.0, terminated=True)
        hint = "Higher." if action.text.isdigit() and int(action.text) < self.secret else "Lower."
        return StepResult(observation=Observation.say(f"{hint} {self.rng.random()}"))

    async def finish(self, reason: str) -> StepResult:
        result = await super().finish(reason)
        return result.model_copy(update={"reward": -0.5})

    def snapshot(self) -> bytes:
        version, state, gauss = self.rng.getstate()
        return json.dumps([self.secret, version, list(state), gauss]).encode()

    def restore(self, snapshot: bytes) -> None:
        type(self).alive += 1
        self.secret, version, state, gauss = json.loads(snapshot)
        self.rng = random.Random()
        self.rng.setstate((version, tuple(state), gauss))

    async def close(self) -> None:
        type(self).alive -= 1


class Slow(Environment):
    """Every step takes 0.2 s; the text ``hang`` never returns, nor does the reset of 99. Counts its life.

    With ``until FILE`` and any further words, it returns once that file is there.
    """

    spec = _spec("slow")
    tasks = _tasks(spec)
    alive: ClassVar[int] = 0
    steps: ClassVar[Counter] = Counter()

    async def reset(self, task: Task, seed: int, options) -> Observation:
        type(self).alive += 1
        if task.index == 99:
            await asyncio.sleep(3600)
        return Observation.say("wait")

    async def step(self, action: Action) -> StepResult:
        type(self).steps[action.text] += 1
        if action.text.startswith("until "):
            opened = Path(action.text.split()[1]).exists
            while not opened():  # noqa: ASYNC110  # it may be a process of its own
                await asyncio.sleep(0.01)
        else:
            await asyncio.sleep(3600 if action.text == "hang" else 0.2)
        return StepResult(observation=Observation.say(f"slept, {action.text}"), reward=0.25)

    async def close(self) -> None:
        type(self).alive -= 1


class Crashing(Environment):
    """``crash`` always raises, ``crash once N`` only the first time; ``exit`` tries to end the process."""

    spec = _spec("crashing")
    tasks = _tasks(spec)
    seen: ClassVar[set[str]] = set()
    closed: ClassVar[Counter] = Counter()
    numbers = itertools.count()

    async def reset(self, task: Task, seed: int, options) -> Observation:
        self.number = next(self.numbers)
        if task.index == 13:
            raise RuntimeError("the answer is secret-13")
        return Observation.say("careful")

    async def step(self, action: Action) -> StepResult:
        if action.text == "exit":
            sys.exit(3)
        if action.text == "cancel":
            raise asyncio.CancelledError
        if action.text == "crash" or (action.text.startswith("crash once") and action.text not in self.seen):
            self.seen.add(action.text)
            raise KeyError("secret-answer")
        return StepResult(observation=Observation.say("fine"), reward=0.5)

    async def close(self) -> None:
        self.closed[self.number] += 1


class Liar(Environment):
    """Promises determinism and breaks the promise; ``crash`` raises."""

    spec = _spec("liar")
    tasks = _tasks(spec)
    numbers = itertools.count()

    async def reset(self, task: Task, seed: int, options) -> Observation:
        return Observation.say("hello")

    async def step(self, action: Action) -> StepResult:
        if action.text == "crash":
            raise RuntimeError("no")
        return StepResult(observation=Observation.say(f"visitor {next(self.numbers)}"))


class Live(Liar):
    """Admits that it is not deterministic."""

    spec = _spec("live", deterministic=False)
    tasks = _tasks(spec)


class Blocking(SyncEnvironment):
    """A blocking environment whose ``hang`` cannot even be cancelled."""

    spec = _spec("blocking")
    tasks = _tasks(spec)

    def reset_sync(self, task: Task, seed: int, options) -> Observation:
        return Observation.say("block")

    def step_sync(self, action: Action) -> StepResult:
        time.sleep(3600 if action.text == "hang" else 0.01)
        return StepResult(observation=Observation.say("done"))


ALL = [Guess, Slow, Crashing, Liar, Live, Blocking]
