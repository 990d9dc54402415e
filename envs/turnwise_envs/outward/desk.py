"""Episodes behind tool calls: what any environment is to a client that knows nothing but tools.

``start_episode`` gives the prompt of a task; then the client acts, with the environment's own tools, or with ``act``
where it takes text; ``finish_episode`` scores the state as it is. Without handles there is one episode at a time, the
one that was started last. With handles, for several clients at a time, ``start_episode`` gives the episode a name,
which the other tools take as ``episode``.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.errors import TurnwiseError
from turnwise_envs.tools_api import Toolbox
from turnwise_envs.types import Action, JsonObject, StepResult, ToolCall, ToolSpec

START, ACT, FINISH = "start_episode", "act", "finish_episode"
HANDLE = "episode"
#: Episodes that are kept at a time; one more, and the one that was not used for the longest time is closed.
MAX_EPISODES = 256


@dataclass(frozen=True)
class Told:
    """What a call gave. ``facts`` (reward, end, hash) are for the client and not for the model."""

    text: str
    wrong: bool = False
    facts: JsonObject = field(default_factory=dict)


@dataclass
class _Seat:
    episode: LiveEpisode
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Desk:
    """Plays episodes of one environment. Raises ValueError if a tool of its own has a name that is needed here."""

    def __init__(self, env_class: type[Environment], *, handles: bool) -> None:
        self.env_class = env_class
        self.tools = _tools(env_class, handles)
        self._handles = handles
        self._box = Toolbox(self.tools)
        self._seats: dict[str, _Seat] = {}

    async def call(self, name: str, arguments: JsonObject) -> Told:
        """Do what a client asks. Never raises for what it asks wrongly, nor for a fault of the environment."""
        problem = self._box.problem(ToolCall(id="c", name=name, arguments=arguments))
        if problem is not None and name in (START, FINISH, ACT):
            return Told(problem, wrong=True)  # mistakes in the environment's own tools are for it to answer
        try:
            if name == START:
                return await self._start(**arguments)
            given = dict(arguments)
            handle = str(given.pop(HANDLE, "")) if self._handles else ""
            seat = self._seats.get(handle)
            if seat is None:
                there = f"no episode {handle!r}" if handle else "no episode"
                return Told(f"There is {there}: call {START} first.", wrong=True)
            self._seats[handle] = self._seats.pop(handle)  # the last one is the one that was used last
            async with seat.lock:
                return await self._go_on(seat.episode, name, given)
        except TurnwiseError as error:
            return Told(f"{type(error).__name__}: {error}", wrong=True)

    async def close(self) -> None:
        """Close all episodes."""
        for handle in list(self._seats):
            await self._drop(handle)

    async def _start(
        self, split: str | None = None, index: int = 0, seed: int = 0, options: JsonObject | None = None
    ) -> Told:
        wanted = split or self.env_class.spec.splits[0].name
        episode = await LiveEpisode.start(self.env_class, wanted, index, seed, options)
        handle = secrets.token_hex(8) if self._handles else ""
        if handle in self._seats or len(self._seats) >= MAX_EPISODES:
            await self._drop(next(iter(self._seats)))
        self._seats[handle] = _Seat(episode)
        named = f"\n\n[This is episode {handle}.]" if handle else ""
        facts = {"task": episode.task.id, "max_turns": episode.max_turns, "log_hash": episode.log_hash}
        return Told(episode.initial.text + named, facts=facts | ({HANDLE: handle} if handle else {}))

    async def _go_on(self, episode: LiveEpisode, name: str, given: JsonObject) -> Told:
        if episode.done:
            return Told(f"The episode has ended: call {START} for another.", wrong=True)
        if name == FINISH:
            return _told(episode, await episode.finish(given["reason"]))
        if name == ACT and not self.env_class.spec.tools:
            return _told(episode, await episode.step(Action(text=given["text"])))
        call = ToolCall(id=f"c{episode.turn}_0", name=name, arguments=given)
        return _told(episode, await episode.step(Action(tool_calls=[call])))

    async def _drop(self, handle: str) -> None:
        seat = self._seats.pop(handle)
        async with seat.lock:
            await seat.episode.close()


def _tools(env_class: type[Environment], handles: bool) -> list[ToolSpec]:
    spec = env_class.spec
    sizes = ", ".join(f"{one.name} ({'unbounded' if one.size is None else one.size})" for one in spec.splits)
    start = _tool(
        START,
        f"Begin an episode of {spec.id}: {spec.description} Splits and their sizes: {sizes}.",
        {
            "split": {"enum": [one.name for one in spec.splits]},
            "index": {"type": "integer", "minimum": 0, "description": "Which task of the split."},
            "seed": {"type": "integer", "description": "Drives whatever is random after the start."},
            "options": spec.options_schema,
        },
    )
    acting = list(spec.tools) or [
        _tool(ACT, f"Act in {spec.id}: say what you do.", {"text": {"type": "string"}}, required=["text"])
    ]
    finish = _tool(FINISH, "End the episode; it is scored as it is.", {"reason": _REASON}, required=["reason"])
    for tool in spec.tools:
        if tool.name in (START, FINISH) or (handles and HANDLE in tool.parameters.get("properties", {})):
            raise ValueError(f"{spec.id} has a tool {tool.name!r} whose name, or argument {HANDLE!r}, is needed here")
    return [start, *(_with_handle(one) if handles else one for one in [*acting, finish])]


_REASON = {"type": "string", "minLength": 1, "maxLength": 200}


def _tool(name: str, description: str, properties: JsonObject, required: list[str] | None = None) -> ToolSpec:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return ToolSpec(
        name=name, description=description, parameters=schema | ({"required": required} if required else {})
    )


def _with_handle(tool: ToolSpec) -> ToolSpec:
    schema = tool.parameters
    properties = {HANDLE: {"type": "string", "description": f"As {START} named it."}, **schema.get("properties", {})}
    required = [HANDLE, *schema.get("required", [])]
    return tool.model_copy(update={"parameters": {**schema, "properties": properties, "required": required}})


def _told(episode: LiveEpisode, result: StepResult) -> Told:
    ended = f"\n\n[The episode has ended: {result.info.end or 'over'}.]" if result.done else ""
    facts = {
        "turn": episode.turn,
        "reward": result.reward,
        "terminated": result.terminated,
        "truncated": result.truncated,
        "info": result.info.model_dump(),
        "log_hash": episode.log_hash,
    }
    return Told(result.observation.text + ended, wrong=not result.info.action_valid, facts=facts)
