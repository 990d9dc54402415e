"""The task set of maths, and its gold answers."""

from __future__ import annotations

from turnwise_envs.environment import TaskSet
from turnwise_envs.tools.maths.answers import written
from turnwise_envs.tools.maths.families import problem
from turnwise_envs.types import Reference, Task


class MathsTasks(TaskSet):
    """Problems by split and index, drawn when they are asked for."""

    def build(self, split: str, index: int) -> Task:
        found = problem(split, index)
        return self.task(
            split,
            index,
            instruction=found.question,
            difficulty=found.difficulty,
            metadata={"family": found.family},
        )

    def reference(self, task: Task) -> Reference:
        """The answer, and a program that prints it."""
        found = problem(task.split, task.index)
        return Reference(answers=[written(found.value)], data={"program": found.program, "family": found.family})
