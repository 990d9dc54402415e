"""The task set of an ALFWorld data folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turnwise_envs.alfworld.games import GameFiles
from turnwise_envs.environment import TaskSet
from turnwise_envs.types import EnvSpec, Reference, Task


class AlfworldTasks(TaskSet):
    """Tasks by split and index; the games of a split are numbered by name, so an index means the same game anywhere."""

    def __init__(self, spec: EnvSpec, games: Mapping[str, Sequence[GameFiles]]) -> None:
        super().__init__(spec)
        self._games = games

    def game(self, task: Task) -> GameFiles:
        """The files of a task's game."""
        return self._games[task.split][task.index]

    def build(self, split: str, index: int) -> Task:
        game = self._games[split][index]
        return self.task(
            split,
            index,
            instruction=game.instruction,
            difficulty=round(min(1.0, len(game.walkthrough) / self.spec.max_turns), 3),
            metadata={"family": game.family, "game": game.name, "scene": game.scene},
        )

    def reference(self, task: Task) -> Reference:
        """The goal in types, and the commands with which the data set wins."""
        game = self.game(task)
        return Reference(data={"goal": game.goal, "walkthrough": game.walkthrough})
