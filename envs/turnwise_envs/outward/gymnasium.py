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
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import gymnasium

from turnwise_envs import registry
from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.errors import InvalidOptions
from turnwise_envs.outward.texts import TextEnv
from turnwise_envs.types import Action, JsonObject, ToolCall

T = TypeVar("T")


class LocalEnv(TextEnv[LiveEpisode]):
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

    mistake = InvalidOptions

    def __init__(
        self,
        env: str | type[Environment],
        *,
        arguments: Mapping[str, str] | None = None,
        split: str | None = None,
        options: JsonObject | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(options, render_mode)
        self._class = registry.load(env, arguments) if isinstance(env, str) else env
        self._split = split or self._class.spec.splits[0].name
        self._class.tasks.size(self._split)
        self._loop = asyncio.new_event_loop()
        # A thread of its own: the caller may be inside an event loop (a notebook is), which cannot run another.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="turnwise-gymnasium")

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action. Raises ResetNeeded before the first reset, EpisodeDone after the end, EnvironmentFault."""
        episode = self._running()
        return self._told(episode, self._run(episode.step(self._read(action, episode.turn))))

    def close(self) -> None:
        if not self._loop.is_closed():
            self._leave()
            self._run(self._loop.shutdown_default_executor())
            self._thread.shutdown()
            self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(self._loop.run_until_complete, coroutine).result()

    def _size_of(self, split: str) -> int | None:
        return self._class.tasks.size(split)

    def _begin(self, split: str, index: int, seed: int, options: JsonObject) -> LiveEpisode:
        return self._run(LiveEpisode.start(self._class, split, index, seed, options))

    def _end(self, episode: LiveEpisode) -> None:
        self._run(episode.close())

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


gymnasium.register("turnwise/Local-v0", entry_point="turnwise_envs.outward.gymnasium:LocalEnv")
