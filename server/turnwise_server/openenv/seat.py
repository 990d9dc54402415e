"""A seat: what one socket of OpenEnv's holds. It has one episode at a time, and each is a session of ours."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, OrderedDict
from contextlib import suppress
from typing import Any, Self
from urllib.parse import quote

from pydantic_core import from_json

from turnwise_envs.environment import Environment
from turnwise_envs.errors import UnknownTask
from turnwise_envs.types import Action, EnvSpec, JsonObject
from turnwise_envs.wire import PROBLEM_URN, Call
from turnwise_server.dispatch import Carrier
from turnwise_server.openenv.frames import CODES, Failed, ResetData, observed, tools_of

#: Resets that are remembered: what the id of a seat's first session stands for by now.
MOVED = 16_384
#: Digits of an index, in an id: integers on the wire are below 2^53.
INDEX_DIGITS = 16


class Seats:
    """Which session each seat of a server holds. A seat is called by the id of its first one."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()  # by how many seats each session is
        self.leaving: set[asyncio.Future[None]] = set()
        self._moved: OrderedDict[str, str] = OrderedDict()

    def current(self, name: str) -> str:
        """The session that the seat called ``name`` holds now."""
        return self._moved.get(name, name)

    def move(self, name: str, session_id: str) -> None:
        self._moved[name] = session_id
        self._moved.move_to_end(name)
        while len(self._moved) > MOVED:
            self._moved.popitem(last=False)

    def forget(self, name: str) -> None:
        self._moved.pop(name, None)


