"""A live episode as a value: environment, turn count, log and running hash, in one place.

The server's sessions, the conformance checker and in-process demonstrations all drive environments through
:class:`LiveEpisode`, so the turn limit, the validation of what an environment returns, and the hash exist once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from pydantic import ValidationError

from turnwise_envs.canonical import initial_hash, next_link
from turnwise_envs.environment import Environment
from turnwise_envs.errors import EnvironmentFault, EpisodeDone, InvalidOptions
from turnwise_envs.types import Action, JsonObject, Message, Observation, StepInfo, StepResult, Task


@dataclass(frozen=True)
class Record:
    """One entry of an episode's log; ``action`` is None for a finish. ``log_hash`` is the hash after it.

    ``text`` is the canonical text of ``result``, where it is at hand.
    """

    action: Action | None
    result: StepResult
    log_hash: str
    text: str | None = field(default=None, compare=False, repr=False)


@dataclass
class LiveEpisode:
    """An environment in the middle of an episode. Make one with :meth:`start`, :meth:`replay` or :meth:`fork`."""

    env: Environment
    task: Task
    seed: int
    options: JsonObject
    initial: Observation
    initial_hash: str
    records: list[Record] = field(default_factory=list)

    @classmethod
    async def start(
        cls, env_class: type[Environment], split: str, index: int, seed: int = 0, options: JsonObject | None = None
    ) -> LiveEpisode:
        """Reset a fresh environment. Raises UnknownTask, InvalidOptions, EnvironmentFault."""
        options = options or {}
        check_options(env_class, options)
        task = env_class.tasks.get(split, index)
        env = env_class()
        try:
            observation = await env.reset(task, seed, dict(options))
            if not isinstance(observation, Observation):
                raise TypeError(f"reset returned {type(observation).__name__}, not an Observation")
            head = initial_hash(task.env, env_class.spec.version, task.id, seed, options, observation)
        except BaseException as error:
            await env.close()
            if not isinstance(error, Exception):
                raise  # cancelled: a reset that hangs is given up from outside
            raise EnvironmentFault(f"reset of {task.id} failed: {type(error).__name__}: {error}") from error
        return cls(env, task, seed, options, observation, head)

    @classmethod
    async def replay(
        cls,
        env_class: type[Environment],
        split: str,
        index: int,
        seed: int,
        options: JsonObject,
        actions: list[Action],
    ) -> LiveEpisode:
        """Start and take ``actions``: an episode is a function of its action log."""
        episode = await cls.start(env_class, split, index, seed, options)
        for action in actions:
            await episode.step(action)
        return episode

    @property
    def turn(self) -> int:
        """Number of actions taken."""
        finished = bool(self.records) and self.records[-1].action is None  # a finish can only come last
        return len(self.records) - finished

    @property
    def done(self) -> bool:
        return bool(self.records) and self.records[-1].result.done

    @property
    def observation(self) -> Observation:
        return self.records[-1].result.observation if self.records else self.initial

    @property
    def log_hash(self) -> str:
        return self.records[-1].log_hash if self.records else self.initial_hash

    @property
    def max_turns(self) -> int:
        return int(self.options.get("max_turns", self.env.spec.max_turns))

    async def step(self, action: Action) -> StepResult:
        """Take one action; the last allowed one is scored by ``finish("max_turns")``.

        Raises:
            EpisodeDone: the episode has ended.
            EnvironmentFault: the environment failed; the turn was not taken.
        """
        if self.done:
            raise EpisodeDone(f"{self.task.id} ended at turn {self.turn}")
        try:
            result = _valid(await self.env.step(action))
            if not result.done and len(self.records) + 1 >= self.max_turns:
                result = _merge(result, _valid(await self.env.finish("max_turns")))
            log_hash, text = next_link(self.log_hash, action, result)
        except Exception as error:
            raise EnvironmentFault(
                f"step {self.turn} of {self.task.id} failed: {type(error).__name__}: {error}"
            ) from error
        self.records.append(Record(action, result, log_hash, text))
        return result

    async def finish(self, reason: str) -> StepResult:
        """End the episode from outside and score the state as it is. Raises EpisodeDone, EnvironmentFault."""
        if self.done:
            raise EpisodeDone(f"{self.task.id} ended at turn {self.turn}")
        try:
            result = _valid(await self.env.finish(reason))
            info = result.info.model_copy(update={"end": f"finished:{reason}"})
            result = result.model_copy(update={"truncated": True, "info": info})
            log_hash, text = next_link(self.log_hash, None, result)
        except Exception as error:
            raise EnvironmentFault(f"finish of {self.task.id} failed: {type(error).__name__}: {error}") from error
        self.records.append(Record(None, result, log_hash, text))
        return result

    async def fork(self, at_turn: int | None = None) -> LiveEpisode:
        """An independent episode with the same first ``at_turn`` actions: by snapshot if it is now, else by replay.

        Raises:
            EnvironmentFault: the copy does not reach the same hash, so the environment is not deterministic.
        """
        at_turn = self.turn if at_turn is None else at_turn
        records = self.records if at_turn == self.turn else self.records[:at_turn]
        env_class = type(self.env)
        if at_turn == self.turn and env_class.spec.snapshot and not self.done:
            env = env_class()
            env.restore(self.env.snapshot())
            return LiveEpisode(env, self.task, self.seed, self.options, self.initial, self.initial_hash, list(records))
        copy = await LiveEpisode.start(env_class, self.task.split, self.task.index, self.seed, self.options)
        for record in records:
            if record.action is not None:
                await copy.step(record.action)
            else:
                await copy.finish((record.result.info.end or "").removeprefix("finished:"))
        expected = records[-1].log_hash if records else self.initial_hash
        if copy.log_hash != expected:
            await copy.close()
            raise EnvironmentFault(
                f"replaying {self.task.id} to turn {at_turn} reached another history: the environment is not deterministic"
            )
        return copy

    async def close(self) -> None:
        await self.env.close()


def check_options(env_class: type[Environment], options: JsonObject) -> None:
    """Raise InvalidOptions unless ``options`` fit the environment's schema."""
    if not options and _needs_none(env_class):
        return
    error = jsonschema.exceptions.best_match(_options_validator(env_class).iter_errors(options))
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "options"
        raise InvalidOptions(f"options of {env_class.spec.id!r}: {where}: {error.message}")


