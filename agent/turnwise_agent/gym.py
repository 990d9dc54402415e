"""A remote environment as a Gymnasium environment, for the libraries that speak Gymnasium.

Observations and actions are texts. Importing this module registers ``turnwise/Remote-v0``::

    env = gymnasium.make("turnwise_agent.gym:turnwise/Remote-v0", env="household", servers="http://127.0.0.1:8000")
    observation, info = env.reset(seed=0, options={"index": 3})
    observation, reward, terminated, truncated, info = env.step("look")

``turnwise_envs.outward.gymnasium`` has the same for an environment in this process. Training goes neither way: the
rollout engine drives thousands of asynchronous sessions instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium

from turnwise_agent.client import SyncClient, SyncSession
from turnwise_agent.errors import AgentError
from turnwise_envs.outward.texts import TextEnv
from turnwise_envs.types import Action, JsonObject


class RemoteEnv(TextEnv[SyncSession]):
    """One environment of a server, an episode at a time.

    Args:
        env: id of an environment whose actions are text (or tags in text), not tool calls.
        servers, token, token_file: as for :class:`turnwise_agent.client.TurnwiseClient`.
        split: the split that tasks come from.
        options: the environment's own options.
        render_mode: ``"ansi"`` or None.

    Raises:
        AgentError: no such environment or split, or one that wants tool calls; the server cannot be reached.
    """

    mistake = AgentError

    def __init__(
        self,
        env: str,
        servers: str | Sequence[str] = "http://127.0.0.1:8000",
        *,
        split: str = "train",
        options: JsonObject | None = None,
        token: str | None = None,
        token_file: str | Path | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(options, render_mode)
        self._env = env
        self._split = split
        self._client = SyncClient(servers, token=token, token_file=token_file)
        try:
            self._sizes = self._split_sizes()
            self._size_of(split)
        except BaseException:
            self._client.close()
            raise

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action. Raises ResetNeeded before the first reset, SessionDone after the end."""
        session = self._running()
        return self._told(session, session.step(Action(text=action)))

    def close(self) -> None:
        self._leave()
        self._client.close()

    def _begin(self, split: str, index: int, seed: int, options: JsonObject) -> SyncSession:
        return self._client.create(self._env, split=split, index=index, seed=seed, options=options)

    def _end(self, episode: SyncSession) -> None:
        episode.close()

    def _split_sizes(self) -> dict[str, int | None]:
        spec = self._client.spec(self._env)
        if spec.action_format == "tools":
            raise AgentError(f"environment {self._env!r} wants tool calls, and a Gymnasium action here is text")
        return {known.name: known.size for known in spec.splits}

    def _size_of(self, split: str) -> int | None:
        if split not in self._sizes:
            raise AgentError(f"environment {self._env!r} has no split {split!r}; it has: {', '.join(self._sizes)}")
        return self._sizes[split]


gymnasium.register("turnwise/Remote-v0", entry_point="turnwise_agent.gym:RemoteEnv")
