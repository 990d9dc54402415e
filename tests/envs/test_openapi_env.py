"""OpenAPI services as environments, against a real FastAPI application."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

sys.path.insert(0, str(Path(__file__).parent))

import uvicorn
from openapi_toy import app

from turnwise_envs import Action, Environment, EnvironmentFault, ToolCall, UnknownEnvironment, registry
from turnwise_envs.check import check_env
from turnwise_envs.episode import LiveEpisode

TASK = {
    "instruction": "When was Dune published?",
    "answers": ["1965"],
    "calls": [{"name": "get_book", "arguments": {"key": "dune"}}],
}


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    (tmp_path / "tasks.jsonl").write_text(json.dumps(TASK))
    return str(tmp_path / "tasks.jsonl")


@pytest.fixture
def library(service: str, tasks: str, monkeypatch: pytest.MonkeyPatch) -> type[Environment]:
    monkeypatch.setenv("LIBRARY_TOKEN", "open-sesame-42")
    return registry.load(
        "openapi:library",
        {
            "spec": f"{service}/openapi.json",
            "tasks": tasks,
            "header": "Authorization: Bearer $LIBRARY_TOKEN",
            "timeout": "10",
            "max_chars": "300",
        },
    )


async def said(library: type[Environment], name: str, **arguments: Any) -> str:
    episode = await LiveEpisode.start(library, "train", 0)
    try:
        result = await episode.step(Action(tool_calls=[ToolCall(id="c0_0", name=name, arguments=arguments)]))
        return result.observation.text
    finally:
        await episode.close()


async def test_the_expert_looks_it_up(library: type[Environment]) -> None:
    assert (library.spec.id, library.spec.description, library.spec.deterministic) == (
        "openapi:library",
        "Library",
        False,
    )
    episode = await LiveEpisode.start(library, "train", 0)
    while not episode.done:
        action = episode.env.expert_action()
        assert action is not None
        await episode.step(action)
    await episode.close()
    assert json.loads(episode.records[0].result.observation.text) == {"title": "Dune", "year": 1965}
    assert episode.records[-1].result.reward == 1.0


async def test_a_call_that_was_refused_was_not_made(service: str, tmp_path: Path) -> None:
    wanted = {"instruction": "Find it.", "calls": [{"name": "get_book", "arguments": {"key": "lost"}}]}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(wanted))
    lost = registry.load("openapi", {"spec": f"{service}/openapi.json", "tasks": str(tmp_path / "tasks.jsonl")})
    episode = await LiveEpisode.start(lost, "train", 0)
    for name, arguments in (("get_book", {"key": "lost"}), ("answer", {"answer": "done"})):
        last = await episode.step(Action(tool_calls=[ToolCall(id="c0_0", name=name, arguments=arguments)]))
    await episode.close()
    assert not episode.records[0].result.info.action_effective
    assert (last.reward, last.info.metrics) == (0.0, {"calls_made": 0.0})


def test_operations_are_tools(library: type[Environment]) -> None:
    tools = {one.name: one for one in library.spec.tools}
    assert list(tools)[:3] == ["list_books", "clear", "get_book"]
    assert tools["get_book"].description == "One book\nBy its key."
    note = tools["add_note"].parameters
    assert note["required"] == ["key", "body"]
    assert set(note["properties"]) == {"key", "x-reader", "body"}
    assert note["properties"]["body"] == {"$ref": "#/$defs/Note"}
    assert note["$defs"]["Note"]["properties"]["replies"]["items"] == {"$ref": "#/$defs/Note"}


async def test_arguments_arrive_as_they_were_given(library: type[Environment]) -> None:
    listed = json.loads(await said(library, "list_books", tag=["a&b", "ü ö"], after=1990))
    assert listed == {"keys": ["a/b c?"], "tag": ["a&b", "ü ö"]}
    assert json.loads(await said(library, "get_book", key="a/b c?")) == {"title": "Odd & even", "year": 2000}
    body = {"text": "good", "replies": [{"text": "no", "stars": 1, "replies": []}]}
    made = json.loads(await said(library, "add_note", key="k%2F", body=body, **{"x-reader": "Ada"}))
    assert made == {"key": "k%2F", "note": {"text": "good", "stars": 3, "replies": body["replies"]}, "reader": "Ada"}
    assert await said(library, "clear") == "HTTP 204 No Content"


async def test_what_goes_wrong_is_said(library: type[Environment]) -> None:
    assert await said(library, "get_book", key="emma") == "HTTP 404 Not Found: " + '{"detail":"no book \'emma\'"}'
    assert await said(library, "get_book", key="..") == "key: '..' cannot be a part of an address."
    assert await said(library, "get_book", key="") == "key: '' cannot be a part of an address."
    assert "printable ASCII" in await said(library, "add_note", key="k", body={"text": ""}, **{"x-reader": "a\r\nb: c"})
    wrong = await said(library, "add_note", key="k", body={"text": 5})
    assert wrong.startswith("Wrong arguments: body/text: 5 is not of type 'string'. It is add_note(key: string")
    assert await said(library, "slow") == "slow took longer than 10 s and was given up."
    assert await said(library, "picture") == "[image/png, 4 bytes]"
    assert await said(library, "big") == "x" * 300 + "… (1048276 characters left out)"  # of the 1 MiB that is read


async def test_redirects_stay_on_the_host(library: type[Environment]) -> None:
    assert json.loads(await said(library, "go_here"))["keys"] == ["a/b c?"]
    assert await said(library, "go_there") == "HTTP 302 Found"


async def test_the_secret_is_sent_and_never_shown(library: type[Environment]) -> None:
    heard = json.loads(await said(library, "whoami"))
    assert heard["authorization"] == "Bearer [hidden]"
    assert "sesame" not in repr(vars(library)) + repr(library.made_by)


async def test_a_service_that_is_gone_is_a_fault(service: str, tasks: str) -> None:
    made = registry.load(
        "openapi", {"spec": f"{service}/openapi.json", "tasks": tasks, "base_url": "http://127.0.0.1:9"}
    )
    episode = await LiveEpisode.start(made, "train", 0)
    with pytest.raises(EnvironmentFault, match=r"http://127\.0\.0\.1:9 cannot be reached: ConnectError"):
        await episode.step(Action(tool_calls=[ToolCall(id="c0_0", name="clear", arguments={})]))
    await episode.close()


@pytest.mark.slow
async def test_the_checks(service: str, tasks: str) -> None:
    given = {"spec": f"{service}/openapi.json", "tasks": tasks, "only": "list_books,get_book", "deterministic": "true"}
    report = await asyncio.to_thread(check_env, registry.load("openapi", given), episodes=1)
    assert report.ok, report


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"swagger": "2.0"}', "it is no OpenAPI 3 document .openapi: 2.0."),
        ("[1]", "it is no OpenAPI 3 document"),
        ("a: [", "is neither JSON nor YAML"),
        ('{"openapi": "3.1.0", "paths": {}}', "none of its operations can be a tool"),
        (
            '{"openapi": "3.1.0", "paths": {"/a": {"get": {"parameters": [{"$ref": "#/components/parameters/x"}]}}}}',
            "it refers to #/components/parameters/x, which is not in it",
        ),
        ('{"openapi": "3.1.0", "paths": {"/a": {"get": {}}}}', "does not say where the service is: give --base-url"),
    ],
)
def test_documents_that_make_no_sense(tmp_path: Path, tasks: str, document: str, words: str) -> None:
    (tmp_path / "spec.json").write_text(document)
    with pytest.raises(UnknownEnvironment, match=words):
        registry.load("openapi", {"spec": str(tmp_path / "spec.json"), "tasks": tasks})


def test_a_yaml_document_of_3_0(tmp_path: Path, tasks: str) -> None:
    (tmp_path / "spec.yaml").write_text(
        """
