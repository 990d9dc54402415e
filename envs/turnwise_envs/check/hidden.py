"""The canary: a marker planted in every Reference must never come out of an episode."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from turnwise_envs.check.policy import MAX_RECORDED_TURNS, Player
from turnwise_envs.check.subject import Failure, Subject
from turnwise_envs.check.trace import record
from turnwise_envs.environment import TaskSet
from turnwise_envs.errors import EnvironmentFault
from turnwise_envs.types import Reference, Task
from turnwise_envs.wrappers.wrapped import WrappedTasks

Plant = Callable[[Reference, str], Reference]

NEVER_READ = (
    "no marker came out, but the environment never asks for its Reference while it plays: what it knows of the answers "
    "comes from elsewhere, where no marker was."
)


async def canary(subject: Subject) -> str | None:
    """Plants as much as the environment survives: a marked string may be no key of its data any more."""
    marker = f"canary{secrets.token_hex(8)}"
    for plant in (_everywhere, _in_answers, _beside):
        with _planted(subject.env_class.tasks, plant, marker) as read:
            try:
                await _search(subject, marker)
            except EnvironmentFault:
                continue
            return None if read else NEVER_READ
    return None


async def _search(subject: Subject, marker: str) -> None:
    starts = subject.starts()
    for number, (split, index, seed) in enumerate([*starts, starts[0]]):
        # The extra one is ended at once: a message about the score is an observation too.
        limit = 0 if number == len(starts) else MAX_RECORDED_TURNS
        # The expert may know the answers, and would say the marker himself.
        player = Player(subject.rng(f"canary {number}"), uninformed=True, limit=limit)
        trace = await record(subject.env_class, split, index, seed, subject.options, player)
        task = subject.env_class.tasks.get(split, index)
        if marker in task.model_dump_json():
            raise Failure(
                f"the Reference is privileged, but a marker planted in it came out in the Task {task.id}; "
                "build the public Task without it."
            )
        for position, link in enumerate(trace.links):
            if marker.encode() in link:
                where = "the first observation" if position == 0 else f"turn {position - 1}"
                raise Failure(
                    "the Reference is privileged and must not reach the policy, but a marker planted in it came out at "
                    f"{trace.where} in {where}; use it to score only, also after the last turn."
                )


@contextlib.contextmanager
def _planted(tasks: TaskSet, plant: Plant, marker: str) -> Iterator[list[str]]:
    """Replaces ``reference`` on the task set itself, however the environment comes by it; yields whose were read."""
    while isinstance(tasks, WrappedTasks):
        tasks = tasks.inner  # the environment inside knows only these
    original, read = tasks.reference, list[str]()

    def reference(task: Task) -> Reference:
        read.append(task.id)
        return plant(original(task), marker)

    tasks.reference = reference  # type: ignore[method-assign]
    try:
        yield read
    finally:
        del tasks.reference  # uncovers the class's method again


def _everywhere(reference: Reference, marker: str) -> Reference:
    return Reference(
        answers=[f"{answer} {marker}" for answer in reference.answers] or [marker],
        data={**_marked(reference.data, marker), marker: marker},
    )


def _in_answers(reference: Reference, marker: str) -> Reference:
    return Reference(
        answers=[f"{answer} {marker}" for answer in reference.answers] or [marker],
        data={**reference.data, marker: marker},
    )


def _beside(reference: Reference, marker: str) -> Reference:
    return Reference(answers=[*reference.answers, marker], data={**reference.data, marker: marker})


def _marked(value: Any, marker: str) -> Any:
    if isinstance(value, str):
        return f"{value} {marker}"
    if isinstance(value, dict):
        return {key: _marked(item, marker) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item, marker) for item in value]
    return value
