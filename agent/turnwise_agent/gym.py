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
from turnwise_envs.outward.gymnasium import MAX_ACTION, MAX_OBSERVATION, UnicodeText
from turnwise_envs.types import Action, JsonObject
from turnwise_envs.wire import StepView

#: Seeds and the indices of unbounded splits are drawn below this.
_DRAW = 2**31


class RemoteEnv(gymnasium.Env[str, str]):
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

    # Gymnasium warns without a frame rate, even where there are no frames.
    metadata = {"render_modes": ["ansi"], "render_fps": 1}

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
        if render_mode not in (None, "ansi"):
            raise AgentError(f"render_mode {render_mode!r}: only 'ansi' exists")
        self.render_mode = render_mode
        self.observation_space = UnicodeText(MAX_OBSERVATION)
        self.action_space = UnicodeText(MAX_ACTION)
        self._env = env
        self._split = split
        self._options = dict(options or {})
        self._session: SyncSession | None = None
        self._client = SyncClient(servers, token=token, token_file=token_file)
        try:
            self._sizes = self._split_sizes()
            self._size_of(split)
        except BaseException:
            self._client.close()
            raise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode.

        ``options`` may have ``index`` and ``split`` of the task (by default one is drawn from the constructor's
        split) and ``options``, which go over the constructor's. ``seed`` seeds the draw and is the session's own
        seed; without it both are drawn from ``np_random``.

        Raises:
            AgentError: an option that does not exist or fit; the server refuses or is gone.
        """
        super().reset(seed=seed)
        chosen = dict(options or {})
        split = chosen.pop("split", self._split)
        index = chosen.pop("index", None)
        env_options = self._options | chosen.pop("options", {})
        if chosen:
            raise AgentError(f"reset has no option {next(iter(chosen))!r}; it has: index, split, options")
        size = self._size_of(split)
        if index is None:
            index = int(self.np_random.integers(_DRAW if size is None else size))
        if seed is None:
            seed = int(self.np_random.integers(_DRAW))
        self._leave()
        session = self._client.create(self._env, split=split, index=index, seed=seed, options=env_options)
        self._session = session
        return session.observation.text, self._info(session)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action. Raises ResetNeeded before the first reset, SessionDone after the end."""
        session = self._running()
        view = session.step(Action(text=action))
        return view.observation.text, view.reward, view.terminated, view.truncated, self._info(session, view)

    def render(self) -> str:
        """The current observation. Raises ResetNeeded before the first reset."""
        return self._running().observation.text

    def close(self) -> None:
        self._leave()
        self._client.close()

    def _running(self) -> SyncSession:
        if self._session is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._session

    def _leave(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _split_sizes(self) -> dict[str, int | None]:
        spec = self._client.spec(self._env)
        if spec.action_format == "tools":
            raise AgentError(f"environment {self._env!r} wants tool calls, and a Gymnasium action here is text")
        return {known.name: known.size for known in spec.splits}

    def _size_of(self, split: str) -> int | None:
        if split not in self._sizes:
            raise AgentError(f"environment {self._env!r} has no split {split!r}; it has: {', '.join(self._sizes)}")
        return self._sizes[split]

    @staticmethod
    def _info(session: SyncSession, view: StepView | None = None) -> dict[str, Any]:
        """Fresh objects on every call: callers keep them."""
        admissible = session.observation.admissible_actions
        return {
            "task_id": session.task.id,
            "turn": session.turn,
            "admissible_actions": None if admissible is None else list(admissible),
            "log_hash": session.log_hash,
            "end": view.info.end if view else None,
            "metrics": dict(view.info.metrics) if view else {},
        }


gymnasium.register("turnwise/Remote-v0", entry_point="turnwise_agent.gym:RemoteEnv")