class Seat:
    """One client's place at an environment. Every method raises Failed for what the client should be told.

    A context manager: whoever leaves it holds no session any more, and the session goes on as it is.
    """

    def __init__(self, env_class: type[Environment], carrier: Carrier, seats: Seats) -> None:
        self._env_class = env_class
        self._carrier = carrier
        self._seats = seats
        self.name: str | None = None
        self._session: JsonObject | None = None  # a SessionView, at the current turn
        self._episode_id: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hold(None)

    @property
    def spec(self) -> EnvSpec:
        return self._env_class.spec

    async def attach(self, name: str) -> None:
        """Take the seat called ``name``, which must be one's own."""
        session = await self._call("GET", f"/v1/sessions/{quote(self._seats.current(name), safe='')}")
        if session["env"] != self.spec.id:
            raise Failed("SESSION_ERROR", f"session {name} is one of {session['env']}, not of {self.spec.id}")
        self.name = name
        self._hold(session)

    async def reset(self, data: ResetData) -> JsonObject:
        """A new episode. The one before is given up unless it has ended."""
        seed = data.seed
        if seed is None:
            seed = secrets.randbelow(2**31)
        split, index = self._task(data, seed)
        await self._give_up()
        body = {"env": self.spec.id, "split": split, "index": index, "seed": seed, "options": data.options}
        session = await self._call("POST", "/v1/sessions", body)
        if self.name is None:
            self.name = session["session_id"]
        else:
            self._seats.move(self.name, session["session_id"])
        self._hold(session)
        self._episode_id = data.episode_id
        metadata = self._metadata() | {"seed": seed, "tools": tools_of(self.spec) if self.spec.tools else []}
        return observed(session["observation"], None, False, metadata)

    async def step(self, action: Action) -> JsonObject:
        """Take one action."""
        session = self._held()
        body = {"turn": session["turn"], "action": action.model_dump()}
        try:
            view = await self._call("POST", f"/v1/sessions/{session['session_id']}/step", body)
        except Failed as error:
            if error.more.get("problem") in ("turn-conflict", "turn-ahead"):
                session.update(await self._call("GET", f"/v1/sessions/{session['session_id']}"))
            raise
        session.update((key, view[key]) for key in ("turn", "observation", "status", "log_hash"))
        done = view["terminated"] or view["truncated"]
        metadata = self._metadata() | {key: view[key] for key in ("terminated", "truncated", "info")}
        return observed(view["observation"], float(view["reward"]), done, metadata)

    def list_tools(self) -> JsonObject:
        """The answer to a step that only asks for the tools: no turn is taken."""
        tools = [
            {"name": tool["name"], "description": tool["description"], "input_schema": tool["inputSchema"]}
            for tool in tools_of(self.spec)
        ]
        return {"observation": {"tools": tools, "metadata": {}}, "reward": None, "done": False}

    async def state(self) -> JsonObject:
        """Where the episode is by now: another client may have gone on with it, or its time may be over (Failed)."""
        session = self._session or {}
        if session:
            session.update(await self._call("GET", f"/v1/sessions/{session['session_id']}"))
        return {
            "episode_id": self._episode_id or session.get("session_id"),
            "step_count": session.get("turn", 0),
            "session_id": session.get("session_id"),
            "env": self.spec.id,
            "task": session.get("task"),
            "status": session.get("status"),
            "log_hash": session.get("log_hash"),
        }

    @property
    def turn(self) -> int:
        """Raises Failed before the first reset."""
        return int(self._held()["turn"])

    async def keep(self) -> None:
        """Somebody sits here, even if nothing happens: the session is not idle."""
        if self._session is not None:
            await self._call("GET", f"/v1/sessions/{self._session['session_id']}")

    async def leave(self) -> None:
        """Give up the seat, and its episode if that has not ended."""
        await self._give_up()
        if self.name is not None:
            self._seats.forget(self.name)

    def leave_later(self, grace: float | None) -> None:
        """The client was cut off and may come back. After ``grace`` seconds the seat is given up unless somebody has
        taken it; without a grace it stays, for its session rests when nobody asks for it."""
        session = self._session
        self._hold(None)
        if session is not None and grace is not None:
            asyncio.get_running_loop().call_later(grace, self._give_up_abandoned, session)

    async def close(self, name: str) -> None:
        """Give up the seat called ``name``, whoever has it."""
        session = await self._call("GET", f"/v1/sessions/{quote(self._seats.current(name), safe='')}")
        if session["status"] == "live":
            await self._call("DELETE", f"/v1/sessions/{session['session_id']}")
        self._seats.forget(name)

    @property
    def taken(self) -> bool:
        """There is an episode."""
        return self._session is not None

    def _hold(self, session: JsonObject | None) -> None:
        """This seat holds ``session`` and no other."""
        held = self._seats.held
        if self._session is not None:
            held[self._session["session_id"]] -= 1
            held += Counter()  # what nobody holds takes no room
        if session is not None:
            held[session["session_id"]] += 1
        self._session = session

    async def _give_up(self) -> None:
        """Let go of the session, and end it if nothing else has. After a failure it is still held, to be tried again."""
        session = self._session
        if session is not None and session["status"] == "live":
            await self._end(session["session_id"])
        self._hold(None)

    def _give_up_abandoned(self, session: JsonObject) -> None:
        if not self._seats.held[session["session_id"]]:
            task = asyncio.ensure_future(self._end_quietly(session["session_id"]))
            self._seats.leaving.add(task)
            task.add_done_callback(self._seats.leaving.discard)

    async def _end_quietly(self, session_id: str) -> None:
        with suppress(Failed):
            await self._end(session_id)

    async def _end(self, session_id: str) -> None:
        """Delete a session that is live. One that another client finished, or that broke, keeps its history."""
        path = f"/v1/sessions/{session_id}"
        try:
            session = await self._call("GET", path)
            if session["status"] == "live":
                await self._call("DELETE", path)
        except Failed as error:
            if error.code != "SESSION_ERROR":  # which says that it is gone already
                raise

    def _held(self) -> JsonObject:
        if self._session is None:
            raise Failed(
                "EXECUTION_ERROR",
                "there is no episode on this connection: reset first, or connect with ?session_id= to go on with one "
                "(it is in the metadata of every observation)",
            )
        return self._session

    def _task(self, data: ResetData, seed: int) -> tuple[str, int]:
        """Split and index. Raises Failed."""
        split, index = data.split or self.spec.splits[0].name, data.index
        if data.task_id is not None:
            env, _, rest = data.task_id.partition("/")
            named, _, number = rest.rpartition("/")
            if env != self.spec.id or not named or not number.isdecimal() or len(number) > INDEX_DIGITS:
                raise Failed("VALIDATION_ERROR", f"task_id: {data.task_id!r} is not like {self.spec.id}/{split}/0")
            if data.split not in (None, named) or data.index not in (None, int(number)):
                raise Failed("VALIDATION_ERROR", f"task_id: {data.task_id!r} contradicts split or index")
            split, index = named, int(number)
        if index is None:
            try:
                size = self._env_class.tasks.size(split)
            except UnknownTask as error:
                raise Failed("VALIDATION_ERROR", str(error)) from error
            index = seed % size if size else abs(seed)  # of an empty split, none: the create says so
        return split, index

    def _metadata(self) -> JsonObject:
        session = self._held()
        return {
            "session_id": session["session_id"],
            "task_id": session["task"]["id"],
            "turn": session["turn"],
            "status": session["status"],
            "log_hash": session["log_hash"],
        }

    async def _call(self, method: str, path: str, body: JsonObject | None = None) -> Any:
        """What the v1 protocol answers. Raises Failed for a refusal."""
        answer = await self._carrier.perform(Call(method=method, path=path, body=body))
        value: Any = from_json(answer.body) if answer.body else None
        if answer.status < 400:
            return value
        problem = value["type"].removeprefix(PROBLEM_URN)
        more = {"problem": problem} | {key: value[key] for key in ("retry_after",) if key in value}
        raise Failed(CODES.get(problem, "EXECUTION_ERROR"), f"{value['detail']} ({problem})", **more)