@lru_cache(maxsize=256)
def _needs_none(env_class: type[Environment]) -> bool:
    return _options_validator(env_class).is_valid({})


@lru_cache(maxsize=256)
def _options_validator(env_class: type[Environment]) -> Validator:
    """Checking the schema itself costs more than a reset of a small environment: once per class."""
    schema = env_class.spec.options_schema
    validator_class = validator_for(schema)
    validator_class.check_schema(schema)
    return validator_class(schema)


def _valid(result: object) -> StepResult:
    """Models are built with validation, but ``model_copy`` and ``model_construct`` are not: check once more."""
    if not isinstance(result, StepResult):
        raise TypeError(f"returned {type(result).__name__}, not a StepResult")
    if _is_sound(result):
        return result
    try:
        return StepResult.model_validate(result.model_dump())
    except ValidationError as error:
        raise ValueError(f"returned an invalid StepResult: {error}") from error


_TEXT_OR_NONE = (str, type(None))


def _is_sound(result: StepResult) -> bool:
    """Validation would leave it as it is. Said of every usual result, and five times as fast as validating it."""
    seen, info = result.observation, result.info
    return (
        type(result) is StepResult
        and type(seen) is Observation
        and type(info) is StepInfo
        and type(result.reward) is float
        and isfinite(result.reward)
        and type(result.terminated) is type(result.truncated) is bool
        and type(info.action_valid) is type(info.action_effective) is bool
        and type(info.error) in _TEXT_OR_NONE
        and type(info.end) in _TEXT_OR_NONE
        and type(seen.state_key) in _TEXT_OR_NONE
        and (seen.context == "append" or seen.context == "replace")
        and type(seen.messages) is list
        and all(map(_is_sound_message, seen.messages))
        and (seen.admissible_actions is None or _all(seen.admissible_actions, list, str))
        and _all(info.counters, dict, str)
        and _all(info.metrics, dict, str)
        and (not info.counters or _all([*info.counters.values()], list, int))
        and (not info.metrics or (_all([*info.metrics.values()], list, float) and isfinite(sum(info.metrics.values()))))
    )


def _all(items: Any, kind: type[Collection[Any]], of: type) -> bool:
    """``items`` is exactly a ``kind``, of nothing but exactly ``of``."""
    return type(items) is kind and {type(item) for item in items} <= {of}


def _is_sound_message(message: object) -> bool:
    return (
        type(message) is Message
        and type(message.content) is str
        and (message.role == "user" or message.role == "tool" or message.role == "system")
        and type(message.tool_call_id) in _TEXT_OR_NONE
    )


def _merge(last: StepResult, score: StepResult) -> StepResult:
    """The last turn shows the step's observation and carries the final score."""
    return StepResult(
        observation=last.observation,
        reward=last.reward + score.reward,
        truncated=True,
        info=score.info.model_copy(
            update={
                "action_valid": last.info.action_valid,
                "action_effective": last.info.action_effective,
                "error": last.info.error,
                "end": "max_turns",
            }
        ),
    )
