"""Environments of texts in Gymnasium's shape, wherever their episodes are: the spaces, the draw of a task, what is told."""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import gymnasium
from gymnasium.spaces import Text

from turnwise_envs.types import JsonObject, Observation, StepResult, Task
from turnwise_envs.wire import StepView

#: Longest observation and action, in characters.
MAX_OBSERVATION = 1 << 20
MAX_ACTION = 1 << 14

#: Seeds and the indices of unbounded splits are drawn below this.
_DRAW = 2**31


class UnicodeText(Text):
    """Texts of at most ``max_length`` characters, any that UTF-8 can carry. Samples are of printable ASCII."""

    def __init__(self, max_length: int) -> None:
        super().__init__(
            max_length, min_length=0, charset=string.ascii_letters + string.digits + " " + string.punctuation
        )

    def contains(self, x: Any) -> bool:
        if not isinstance(x, str) or len(x) > self.max_length:
            return False
        try:
            x.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    @property
    def is_np_flattenable(self) -> bool:
        """No: flattening numbers the characters of a finite charset."""
        return False


class Episode(Protocol):
    """What is told of an episode, in this process or on a server."""

    @property
    def task(self) -> Task: ...
    @property
    def turn(self) -> int: ...
    @property
    def observation(self) -> Observation: ...
    @property
    def log_hash(self) -> str: ...


E = TypeVar("E", bound=Episode)


class TextEnv(gymnasium.Env[str, str], ABC, Generic[E]):
    """One environment, an episode at a time. Subclasses set ``mistake`` and ``_split`` and know how to reach episodes."""

    #: What wrong arguments raise.
    mistake: ClassVar[type[Exception]]
    # Gymnasium warns without a frame rate, even where there are no frames.
    metadata = {"render_modes": ["ansi"], "render_fps": 1}

    _split: str
    _episode: E | None = None

    def __init__(self, options: JsonObject | None, render_mode: str | None) -> None:
        if render_mode not in (None, "ansi"):
            raise self.mistake(f"render_mode {render_mode!r}: only 'ansi' exists")
        self.render_mode = render_mode
        self.observation_space = UnicodeText(MAX_OBSERVATION)
        self.action_space = UnicodeText(MAX_ACTION)
        self._options = dict(options or {})

    @abstractmethod
    def _size_of(self, split: str) -> int | None:
        """Tasks in a split, None if it is unbounded. Raises if there is no such split."""

    @abstractmethod
    def _begin(self, split: str, index: int, seed: int, options: JsonObject) -> E:
        """A new episode."""

    @abstractmethod
    def _end(self, episode: E) -> None:
        """Leave an episode, which may not be over."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode.

        ``options`` may have ``index`` and ``split`` of the task (by default one is drawn from the constructor's
        split) and ``options``, which go over the constructor's. ``seed`` seeds the draw and is the episode's own
        seed; without it both are drawn from ``np_random``. Raises for an option that does not exist or fit.
        """
        super().reset(seed=seed)
        chosen = dict(options or {})
        split = chosen.pop("split", self._split)
        index = chosen.pop("index", None)
        env_options = self._options | chosen.pop("options", {})
        if chosen:
            raise self.mistake(f"reset has no option {next(iter(chosen))!r}; it has: index, split, options")
        size = self._size_of(split)
        if index is None:
            index = int(self.np_random.integers(_DRAW if size is None else size))
        if seed is None:
            seed = int(self.np_random.integers(_DRAW))
        self._leave()
        self._episode = self._begin(split, index, seed, env_options)
        return self._episode.observation.text, self._info(self._episode)

    def render(self) -> str:
        """The current observation. Raises ResetNeeded before the first reset."""
        return self._running().observation.text

    def _running(self) -> E:
        if self._episode is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._episode

    def _leave(self) -> None:
        if self._episode is not None:
            self._end(self._episode)
            self._episode = None

    def _told(self, episode: E, result: StepResult | StepView) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """What a step answers."""
        info = self._info(episode, result)
        return result.observation.text, result.reward, result.terminated, result.truncated, info

    @staticmethod
    def _info(episode: Episode, result: StepResult | StepView | None = None) -> dict[str, Any]:
        """Fresh objects on every call: callers keep them."""
        admissible = episode.observation.admissible_actions
        return {
            "task_id": episode.task.id,
            "turn": episode.turn,
            "admissible_actions": None if admissible is None else list(admissible),
            "log_hash": episode.log_hash,
            "end": result.info.end if result else None,
            "metrics": dict(result.info.metrics) if result else {},
        }
