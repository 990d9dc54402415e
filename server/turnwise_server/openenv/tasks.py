"""OpenEnv's Task API: the tasks of an environment, from its task set."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import Request, Response
from pydantic import Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from turnwise_envs.environment import Environment
from turnwise_envs.errors import UnknownTask
from turnwise_envs.types import JsonObject, Noun
from turnwise_server.bodies import parse, read_bytes

B = TypeVar("B", bound=Noun)

#: Tasks in one answer. A longer split is read in ranges.
MOST = 10_000
#: Kinds of split that the API knows; it asks for one of them.
KINDS = ("train", "validation", "test")
#: Beyond 2^53 JSON's integers are not safe, and beyond 2^63 a range has no length.
Index = Annotated[int, Field(ge=-(2**53), le=2**53)]


class SplitBody(Noun):
    split: str


class TaskBody(SplitBody):
    index: Index


class RangeBody(SplitBody):
    """Like a slice: negative numbers count from the end."""

    start: Index | None = None
    stop: Index | None = None


class Tasks:
    """The routes of one environment that are about its tasks."""

    def __init__(self, env_class: type[Environment]) -> None:
        self._env_class = env_class

    async def list_environments(self, request: Request) -> Response:
        return said([self._env_class.spec.id])

    async def splits(self, request: Request) -> Response:
        self._check(request)
        names = [split.name for split in self._env_class.spec.splits]
        return said([{"name": name, "type": name if name in KINDS else "validation"} for name in names])

    async def tasks(self, request: Request) -> Response:
        """All tasks of a split."""
        body = await self._body(request, SplitBody)
        size = self._bounded(body.split)
        if size > MOST:
            raise HTTPException(HTTPStatus.NOT_IMPLEMENTED, f"{size} tasks are too many for one answer; use task_range")
        return said({"tasks": await self._read(body.split, range(size)), "env_name": self._env_class.spec.id})

    async def num_tasks(self, request: Request) -> Response:
        body = await self._body(request, SplitBody)
        return said({"num_tasks": self._bounded(body.split)})

    async def task(self, request: Request) -> Response:
        body = await self._body(request, TaskBody)
        [task] = await self._read(body.split, range(body.index, body.index + 1))
        return said({"task": task})

    async def task_range(self, request: Request) -> Response:
        body = await self._body(request, RangeBody)
        size = self._size(body.split)
        bounded = size is not None or (body.stop is not None and min(body.stop, body.start or 0) >= 0)
        if not bounded:
            raise HTTPException(HTTPStatus.NOT_IMPLEMENTED, f"split {body.split!r} has no end; give start and stop")
        chosen = range(*slice(body.start, body.stop).indices(size if size is not None else body.stop or 0))
        if len(chosen) > MOST:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"{len(chosen)} tasks are too many for one answer: {MOST}")
        return said({"tasks": await self._read(body.split, chosen)})

    def _check(self, request: Request) -> None:
        request.state.caller.require("act")
        asked = request.path_params["env"]
        if asked.lower() != self._env_class.spec.id.lower():
            raise HTTPException(HTTPStatus.NOT_FOUND, f"unknown environment {asked!r}")

    async def _body(self, request: Request, model: type[B]) -> B:
        self._check(request)
        return parse(model, await read_bytes(request, request.app.state.settings.max_body))

    def _size(self, split: str) -> int | None:
        try:
            return self._env_class.tasks.size(split)
        except UnknownTask as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _bounded(self, split: str) -> int:
        size = self._size(split)
        if size is None:
            raise HTTPException(HTTPStatus.NOT_IMPLEMENTED, f"split {split!r} has no end")
        return size

    async def _read(self, split: str, indices: range) -> list[JsonObject]:
        tasks = []
        for index in indices:
            try:
                tasks.append(self._env_class.tasks.get(split, index).model_dump())
            except UnknownTask as error:
                raise HTTPException(HTTPStatus.BAD_REQUEST, f"Invalid task index: {error}") from error
            await asyncio.sleep(0)  # a task may take a millisecond to build: let others in between
        return tasks


def said(value: JsonObject | list[JsonObject] | list[str]) -> Response:
    return Response(to_json(value), media_type="application/json")
