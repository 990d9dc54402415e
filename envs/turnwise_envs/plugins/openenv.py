"""The adapter ``openenv``: ``turnwise serve openenv --url http://host:8000`` serves an OpenEnv server's environment.

One socket of theirs is one episode: ``reset`` with the index as the seed, ``step`` for each action. What an action is, is
read from the server's schema: one text field (then the policy's text is it), MCP tools (then these are the tools), or else
one tool ``act`` with the schema's fields. Their protocol promises nothing about chance, and a server may ignore the seed:
so the environment is not deterministic unless ``--deterministic true`` says that it is.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from turnwise_envs.actions import without_thoughts
from turnwise_envs.adapters import adapter
from turnwise_envs.environment import Environment, FunctionTaskSet
from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.plugins.foreign import json_argument, refusal, seed_of, spec_id
from turnwise_envs.tools_api import ToolAnswer, Toolbox, clip
from turnwise_envs.types import (
    Action,
    EnvSpec,
    JsonObject,
    Observation,
    SplitSpec,
    StepInfo,
    StepResult,
    Task,
    ToolSpec,
)

#: Seconds for the questions that are asked before any episode.
ASKING = 10.0
#: Bytes of one answer.
MAX_MESSAGE = 100 << 20
#: Fields of an action that every OpenEnv environment has, or that say which kind it is.
_COMMON = {"metadata", "type"}


@adapter
def openenv(
    *,
    url: str,
    instruction: str = "",
    observation: str = "",
    reset: str = "{}",
    max_turns: int = 30,
    timeout: float = 60.0,
    deterministic: bool = False,
) -> type[Environment]:
    """The environment of an OpenEnv server (0.10; 0.3 works too).

    ``instruction``: what begins the prompt. ``observation``: the field of its observations that is the text (by default all
    of them, as ``name: value``). ``reset``: further arguments of its reset, in JSON. ``timeout``: seconds for an answer.
    """
    import websockets  # noqa: F401  a missing package is said here, not in the first reset

    there = _Server.at(url, json_argument("reset", reset), observation, timeout)
    about = instruction or there.about
    spec_ = EnvSpec(
        id=spec_id("openenv", there.name),
        description=there.about,
        action_format="text" if there.kind == "text" else "tools",
        tools=list(there.tools),
        max_turns=max_turns,
        splits=[SplitSpec(name="train", size=10_000), SplitSpec(name="valid", size=1_000)],
        options_schema={
            "type": "object",
            "properties": {"max_turns": {"type": "integer", "minimum": 1, "maximum": 10_000}},
            "additionalProperties": False,
        },
        deterministic=deterministic,
    )

    class There(OpenEnvEpisode):
        spec = spec_
        tasks = FunctionTaskSet(spec_, lambda split, index: about)

    There.server = there
    There.toolbox = Toolbox(there.tools)
    return There


@dataclass(frozen=True)
class _Server:
    """What is known about a server before any episode. ``kind`` says how actions are made; ``text_field`` is that of a text."""

    socket: str
    name: str
    about: str
    reset: JsonObject
    shown: str
    timeout: float
    kind: Literal["text", "mcp", "act"]
    text_field: str = ""
    tools: tuple[ToolSpec, ...] = ()

    @classmethod
    def at(cls, url: str, reset: JsonObject, shown: str, timeout: float) -> _Server:
        """Asks the server. Raises UnknownEnvironment."""
        base = url.rstrip("/")
        if not re.match(r"https?://", base):
            raise UnknownEnvironment(f"openenv --url begins with http:// or https://, not {url!r}")
        schema = _ask(f"{base}/schema")["action"]
        try:
            told = _ask(f"{base}/metadata")
        except UnknownEnvironment:
            told = {}  # it is optional
        name = str(told.get("name") or re.sub(r"https?://", "", base))
        about = str(told.get("description") or f"The environment {name} of an OpenEnv server.")
        common = (re.sub(r"^http", "ws", base) + "/ws", name, about, reset, shown, timeout)
        properties = {key: value for key, value in schema.get("properties", {}).items() if key not in _COMMON}
        turnwise = {"text", "tool_calls"} <= properties.keys()  # one of our own servers: it has a tool for texts
        if turnwise or {"tool_name", "arguments"} <= properties.keys():
            tools = _tools(base)
            if tools and not (turnwise and tools[0].name == "act"):
                return cls(*common, "mcp", "", tools)
        if turnwise:
            return cls(*common, "text", "text")
        required = [key for key in schema.get("required", list(properties)) if key in properties]
        if len(required) == 1 and properties[required[0]].get("type") == "string":
            return cls(*common, "text", required[0])
        parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        if "$defs" in schema:
            parameters["$defs"] = schema["$defs"]
        return cls(*common, "act", "", (ToolSpec(name="act", description="Take an action.", parameters=parameters),))


class OpenEnvEpisode(Environment):
    """One episode on one socket. :func:`openenv` sets ``server`` and ``toolbox``."""

    server: ClassVar[_Server]
    toolbox: ClassVar[Toolbox]
    _socket: Any = None

    async def reset(self, task: Task, seed: int, options: JsonObject) -> Observation:
        """Their reset knows one seed, which fixes all: it gets the index, and ``seed`` makes no difference."""
        from websockets.asyncio.client import connect

        self._socket = await connect(self.server.socket, max_size=MAX_MESSAGE, compression=None)
        self._return = 0.0
        given = {"seed": seed_of(task.split, task.index)} | self.server.reset
        answer = await self._ask("reset", given)
        if answer["type"] != "observation":
            raise RuntimeError(f"the OpenEnv server answered a reset with {_told(answer)}")
        seen = self._words(answer["data"].get("observation") or {})
        return Observation.say("\n\n".join(filter(None, (task.instruction, seen, self._usage()))))

    async def step(self, action: Action) -> StepResult:
        if self.server.kind == "text":
            said = without_thoughts(action.text).strip()
            result = await self._act({self.server.text_field: said})
            if action.tool_calls:
                text = f"{result.observation.text}\nTool calls have no effect here."
                result = result.model_copy(update={"observation": Observation.say(text)})
            return result
        if not action.tool_calls:
            return refusal(self.toolbox.usage())
        last: list[StepResult] = []

        async def call(name: str, arguments: JsonObject) -> ToolAnswer:
            mcp = {"type": "call_tool", "tool_name": name, "arguments": arguments}
            result = await self._act(mcp if self.server.kind == "mcp" else arguments)
            last.append(result)
            valid = result.info.action_valid
            return ToolAnswer(result.observation.text, valid=valid, effective=valid, ends=result.done)

        turn = await self.toolbox.run_async(action, call)
        end = last[-1].info if last else StepInfo()
        return StepResult(
            observation=Observation(messages=turn.messages),
            reward=sum(result.reward for result in last),
            terminated=bool(last) and last[-1].terminated,
            truncated=bool(last) and last[-1].truncated,
            info=turn.info(end=end.end, metrics=end.metrics),
        )

    async def finish(self, reason: str) -> StepResult:
        result = await super().finish(reason)
        info = result.info.model_copy(update={"metrics": {"return": self._return}})
        return result.model_copy(update={"info": info})

    async def close(self) -> None:
        """Says goodbye if it can: a server that is gone is no reason to fail."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        from websockets.exceptions import WebSocketException

        try:
            async with asyncio.timeout(1.0):
                await socket.send(json.dumps({"type": "close"}))
                await socket.close()
        except (TimeoutError, OSError, WebSocketException):
            socket.transport.abort()

    async def _act(self, data: JsonObject) -> StepResult:
        answer = await self._ask("step", data)
        problem = answer["data"]
        if answer["type"] == "error" and problem.get("code") in ("VALIDATION_ERROR", "EXECUTION_ERROR"):
            return refusal(f"The environment refuses this: {clip(str(problem.get('message')), 300)}")
        if answer["type"] != "observation":
            raise RuntimeError(f"the OpenEnv server answered a step with {_told(answer)}")
        reward = float(problem.get("reward") or 0.0)
        self._return += reward
        observed = problem.get("observation") or {}
        facts = {**(observed.get("metadata") or {}), **(problem.get("metadata") or {})}
        done = bool(problem.get("done"))
        cut = done and bool(facts.get("truncated"))
        return StepResult(
            observation=Observation.say(self._words(observed) or "(nothing)"),
            reward=reward,
            terminated=done and not cut,
            truncated=cut,
            info=StepInfo(
                metrics={"return": self._return} if done else {},
                end=None if not done else "max_turns" if cut else "solved" if reward > 0 else "failed",
            ),
        )

    async def _ask(self, kind: str, data: JsonObject) -> JsonObject:
        """One frame there and one back. Raises TimeoutError, and whatever a broken socket raises."""
        async with asyncio.timeout(self.server.timeout):
            await self._socket.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(await self._socket.recv())
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
            raise RuntimeError(f"the OpenEnv server answered with {clip(str(answer), 200)}")
        return answer

    def _words(self, observed: JsonObject) -> str:
        """The chosen field, our own ``text``, or all fields as ``name: value``."""
        facts = {name: value for name, value in observed.items() if name != "metadata" and value is not None}
        chosen = self.server.shown or ("text" if isinstance(facts.get("text"), str) else "")
        if chosen or len(facts) == 1:
            return _text(facts.get(chosen, "") if chosen else next(iter(facts.values())))
        return "\n".join(f"{name}: {_text(value)}" for name, value in facts.items())

    def _usage(self) -> str:
        return "" if self.server.kind == "text" else self.toolbox.usage().removeprefix("No tool was called. ")


