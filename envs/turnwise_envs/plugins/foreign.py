"""What the adapters of other people's games share: chance that an episode owns, JSON arguments, named actions."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import re
import threading
from collections.abc import Sequence
from typing import Any

from turnwise_envs.actions import last_line
from turnwise_envs.dice import stable_hash
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.types import JsonObject, Observation, StepInfo, StepResult

try:
    numpy_random: Any = importlib.import_module("numpy.random")
except ImportError:  # then no game draws from it
    numpy_random = None

_ID = re.compile(r"[^A-Za-z0-9._:-]+")
#: Seeds of the split `valid` begin here, those of `train` at 0: they never meet.
VALID_SEEDS = 1 << 30
#: One at a time may have its own chance in the place of the global one.
_only_one = threading.RLock()


class OwnChance:
    """``random`` and ``numpy.random`` as one episode sees them, for software that draws from the global generators.

    ::

        chance = OwnChance("game", split, index)
        with chance:          # the global generators are this episode's; outside they are as if it had not been
            game.reset()
        chance.seed("game", split, index, seed)
    """

    def __init__(self, *names: object) -> None:
        self.seed(*names)

    def seed(self, *names: object) -> None:
        """Begin a new stream, named by ``names``."""
        seed = stable_hash(*names)
        self._python = random.Random(seed).getstate()
        self._numpy = None if numpy_random is None else numpy_random.MT19937(seed)

    def __enter__(self) -> None:
        _only_one.acquire()
        self._outside = random.getstate(), None if numpy_random is None else numpy_random.get_bit_generator()
        random.setstate(self._python)
        if numpy_random is not None:
            numpy_random.set_bit_generator(self._numpy)  # far quicker than its state

    def __exit__(self, *_: object) -> None:
        self._python = random.getstate()
        random.setstate(self._outside[0])
        if numpy_random is not None:
            numpy_random.set_bit_generator(self._outside[1])
        _only_one.release()


def seed_of(split: str, index: int) -> int:
    """The seed that fixes the world of a task, below 2**31."""
    return index + (VALID_SEEDS if split != "train" else 0)


def spec_id(adapter: str, name: str) -> str:
    """``gymnasium:ALE/Pong-v5`` -> ``gymnasium:ALE.Pong-v5``: what may stand in a URL."""
    return f"{adapter}:{_ID.sub('.', name).strip('.')}" if name else adapter


def json_argument(option: str, text: str) -> JsonObject:
    """The JSON object in an argument. Raises UnknownEnvironment."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UnknownEnvironment(f"--{option} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnknownEnvironment(f'--{option} is a JSON object such as {{"size": 4}}, not {text}')
    return value


def meant(said: str, names: Sequence[str]) -> int | None:
    """Which of the named actions the last line of ``said`` is, by name or number, whatever its case; None for none."""
    line = last_line(said).strip(" .`'\"*[]").lower()
    for position, name in enumerate(names):
        if line == name.lower():
            return position
    if line.isascii() and line.isdigit() and len(line) < 9 and int(line) < len(names):
        return int(line)
    return None


def short_key(*facts: object) -> str:
    """16 hex digits that name a state."""
    return hashlib.sha256("\x1f".join(map(str, facts)).encode()).hexdigest()[:16]


def clipped(said: str, limit: int = 60) -> str:
    """The policy's own words, short enough to repeat them."""
    line = " ".join(said.split())
    printable = "".join(c for c in line if c.isprintable())
    return printable if len(printable) <= limit else f"{printable[:limit]}…"


def refusal(text: str, observation: Observation | None = None) -> StepResult:
    """An action that was not understood: nothing happened, and ``text`` teaches."""
    seen = Observation.say(text)
    if observation is not None:
        seen = seen.model_copy(
            update={"state_key": observation.state_key, "admissible_actions": observation.admissible_actions}
        )
    return StepResult(observation=seen, info=StepInfo(action_valid=False, action_effective=False, error=text))
