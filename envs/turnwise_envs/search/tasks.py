"""Task sets of searches: what all have in common, and questions about generated worlds."""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from typing import NamedTuple

from turnwise_envs.dice import Dice
from turnwise_envs.environment import TaskSet
from turnwise_envs.search.generate import draw_world
from turnwise_envs.search.library import Library
from turnwise_envs.search.problem import Problem
from turnwise_envs.search.questions import draw_question
from turnwise_envs.search.retrievers import RetrieverKind
from turnwise_envs.search.world import World, WorldSettings
from turnwise_envs.types import EnvSpec, Reference, Task

#: Worlds (with their indexes) and questions that a process keeps.
WORLDS_KEPT = 64
PROBLEMS_KEPT = 4096
_MOST_HOPS = 4


class SearchTasks(TaskSet):
    """Tasks whose problems are solved in a library."""

    @abstractmethod
    def problem(self, split: str, index: int) -> Problem:
        """The problem of a task whose split and index were checked."""

    @abstractmethod
    def library(self, split: str, index: int) -> Library:
        """Where that problem is to be solved."""

    def build(self, split: str, index: int) -> Task:
        problem = self.problem(split, index)
        return self.task(
            split,
            index,
            instruction=problem.question,
            difficulty=min(problem.hops, _MOST_HOPS) / _MOST_HOPS,
            metadata={"kind": problem.kind, "hops": problem.hops},
        )

    def reference(self, task: Task) -> Reference:
        """Gold answers, the usual one first; titles of the documents that give it, in order; what to search for."""
        problem = self.problem(task.split, task.index)
        corpus = self.library(task.split, task.index).corpus
        return Reference(
            answers=list(problem.answers),
            data={
                "evidence": [corpus[evidence.document].title for evidence in problem.evidence],
                "queries": [lookup.queries[0] for lookup in problem.plan],
            },
        )


class WorldTasks(SearchTasks):
    """Questions about generated worlds, so many to a world. A process builds a world and its index once."""

    def __init__(self, spec: EnvSpec, settings: WorldSettings, kind: RetrieverKind, model: str | None) -> None:
        super().__init__(spec)
        self.settings = settings
        self._kind, self._model = kind, model
        self._home = lru_cache(maxsize=WORLDS_KEPT)(self._build_home)
        self._problem = lru_cache(maxsize=PROBLEMS_KEPT)(self._draw_problem)

    def problem(self, split: str, index: int) -> Problem:
        return self._problem(split, index)

    def library(self, split: str, index: int) -> Library:
        return self._home(split, index // self.settings.questions_per_world).library

    def _draw_problem(self, split: str, index: int) -> Problem:
        number = index // self.settings.questions_per_world
        return draw_question(self._home(split, number).world, self.settings, Dice("question", split, index))

    def _build_home(self, split: str, number: int) -> _Home:
        world = draw_world(self.settings, split, number)
        return _Home(world, Library(world.corpus, self._kind, self._model))


class _Home(NamedTuple):
    world: World
    library: Library
