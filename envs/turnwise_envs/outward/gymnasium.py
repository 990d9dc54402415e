"""Our environments as Gymnasium environments, in this process: for the libraries that speak Gymnasium.

Observations and actions are texts. Importing this module registers ``turnwise/Local-v0``::

    env = gymnasium.make("turnwise_envs.outward.gymnasium:turnwise/Local-v0", env="household")
    observation, info = env.reset(seed=0, options={"index": 3})
    observation, reward, terminated, truncated, info = env.step("look")

``turnwise_agent.gym`` has the same for an environment of a server.
"""

from __future__ import annotations

import asyncio
import json
import string
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import gymnasium
from gymnasium.spaces import Text

from turnwise_envs import registry
from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.errors import InvalidOptions
from turnwise_envs.types import Action, JsonObject, StepResult, ToolCall

T = TypeVar("T")

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


class LocalEnv(gymnasium.Env[str, str]):
    """One environment, an episode at a time.

    Args:
        env: its class, or its name: an id, an import path, or an adapter's name with ``arguments``.
        arguments: of the adapter, as on a command line: ``{"url": "http://127.0.0.1:8000"}``.
        split: the split that tasks come from.
        options: the environment's own options.
        render_mode: ``"ansi"`` or None.

    An action is what a model would write. Where the environment wants tool calls, an action in JSON is one:
    ``{"name": "search", "arguments": {"query": "Emma"}}``, or a list of such.

    Raises:
        UnknownEnvironment, UnknownTask: no such environment or split.
    """

    # Gymnasium warns without a frame rate, even where there are no frames.
    metadata = {"render_modes": ["ansi"], "render_fps": 1}

    def __init__(
        self,
        env: str | type[Environment],
        *,
        arguments: Mapping[str, str] | None = None,
        split: str | None = None,
        options: JsonObject | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise InvalidOptions(f"render_mode {render_mode!r}: only 'ansi' exists")
        self.render_mode = render_mode
        self.observation_space = UnicodeText(MAX_OBSERVATION)
        self.action_space = UnicodeText(MAX_ACTION)
        self._class = registry.load(env, arguments) if isinstance(env, str) else env
        self._split = split or self._class.spec.splits[0].name
        self._class.tasks.size(self._split)
        self._options = dict(options or {})
        self._episode: LiveEpisode | None = None
        self._loop = asyncio.new_event_loop()
        # A thread of its own: the caller may be inside an event loop (a notebook is), which cannot run another.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="turnwise-gymnasium")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode.

        ``options`` may have ``index`` and ``split`` of the task (by default one is drawn from the constructor's
        split) and ``options``, which go over the constructor's. ``seed`` seeds the draw and is the episode's own
        seed; without it both are drawn from ``np_random``.

        Raises:
            UnknownTask, InvalidOptions, EnvironmentFault: as :meth:`turnwise_envs.episode.LiveEpisode.start`.
        """
        super().reset(seed=seed)
        chosen = dict(options or {})
        split = chosen.pop("split", self._split)
        index = chosen.pop("index", None)
        env_options = self._options | chosen.pop("options", {})
        if chosen:
            raise InvalidOptions(f"reset has no option {next(iter(chosen))!r}; it has: index, split, options")
        size = self._class.tasks.size(split)
        if index is None:
            index = int(self.np_random.integers(_DRAW if size is None else size))
        if seed is None:
            seed = int(self.np_random.integers(_DRAW))
        self._leave()
        self._episode = self._run(LiveEpisode.start(self._class, split, index, seed, env_options))
        return self._episode.observation.text, self._info(self._episode)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action. Raises ResetNeeded before the first reset, EpisodeDone after the end, EnvironmentFault."""
        episode = self._running()
        result = self._run(episode.step(self._read(action, episode.turn)))
        info = self._info(episode, result)
        return result.observation.text, result.reward, result.terminated, result.truncated, info

    def render(self) -> str:
        """The current observation. Raises ResetNeeded before the first reset."""
        return self._running().observation.text

    def close(self) -> None:
        if not self._loop.is_closed():
            self._leave()
            self._run(self._loop.shutdown_default_executor())
            self._thread.shutdown()
            self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(self._loop.run_until_complete, coroutine).result()

    def _running(self) -> LiveEpisode:
        if self._episode is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._episode

    def _leave(self) -> None:
        if self._episode is not None:
            self._run(self._episode.close())
            self._episode = None

    def _read(self, text: str, turn: int) -> Action:
        if self._class.spec.action_format != "tools":
            return Action(text=text)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return Action(text=text)
        calls = value if isinstance(value, list) else [value]
        if not calls or not all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in calls):
            return Action(text=text)
        return Action(
            tool_calls=[
                ToolCall(
                    id=f"c{turn}_{number}",
                    name=call["name"],
                    arguments=arguments if isinstance(arguments := call.get("arguments", {}), dict) else None,
                )
                for number, call in enumerate(calls)
            ]
        )

    @staticmethod
    def _info(episode: LiveEpisode, result: StepResult | None = None) -> dict[str, Any]:
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


gymnasium.register("turnwise/Local-v0", entry_point="turnwise_envs.outward.gymnasium:LocalEnv")
