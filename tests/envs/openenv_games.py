"""OpenEnv's own server, unchanged, with one of two small environments. Run as a program: ``python openenv_games.py KIND``.

``words``: one text field, the seed fixes the secret, "pass" gives up. ``grid``: an action of two fields.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from unittest.mock import MagicMock

sys.path.insert(0, str(Path(sys.prefix) / "openenv" / "0.10.0"))
for package, parts in {
    "fastmcp": ("fastmcp.client", "fastmcp.client.client"),
    "gradio": (),
    "huggingface_hub": (),
    "mcp": ("mcp.types",),
    "openai": (),
    "requests": (),
    "yaml": (),
}.items():
    if importlib.util.find_spec(package) is None:
        sys.modules.update({name: MagicMock() for name in (package, *parts)})

import uvicorn  # noqa: E402
from openenv.core.env_server import Action, Environment, Observation, create_app  # noqa: E402
from openenv.core.env_server.types import State  # noqa: E402

WORDS = ("amber", "birch", "cedar", "delta")


class Guess(Action):
    word: str


class Heard(Observation):
    hint: str


class Words(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: object) -> Heard:
        self._secret, self._tries = WORDS[(seed or 0) % 4], 0
        return Heard(hint="One of amber, birch, cedar, delta.", done=False, reward=0.0)

    def step(self, action: Guess, timeout_s: float | None = None, **_: object) -> Heard:
        if action.word == "explode":
            raise ValueError("boom")
        self._tries += 1
        right = action.word == self._secret
        if action.word == "pass":
            return Heard(hint=f"It was {self._secret}.", done=True, reward=0.0)
        return Heard(hint="yes" if right else f"no ({self._tries})", done=right, reward=float(right))

    @property
    def state(self) -> State:
        return State(step_count=self._tries)


class Move(Action):
    x: int
    y: int


class Place(Observation):
    x: int
    y: int


class Grid(Words):
    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: object) -> Place:
        self._tries, self._x, self._y = 0, 0, 0
        return Place(x=0, y=0, done=False, reward=0.0)

    def step(self, action: Move, timeout_s: float | None = None, **_: object) -> Place:
        self._x, self._y = self._x + action.x, self._y + action.y
        home = (self._x, self._y) == (2, 3)
        return Place(x=self._x, y=self._y, done=home, reward=float(home))


KINDS = {"words": (Words, Guess, Heard), "grid": (Grid, Move, Place)}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    app = create_app(*KINDS[sys.argv[1]], env_name=sys.argv[1], max_concurrent_envs=64)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="websockets-sansio")).run(sockets=[listener])
