"""What an environment is: one live episode behind three methods, and a set of tasks.

An environment in full::

    class Guess(Environment):
        spec = EnvSpec(id="guess", max_turns=8, splits=[SplitSpec(name="train", size=100)])
        tasks = FunctionTaskSet(spec, lambda split, index: "Guess a number from 0 to 99.")

        async def reset(self, task, seed, options):
            self.secret = task.index
            return Observation.say(task.instruction)

        async def step(self, action):
            try:
                guess = int(action.text)
            except ValueError:
                return StepResult(observation=Observation.say("Write a number."), info=StepInfo(action_valid=False))
            if guess == self.secret:
                return StepResult(observation=Observation.say("Right."), reward=1.0, terminated=True)
            return StepResult(observation=Observation.say("Higher." if guess < self.secret else "Lower."))

The state must be a function of (task, seed, options, actions): no clock, no global RNG, no hash order.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from turnwise_envs.errors import UnknownTask
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Observation,
    Reference,
    StepInfo,
    StepResult,
    Task,
)

if TYPE_CHECKING:
    from turnwise_envs.adapters import MadeBy


class TaskSet(ABC):
    """Gives tasks by split and index, and the privileged reference of a task to whoever scores it."""

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec

    @abstractmethod
    def build(self, split: str, index: int) -> Task:
        """The task at ``index`` (already checked to lie inside the split)."""

    def reference(self, task: Task) -> Reference:
        """What a scorer needs and a policy must not see."""
        return Reference()

    def task(
        self, split: str, index: int, instruction: str, difficulty: float = 0.0, metadata: JsonObject | None = None
    ) -> Task:
        """The task at ``index`` under its usual id, for :meth:`build`."""
        return Task(
            env=self.spec.id,
            split=split,
            index=index,
            id=f"{self.spec.id}/{split}/{index}",
            instruction=instruction,
            difficulty=difficulty,
            metadata=metadata or {},
        )

    def size(self, split: str) -> int | None:
        """Number of tasks in the split, None when unbounded. Raises UnknownTask."""
        for known in self.spec.splits:
            if known.name == split:
                return known.size
        names = ", ".join(known.name for known in self.spec.splits)
        raise UnknownTask(f"environment {self.spec.id!r} has no split {split!r}; it has: {names}")

    def get(self, split: str, index: int) -> Task:
        """The task at ``index`` of ``split``. Raises UnknownTask."""
        size = self.size(split)
        if index < 0 or (size is not None and index >= size):
            raise UnknownTask(f"split {split!r} of {self.spec.id!r} has tasks 0 to {(size or 0) - 1}, not {index}")
        return self.build(split, index)


class FunctionTaskSet(TaskSet):
    """A task set from one function ``(split, index) -> instruction``, and optionally one for references."""

    def __init__(
        self,
        spec: EnvSpec,
        instruction: Callable[[str, int], str],
        reference: Callable[[Task], Reference] | None = None,
    ) -> None:
        super().__init__(spec)
        self._instruction = instruction
        self._reference = reference

    def build(self, split: str, index: int) -> Task:
        return self.task(split, index, self._instruction(split, index))

    def reference(self, task: Task) -> Reference:
        return self._reference(task) if self._reference else Reference()


class Environment(ABC):
    """One live episode. Subclasses set ``spec`` and ``tasks`` and implement ``reset`` and ``step``.

    An ``async`` method must not block the event loop for more than 5 ms; a blocking environment derives from
    :class:`SyncEnvironment`. ``max_turns`` is enforced outside: see :class:`turnwise_envs.episode.LiveEpisode`.
    """

    spec: ClassVar[EnvSpec]
    tasks: ClassVar[TaskSet]
    #: Set by :func:`turnwise_envs.adapters.adapter`.
    made_by: ClassVar[MadeBy]

    @abstractmethod
    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Begin the episode. ``task.index`` fixes the world, ``seed`` whatever is random afterwards."""

    @abstractmethod
    async def step(self, action: Action) -> StepResult:
        """Take one action. No mistake of the policy raises: each is an observation that teaches."""

    async def finish(self, reason: str) -> StepResult:
        """Score the state as it is: the client, or the turn limit, ends the episode here."""
        return cut_short(reason)

    def snapshot(self) -> bytes:
        """The whole state as bytes (not a pickle); needs ``spec.snapshot``."""
        raise NotImplementedError(f"environment {self.spec.id!r} has no snapshots")

    def restore(self, snapshot: bytes) -> None:
        """Become the episode that ``snapshot`` was taken of; ``reset`` is not called before."""
        raise NotImplementedError(f"environment {self.spec.id!r} has no snapshots")

    def expert_action(self) -> Action | None:
        """What an expert would do now. Privileged: never on the wire.

        None at the start of an episode: the environment has no expert. None later: the expert has nothing more to do.
        """
        return None

    async def close(self) -> None:
        """Free what the episode holds. Called once, also after a failure."""
        return


class SyncEnvironment(Environment):
    """A blocking environment: implement ``reset_sync``, ``step_sync`` and, if needed, ``finish_sync``.

    The methods run in a thread, one at a time, so that a slow step does not hold up other sessions.
    """

    @abstractmethod
    def reset_sync(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Like :meth:`Environment.reset`; may block."""

    @abstractmethod
    def step_sync(self, action: Action) -> StepResult:
        """Like :meth:`Environment.step`; may block."""

    def finish_sync(self, reason: str) -> StepResult | None:
        """Like :meth:`Environment.finish`; None means the default."""
        return None

    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        return await asyncio.to_thread(self.reset_sync, task, seed, options)

    async def step(self, action: Action) -> StepResult:
        return await asyncio.to_thread(self.step_sync, action)

    async def finish(self, reason: str) -> StepResult:
        result = await asyncio.to_thread(self.finish_sync, reason)
        return await super().finish(reason) if result is None else result


def cut_short(
    reason: str,
    *,
    reward: float = 0.0,
    metrics: dict[str, float] | None = None,
    words: str = "The episode has ended",
) -> StepResult:
    """What :meth:`Environment.finish` answers: the end from outside, for ``reason``."""
    return StepResult(
        observation=Observation.say(f"{words}: {reason}."),
        reward=reward,
        truncated=True,
        info=StepInfo(end="max_turns" if reason == "max_turns" else f"finished:{reason}", metrics=metrics or {}),
    )
