"""Text environments that a tiny model can learn, a policy that knows their words, and a server of them in a process."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from turnwise_agent.renderer import Renderer
from turnwise_envs import (
    Action,
    Environment,
    EnvSpec,
    FunctionTaskSet,
    Observation,
    Reference,
    SplitSpec,
    StepInfo,
    StepResult,
)
from turnwise_trainer.models import make_tiny_model, make_tokenizer, save_model

if TYPE_CHECKING:
    from serving import Server

HERE = Path(__file__).parent
TURNWISE = Path(sys.executable).with_name("turnwise")

LETTERS = ("a", "b", "c", "d")
ASK = "letter?"


class Bandit(Environment):
    """Asks for a letter a few times; the last one should be a "b"."""

    spec = EnvSpec(
        id="bandit",
        max_turns=10,
        splits=[SplitSpec(name="train", size=6), SplitSpec(name="valid", size=5)],
        options_schema={
            "type": "object",
            "properties": {"turns": {"type": "integer"}, "delay": {"type": "number"}},
            "additionalProperties": False,
        },
    )
    tasks = FunctionTaskSet(spec, lambda split, index: ASK, lambda task: Reference(answers=["b", "B"]))

    async def reset(self, task, seed, options):
        self.left = options.get("turns", 2)
        self.delay = options.get("delay", 0.0)
        return Observation.say(ASK, admissible_actions=list(LETTERS))

    async def step(self, action):
        await asyncio.sleep(self.delay)
        self.left -= 1
        if self.left:
            return StepResult(observation=Observation.say(ASK, admissible_actions=list(LETTERS)))
        won = action.text == "b"
        return StepResult(
            observation=Observation.say("over"),
            reward=float(won),
            terminated=True,
            info=StepInfo(end="solved" if won else "failed"),
        )

    def expert_action(self):
        return Action(text="b")


class Mute(Bandit):
    """Has no expert, and no answer."""

    spec = Bandit.spec.model_copy(update={"id": "mute"})
    tasks = FunctionTaskSet(spec, lambda split, index: ASK)

    def expert_action(self):
        return None


def write_policy(path: Path) -> Path:
    """A checkpoint of a policy that says each of the letters about as often, whatever was said before."""
    tokenizer = make_tokenizer([ASK, *LETTERS], vocab_size=262)
    model = make_tiny_model(tokenizer, hidden=16, layers=1, heads=2, max_positions=128)
    renderer, rng = Renderer(tokenizer), np.random.default_rng(0)
    ask = Observation.say(ASK).messages
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(60):
        rows, targets = [], []
        for _ in range(16):
            ids = [*renderer.first(ask)]
            wanted = [-100] * len(ids)
            for _ in range(3):
                answer = renderer.action_ids(LETTERS[int(rng.integers(4))])
                following = renderer.following(ask, answer[-1])
                ids += [*answer, *following]
                wanted += [*answer, *[-100] * len(following)]
            rows.append(ids)
            targets.append(wanted)
        logits = model(input_ids=torch.tensor(rows)).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets)[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_model(model, tokenizer, path)
    return path


def served(home: Path, *classes: str) -> AbstractContextManager[Server]:
    """A server process of classes in this module."""
    from serving import serving  # a server that imports this module for its classes has no such thing

    return serving(home, HERE, *(f"word_worlds:{name}" for name in classes))


def train_command(*arguments: str) -> list[str]:
    return [str(TURNWISE), "train", *arguments]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Return when it is true; the process must go on until then."""
    from waiting import until

    def come() -> object:
        assert process.poll() is None, process.communicate()
        return condition()

    until(come, 500)


@functools.cache
def one_thread() -> dict[str, str]:
    """An environment in which torch computes the same bits whatever else the machine does."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "200"}


def settings(url: str, policy: Path, run: Path, **changes: Any) -> list[str]:
    """``--set`` arguments of a small run."""
    chosen = {
        "model": str(policy),
        "run": str(run),
        "env.id": "bandit",
        "env.urls": [url],
        "steps": 4,
        "rollout.groups_per_step": 4,
        "rollout.group_size": 4,
        "rollout.max_action_tokens": 3,
        "rollout.max_context_tokens": 64,
        "rollout.cache_tokens": 4096,
        "optimizer.lr": 1e-2,
        "optimizer.minibatches": 2,
        "checkpoint.every": 2,
        **changes,
    }
    return [part for key, value in chosen.items() for part in ("--set", f"{key}={_toml(value)}")]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return str(value)
