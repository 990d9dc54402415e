"""MCP servers as environments: over stdio and HTTP, with what can go wrong in them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import held, listens
from waiting import until

pytest.importorskip("mcp")

from turnwise_envs import Action, Environment, EnvironmentFault, ToolCall, UnknownEnvironment, registry
from turnwise_envs.episode import LiveEpisode

TOY = Path(__file__).with_name("mcp_toy.py")
COMMAND = shlex.join([sys.executable, str(TOY)])
TASKS = '{"instruction": "What is 17 + 25?", "answers": ["42"], "calls": [{"name": "add", "arguments": {"a": 17, "b": 25}}]}'


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    (tmp_path / "tasks.jsonl").write_text(TASKS)
    return str(tmp_path / "tasks.jsonl")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> type[Environment]:
    path = tmp_path_factory.mktemp("toy") / "tasks.jsonl"
    path.write_text(TASKS)
    return registry.load("mcp:toy", {"command": COMMAND, "tasks": str(path), "timeout": "10", "max_chars": "100"})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    holder = held()
    port = holder.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(TOY), str(port)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port))
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def act(*calls: tuple[str, dict[str, Any]]) -> Action:
    return Action(
        tool_calls=[ToolCall(id=f"c0_{n}", name=name, arguments=given) for n, (name, given) in enumerate(calls)]
    )


async def test_the_expert_makes_the_calls_and_answers(toy: type[Environment]) -> None:
    assert (toy.spec.id, toy.spec.deterministic, toy.spec.stateless_tools) == ("mcp:toy", False, False)
    assert [one.name for one in toy.spec.tools][:2] == ["add", "note"]
    episode = await LiveEpisode.start(toy, "train", 0)
    while not episode.done:
        action = episode.env.expert_action()
        assert action is not None
        await episode.step(action)
    await episode.close()
    assert [record.result.observation.text for record in episode.records] == ["42", "The answer was taken."]
    assert (episode.records[-1].result.reward, episode.records[-1].result.info.end) == (1.0, "solved")


async def test_what_a_policy_may_do(toy: type[Environment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "sesame")
    episode = await LiveEpisode.start(toy, "train", 0)
    result = await episode.step(
        act(
            ("fail", {}),
            ("add", {"a": "one", "b": 2}),
            ("long", {"n": 1000}),
            ("picture", {}),
            ("variable", {"name": "SECRET_OF_OURS"}),
            ("variable", {"name": "PATH"}),
            ("note", {"text": "a"}),
            ("note", {"text": "b"}),
            ("sleep", {"seconds": 60}),
        )
    )
    said = [message.content for message in result.observation.messages]
    assert said[0] == "the stars are wrong"
    assert said[1].startswith("Wrong arguments: a: 'one' is not of type 'integer'.")
    assert said[2] == "x" * 100 + "… (900 characters left out)"
    assert said[3] == "[image image/png]"
    assert said[4] == "not set"
    assert said[5].startswith(os.environ["PATH"][:50])
    assert said[6:] == ["1 notes", "2 notes", "sleep took longer than 10 s and was given up."]
    await episode.close()
    other = await LiveEpisode.start(toy, "train", 0)  # another session is another process
    assert (await other.step(act(("note", {"text": "c"})))).observation.text == "1 notes"
    await other.close()


async def test_a_call_that_failed_was_not_made(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"instruction": "Try.", "calls": [{"name": "fail"}]}')
    env = registry.load("mcp:toy", {"command": COMMAND, "tasks": str(tmp_path / "tasks.jsonl"), "only": "fail"})
    episode = await LiveEpisode.start(env, "train", 0)
    tried = await episode.step(act(("fail", {})))
    assert (tried.info.action_valid, tried.info.action_effective) == (True, False)
    told = await episode.step(act(("answer", {"answer": "done"})))
    await episode.close()
    assert (told.reward, told.info.metrics, told.info.end) == (0.0, {"calls_made": 0.0}, "failed")


async def test_a_server_that_dies_is_a_fault(toy: type[Environment]) -> None:
    episode = await LiveEpisode.start(toy, "train", 0)
    with pytest.raises(EnvironmentFault, match="it has ended; its last words: killed by a tool"):
        await episode.step(act(("die", {})))
    with pytest.raises(EnvironmentFault, match="it has ended"):
        await episode.step(act(("add", {"a": 1, "b": 1})))
    await episode.close()


async def test_each_episode_has_its_own_folder(tasks: str, tmp_path: Path) -> None:
    folder = tmp_path / "start"
    folder.mkdir()
    (folder / "given.txt").write_text("here")
    made = registry.load("mcp", {"command": COMMAND, "tasks": tasks, "folder": str(folder), "only": "write,files"})
    assert [one.name for one in made.spec.tools] == ["write", "files", "answer"]
    one, other = [await LiveEpisode.start(made, "train", 0) for _ in range(2)]
    written = await one.step(act(("write", {"path": "/world/new.txt", "text": "x"}), ("files", {})))
    assert [message.content for message in written.observation.messages] == [
        "wrote /world/new.txt",
        "given.txt new.txt",
    ]
    assert (await other.step(act(("files", {})))).observation.text == "given.txt"
    await one.close()
    await other.close()
    assert [path.name for path in folder.iterdir()] == ["given.txt"]


async def test_over_http(url: str, tasks: str) -> None:
    made = registry.load("mcp:far", {"url": url, "tasks": tasks, "stateless": "true"})
    assert made.spec.stateless_tools
    episode = await LiveEpisode.start(made, "train", 0)
    said = await episode.step(act(("add", {"a": 17, "b": 25}), ("fail", {}), ("answer", {"answer": "42"})))
    assert said.reward == 1.0
    assert said.observation.messages[1].content == "Error executing tool fail"
    await episode.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give either --command"),
        ({"command": "x", "url": "http://h/mcp"}, "give either --command"),
        ({"command": "no-such-program --now"}, "there is no program no-such-program"),
        ({"command": "'"}, "No closing quotation"),
        ({"url": "ftp://h"}, "is no http address"),
        ({"url": "http://127.0.0.1:9/mcp"}, "MCP server http://127.0.0.1:9/mcp: ConnectError"),
        ({"command": "true"}, "MCP server true: "),
        ({"command": "true", "env": "NO_SUCH_VARIABLE"}, "environment variable NO_SUCH_VARIABLE is not set"),
        ({"command": "true", "folder": "/no/such"}, "is no folder"),
        ({"url": "http://h/mcp", "header": "Authorization: Bearer abc"}, "must name an environment variable"),
        ({"command": COMMAND, "only": "add,wipe"}, "--only wipe: no such tool; there are: add, note"),
    ],
)
def test_arguments_that_make_no_sense(tasks: str, arguments: dict[str, str], words: str) -> None:
    with pytest.raises(UnknownEnvironment, match=words):
        registry.load("mcp", {"tasks": tasks, **arguments})


def test_bad_tasks_are_told_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"instruction": "x"}')
    with pytest.raises(UnknownEnvironment, match="line 1: needs answers"):
        registry.load("mcp", {"command": COMMAND, "tasks": str(tmp_path / "tasks.jsonl")})
