"""Wrapped environments: any environment, with the option ``wrappers`` besides its own."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
from dataclasses import asdict
from functools import cache
from typing import ClassVar

from turnwise_envs.adapters import MadeBy
from turnwise_envs.address import Address, address, find, is_local
from turnwise_envs.environment import Environment, SyncEnvironment, TaskSet
from turnwise_envs.types import Action, EnvSpec, JsonObject, Observation, Reference, StepResult, Task
from turnwise_envs.wrappers.course import Course, Progress, Script
from turnwise_envs.wrappers.settings import Wrappers, schema

OPTION = "wrappers"


@cache
def wrap(env_class: type[Environment]) -> type[Environment]:
    """``env_class`` under the id ``wrapped:ID``, with the option ``wrappers`` besides its own; the same class each time.

    Without that option it is what it was, step by step. Blocking environments stay blocking ones. Raises ValueError for
    an environment that has an option of that name already.
    """
    options = env_class.spec.options_schema
    if OPTION in options.get("properties", {}):
        raise ValueError(f"environment {env_class.spec.id!r} has an option {OPTION!r} already")
    spec = env_class.spec.model_copy(
        update={
            "id": f"wrapped:{env_class.spec.id}",
            "options_schema": {**options, "properties": {**options.get("properties", {}), OPTION: schema()}},
        }
    )
    base = _WrappedSync if issubclass(env_class, SyncEnvironment) else _WrappedAsync
    fields = {"inside": env_class, "spec": spec, "tasks": WrappedTasks(spec, env_class.tasks)}
    made: type[Environment] = type(f"Wrapped{env_class.__name__}", (base,), fields)
    if not is_local(env_class):
        where = json.dumps(asdict(address(env_class)))
        made.made_by = MadeBy(__name__, wrap_at.__name__, inspect.getsourcefile(wrap_at), {"where": where})
    return made


def wrap_at(where: str) -> type[Environment]:
    """:func:`wrap` for another process: ``where`` is the address of the class, as JSON."""
    return wrap(find(Address(**json.loads(where))))


class WrappedTasks(TaskSet):
    """The tasks of ``inner`` under the wrapped environment's name."""

    def __init__(self, spec: EnvSpec, inner: TaskSet) -> None:
        super().__init__(spec)
        self.inner = inner

    def build(self, split: str, index: int) -> Task:
        task = self.inner.get(split, index)
        return task.model_copy(update={"env": self.spec.id, "id": f"wrapped:{task.id}"})

    def reference(self, task: Task) -> Reference:
        return self.inner.reference(self.inner.get(task.split, task.index))


class _Wrapped(Environment):
    """What blocking and other environments share: everything but how the one inside is called."""

    inside: ClassVar[type[Environment]]
    tasks: ClassVar[WrappedTasks]
    _course: Course

    def __init__(self) -> None:
        self._inner = self.inside()

    def snapshot(self) -> bytes:
        """The environment's own snapshot, and the course."""
        state = {
            "inner": base64.b64encode(self._inner.snapshot()).decode("ascii"),
            "task": self._task,
            "seed": self._seed,
            "wrappers": self._course.wrappers.model_dump(exclude_none=True),
            "progress": self._course.dump(),
        }
        return json.dumps(state, separators=(",", ":")).encode()

    def restore(self, snapshot: bytes) -> None:
        state = json.loads(snapshot)
        self._inner.restore(base64.b64decode(state["inner"]))
        self._begin(state["task"], state["seed"], state["wrappers"], Progress(**state["progress"]))

    def expert_action(self) -> Action | None:
        return self._inner.expert_action()

    async def close(self) -> None:
        await self._inner.close()

    def _begin(self, task_id: str, seed: int, wrappers: JsonObject, progress: Progress | None = None) -> None:
        self._task, self._seed = task_id, seed
        settings = Wrappers.model_validate(wrappers)
        self._course = Course(settings, task_id, seed, self._inner.expert_action, progress)

    def _prepare(self, task: Task, seed: int, options: JsonObject) -> tuple[Task, JsonObject]:
        """Begin the course of ``task``; the task and the options of the environment inside."""
        inner = self.tasks.inner.get(task.split, task.index)
        self._begin(inner.id, seed, options.get(OPTION, {}))
        return inner, {name: value for name, value in options.items() if name != OPTION}


class _WrappedAsync(_Wrapped):
    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        inner, rest = self._prepare(task, seed, options)
        return self._course.open(await self._inner.reset(inner, seed, rest))

    async def step(self, action: Action) -> StepResult:
        return await self._drive(self._course.step(action))

    async def finish(self, reason: str) -> StepResult:
        return await self._drive(self._course.finish(reason))

    async def _drive(self, script: Script) -> StepResult:
        try:
            call = next(script)
            while True:
                done = await (self._inner.finish(call) if isinstance(call, str) else self._inner.step(call))
                call = script.send(done)
        except StopIteration as end:
            return _result(end)


class _WrappedSync(_Wrapped, SyncEnvironment):
    _inner: SyncEnvironment

    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        inner, rest = self._prepare(task, seed, options)
        return self._course.open(self._inner.reset_sync(inner, seed, rest))

    def step_sync(self, action: Action) -> StepResult:
        return self._drive(self._course.step(action))

    def finish_sync(self, reason: str) -> StepResult:
        return self._drive(self._course.finish(reason))

    def _drive(self, script: Script) -> StepResult:
        try:
            call = next(script)
            while True:
                done = self._finish(call) if isinstance(call, str) else self._inner.step_sync(call)
                call = script.send(done)
        except StopIteration as end:
            return _result(end)

    def _finish(self, reason: str) -> StepResult:
        scored = self._inner.finish_sync(reason)
        return asyncio.run(Environment.finish(self._inner, reason)) if scored is None else scored


def _result(end: StopIteration) -> StepResult:
    result: StepResult = end.value
    return result
