"""Environments that the client's tests serve, and ways to serve them: in this process, or in one that can be killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx

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

if TYPE_CHECKING:
    from serving import Server

HERE = Path(__file__).parent


class Ledger(Environment):
    """Counts the characters it is told, adds seeded noise, and ends at "stop" with the count as the reward."""

    spec = EnvSpec(
        id="ledger",
        max_turns=40,
        splits=[SplitSpec(name="train", size=1000), SplitSpec(name="open", size=None)],
        options_schema={
            "type": "object",
            "properties": {"start": {"type": "integer"}},
            "additionalProperties": False,
        },
    )
    tasks = FunctionTaskSet(
        spec, lambda split, index: f"Ledger {index}.", lambda task: Reference(answers=[f"gold {task.index}"])
    )
    lived: ClassVar[Counter[str]] = Counter()  # how often each text was acted on in this process

    async def reset(self, task, seed, options):
        self.count = options.get("start", 0)
        self.random = random.Random(f"{task.index} {seed}")
        return Observation.say(f"{task.instruction} Speak, or stop. ☃")

    async def step(self, action: Action) -> StepResult:
        type(self).lived[action.text] += 1
        self.count += len(action.text)
        said = Observation.say(
            f"{self.count} characters, noise {self.random.randrange(10**9)}", admissible_actions=["stop"]
        )
        if action.text == "stop":
            return StepResult(
                observation=said,
                reward=float(self.count),
                terminated=True,
                info=StepInfo(end="solved", metrics={"count": float(self.count)}),
            )
        return StepResult(observation=said)

    async def finish(self, reason: str) -> StepResult:
        return StepResult(observation=Observation.say("Closed."), reward=self.count / 2, truncated=True)


class LedgerTwo(Ledger):
    """The same id with other behaviour: what a server has after an incompatible update."""

    async def step(self, action: Action) -> StepResult:
        return StepResult(observation=Observation.say("All is different now."))


class LedgerThree(Ledger):
    """The same id; only what a finish is worth has changed."""

    async def finish(self, reason: str) -> StepResult:
        return StepResult(observation=Observation.say("Closed."), reward=-1.0, truncated=True)


class Oracle(Ledger):
    """Neither deterministic nor free of effects: its sessions can never be rebuilt."""

    spec = Ledger.spec.model_copy(update={"id": "oracle", "deterministic": False})
    tasks = FunctionTaskSet(spec, lambda split, index: "Ask.")


class Fragile(Ledger):
    """Breaks whenever it is told to."""

    spec = Ledger.spec.model_copy(update={"id": "fragile"})
    tasks = FunctionTaskSet(spec, lambda split, index: "Do not say boom.")

    async def step(self, action: Action) -> StepResult:
        if action.text == "boom":
            raise RuntimeError("boom")
        return await super().step(action)


class Slow(Ledger):
    """Thinks for most of a second before it acts."""

    spec = Ledger.spec.model_copy(update={"id": "slow"})
    tasks = FunctionTaskSet(spec, lambda split, index: "Patience.")

    async def step(self, action: Action) -> StepResult:
        await asyncio.sleep(0.8)
        return await super().step(action)


class Toolbox(Ledger):
    """Wants tool calls."""

    spec = Ledger.spec.model_copy(update={"id": "toolbox", "action_format": "tools"})
    tasks = FunctionTaskSet(spec, lambda split, index: "Use a tool.")


class InProcess(httpx.AsyncBaseTransport):
    """Servers by host name in this process, and a network between that can fail.

    ``drop_answers`` is how many of the next answers get lost after the server has done its work; ``asked`` counts the
    requests to each host, answered or not.
    """

    def __init__(self) -> None:
        self._apps: dict[str, httpx.ASGITransport | None] = {}
        self.drop_answers = 0
        self.asked: Counter[str] = Counter()

    def start(self, host: str, *envs: type[Environment], **settings: Any) -> None:
        """A new server at ``host``, without any memory of an earlier one."""
        from turnwise_server.app import create_app
        from turnwise_server.settings import Settings

        app = create_app(envs, Settings(host="0.0.0.0", **settings), [_everything()])
        app.state.ready = True  # its lifespan is not run
        self._apps[host] = httpx.ASGITransport(app)

    def stop(self, host: str) -> None:
        self._apps[host] = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked[request.url.host] += 1
        server = self._apps[request.url.host]
        if server is None:
            raise httpx.ConnectError("connection refused", request=request)
        response = await server.handle_async_request(request)
        if self.drop_answers:
            self.drop_answers -= 1
            await response.aread()
            raise httpx.ReadError("connection reset", request=request)
        return response


TOKEN = "a-token-of-the-tests"


def _everything():
    from turnwise_server.auth import Token

    return Token(name="tests", token=TOKEN, scopes=frozenset({"act", "trainer"}))


def served(home: Path, *envs: str) -> AbstractContextManager[Server]:
    """A server process of classes in this module or of installed ids."""
    from serving import serving  # a server that imports this module for its classes has no such thing

    return serving(home, HERE, *(f"remote_world:{env}" if env[0].isupper() else env for env in envs))