openapi: 3.0.3
servers: [{url: https://api.example/v2/}]
paths:
  /items/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: integer, minimum: 0, exclusiveMinimum: true}}]
    get:
      parameters:
        - {name: filter, in: query, style: deepObject, schema: {type: object, nullable: true}}
        - {name: ids, in: query, explode: false, schema: {type: array, items: {type: integer}}}
    post:
      requestBody: {required: true, content: {multipart/form-data: {schema: {type: object}}}}
    delete:
      parameters: [{name: session, in: cookie, required: true, schema: {type: string}}]
"""
    )
    made = registry.load("openapi", {"spec": str(tmp_path / "spec.yaml"), "tasks": tasks})
    (tool, answer) = made.spec.tools
    assert (tool.name, answer.name, made.base_url) == ("get_items_id", "answer", "https://api.example/v2")
    assert tool.parameters["properties"] == {
        "id": {"type": "integer", "exclusiveMinimum": 0},
        "filter": {"anyOf": [{"type": "object"}, {"type": "null"}]},
        "ids": {"type": "array", "items": {"type": "integer"}},
    }
    request = made.operations["get_items_id"].request({"id": 7, "filter": {"a b": 1, "c": True}, "ids": [1, 2]})
    assert request.path == "/items/7?filter%5Ba+b%5D=1&filter%5Bc%5D=true&ids=1%2C2"
