"""The task set: the public question of a problem, and the gold SQL that only a scorer may see."""

from __future__ import annotations

import json

from turnwise_envs.environment import TaskSet
from turnwise_envs.sql.judge import gold_outcome
from turnwise_envs.sql.library import Library, level
from turnwise_envs.types import EnvSpec, Reference, Task

#: Most rows of a gold result that stand in a Reference.
_MOST_ROWS = 100


class SqlTasks(TaskSet):
    """Tasks of a library. Each problem is made when it is asked for."""

    def __init__(self, spec: EnvSpec, library: Library) -> None:
        super().__init__(spec)
        self.library = library

    def build(self, split: str, index: int) -> Task:
        problem = self.library.problem(split, index)
        return self.task(
            split,
            index,
            instruction=problem.question,
            difficulty=problem.difficulty,
            metadata={
                "database": problem.databases[0][0],
                "family": problem.family,
                "level": level(problem.difficulty),
                "writes": problem.writes is not None,
                "databases": len(problem.databases),
            },
        )

    def reference(self, task: Task) -> Reference:
        """``data.sql`` is the gold; ``answers`` is its result on the database that the policy sees, as JSON rows."""
        problem = self.library.problem(task.split, task.index)
        answers = []
        if problem.writes is None:
            rows = gold_outcome(self.library, problem, problem.databases[0]).rows
            answers = [json.dumps(rows[:_MOST_ROWS], ensure_ascii=False, default=repr)]
        return Reference(
            answers=answers, data={"sql": problem.gold, "ordered": problem.ordered, "writes": problem.writes}
        )
