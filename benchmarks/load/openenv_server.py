"""OpenEnv's server with an echo environment equal to ours: async, as many sessions as anybody asks for."""

from __future__ import annotations

from typing import Any

from load.openenv_package import prepare
from load.serving import serve

prepare()

from openenv.core.env_server import Action, Environment, Observation, create_app  # noqa: E402
from openenv.core.env_server.types import State  # noqa: E402


class Said(Action):
    text: str


class Heard(Observation):
    text: str


class Echo(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0

    def reset(self, **_: Any) -> Heard:
        raise NotImplementedError("the server prefers the async method")

    def step(self, action: Said, **_: Any) -> Heard:
        raise NotImplementedError("the server prefers the async method")

    async def reset_async(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Heard:
        self._steps = 0
        return Heard(text="Say something.", done=False, reward=0.0)

    async def step_async(self, action: Said, timeout_s: float | None = None, **_: Any) -> Heard:
        self._steps += 1
        return Heard(text=action.text, done=False, reward=0.0)

    @property
    def state(self) -> State:
        return State(step_count=self._steps)


if __name__ == "__main__":
    serve(create_app(Echo, Said, Heard, env_name="echo", max_concurrent_envs=4096), "openenv")
