"""Which tasks of a split a run uses, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from turnwise_agent.client import TurnwiseClient
from turnwise_envs.types import EnvSpec, Task
from turnwise_trainer.errors import ConfigError

#: Tasks per request while looking for matching ones.
_PAGE = 200

Where = Mapping[str, Sequence[str]]


def matches(task: Task, where: Where) -> bool:
    """Whether each named field of the task's public metadata has one of the given values."""
    return all(str(task.metadata.get(key)) in values for key, values in where.items())


async def find_tasks(client: TurnwiseClient, spec: EnvSpec, split: str, where: Where, count: int | None) -> list[int]:
    """Indices of the first ``count`` tasks of ``split`` that match (None: of all).

    Raises:
        ConfigError: there are none, or fewer than ``count``.
    """
    size = next((known.size for known in spec.splits if known.name == split), None)
    if not where and count is not None and (size is None or count <= size):
        return list(range(count))
    found: list[int] = []
    offset = 0
    while count is None or len(found) < count:
        page = (await client.tasks(spec.id, split, offset=offset, limit=_PAGE)).items
        if not page:
            break
        found += [task.index for task in page if matches(task, where)]
        offset += len(page)
    if not found or (count is not None and len(found) < count):
        condition = " and ".join(f"{key} in {list(values)}" for key, values in where.items()) or "at all"
        wanted = "any" if count is None else str(count)
        raise ConfigError(f"split {split!r} of {spec.id!r} has {len(found)} tasks with {condition}, not {wanted}")
    return found[:count]


def task_order(seed: int, step: int, count: int, size: int | None) -> list[int]:
    """Task numbers of a training step: every task once before any comes twice, in an order shuffled by pass."""
    numbers = range(step * count, (step + 1) * count)
    if size is None:
        return list(numbers)
    shuffled = {
        epoch: np.random.default_rng([seed, epoch]).permutation(size)
        for epoch in {number // size for number in numbers}
    }
    return [int(shuffled[number // size][number % size]) for number in numbers]
