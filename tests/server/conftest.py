"""Fixtures: a server over ASGI, and a thin client that knows the protocol's paths."""

from __future__ import annotations

import re
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

sys.path.insert(0, str(Path(__file__).parent))  # the toys are also loaded by import path, in real servers

import toy_environments as toys
from live_server import TOKENS, bearer

from turnwise_server.app import create_app
from turnwise_server.settings import Settings


class Api:
    """Calls by name; each returns the httpx response."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient) -> None:
        self.app = app
        self.http = http

    async def create(self, env: str = "guess", headers=None, **fields) -> httpx.Response:
        return await self.http.post("/v1/sessions", json={"env": env, **fields}, headers=headers)

    async def open(self, env: str = "guess", headers=None, **fields) -> str:
        answer = await self.create(env, headers, **fields)
        assert answer.status_code == 201, answer.text
        return answer.json()["session_id"]

    async def step(self, sid: str, turn: int, text: str = "", headers=None) -> httpx.Response:
        body = {"turn": turn, "action": {"text": text}}
        return await self.http.post(f"/v1/sessions/{sid}/step", json=body, headers=headers)

    async def finish(self, sid: str, turn: int, reason: str = "enough") -> httpx.Response:
        return await self.http.post(f"/v1/sessions/{sid}/finish", json={"turn": turn, "reason": reason})

    async def fork(self, sid: str, key: str = "k", headers=None, **fields) -> httpx.Response:
        return await self.http.post(f"/v1/sessions/{sid}/fork", json={"key": key, **fields}, headers=headers)

    async def get(self, sid: str, what: str = "", headers=None) -> httpx.Response:
        return await self.http.get(f"/v1/sessions/{sid}{what}", headers=headers)

    async def delete(self, sid: str, headers=None) -> httpx.Response:
        return await self.http.delete(f"/v1/sessions/{sid}", headers=headers)


async def _is_documented(app: FastAPI, response: httpx.Response) -> None:
    """Every answer in these tests is one that OpenAPI promises for its route."""
    await response.aread()
    for template, methods in app.openapi()["paths"].items():
        operation = methods.get(response.request.method.lower())
        if operation and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), response.request.url.path):
            documented = operation["responses"][str(response.status_code)]
            if response.status_code >= 400:
                assert response.json()["type"].removeprefix("urn:turnwise:") in documented["description"]
                assert "application/problem+json" in documented["content"]


@pytest.fixture
async def serve():
    """``await serve(envs, **settings)`` starts a server in this process and returns its :class:`Api`."""
    async with AsyncExitStack() as stack:

        async def start(envs=toys.ALL, **settings) -> Api:
            app = create_app(envs, Settings(**settings), TOKENS)
            await stack.enter_async_context(app.router.lifespan_context(app))
            http = httpx.AsyncClient(
                transport=httpx.ASGITransport(app, raise_app_exceptions=False),
                base_url="http://127.0.0.1:8000",
                event_hooks={"response": [lambda response: _is_documented(app, response)]},
            )
            return Api(app, await stack.enter_async_context(http))

        yield start


@pytest.fixture
async def api(serve) -> Api:
    return await serve()


@pytest.fixture
def refusal():
    """``refusal(response, "turn-ahead")`` checks an RFC 9457 answer and returns its detail."""
    from turnwise_envs.wire import PROBLEMS, Problem

    def check(response: httpx.Response, problem: str) -> str:
        assert response.headers["content-type"] == "application/problem+json", response.text
        assert response.headers["x-turnwise-protocol"] == "1"
        body = Problem.model_validate(response.json())
        assert body.type == f"urn:turnwise:{problem}", response.text
        assert body.status == response.status_code == PROBLEMS[problem]
        assert body.instance == response.url.path
        assert "\n" not in body.detail
        return body.detail

    return check


class Gate:
    """Steps of the environment ``slow`` whose action is ``text`` have begun and not ended until it is opened."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.text = f"until {file}"

    def open(self) -> None:
        self._file.touch()


@pytest.fixture
def gate(tmp_path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def as_user():
    """``as_user("ann")``: the headers of her token."""
    return bearer