def _text(value: Any) -> str:
    """A text as it is, an MCP result as its texts, anything else in JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        texts = [
            part["text"] for part in value["content"] if isinstance(part, dict) and isinstance(part.get("text"), str)
        ]
        if texts:
            return "\n".join(texts)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _told(answer: JsonObject) -> str:
    data = answer["data"]
    return f"{data.get('code', answer['type'])}: {clip(str(data.get('message', data)), 300)}"


def _tools(base: str) -> tuple[ToolSpec, ...]:
    """The MCP tools of a server."""
    listed = _ask(f"{base}/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}})
    return tuple(
        ToolSpec(
            name=tool["name"],
            description=tool.get("description") or "",
            parameters=tool.get("inputSchema") or tool.get("input_schema") or {"type": "object"},
        )
        for tool in listed.get("result", {}).get("tools", [])
    )


def _ask(url: str, body: JsonObject | None = None) -> JsonObject:
    """A JSON object over HTTP. Raises UnknownEnvironment."""
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"accept": "application/json", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=ASKING) as answer:
            value = json.load(answer)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise UnknownEnvironment(f"there is no OpenEnv server at {url}: {why}") from error
    if not isinstance(value, dict):
        raise UnknownEnvironment(f"{url} answered with no JSON object: this is no OpenEnv server")
    return value
