"""Our environments as MCP servers, driven by the SDK's client: in process, over stdio, over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import held, listens
from waiting import until

pytest.importorskip("mcp")

import mcp
from mcp.client.stdio import StdioServerParameters

from turnwise_envs import load
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.household import Household
from turnwise_envs.outward.desk import MAX_EPISODES, Desk
from turnwise_envs.outward.mcp import META, EnvironmentServer
from turnwise_envs.plugins.functions import FunctionEnvironment, tool


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sums(FunctionEnvironment, id="sums", tools=[add], tasks=[{"instruction": "2 + 3?", "answers": ["5"]}]):
    """Sums."""


async def play_household(client: Any, **more: str) -> list[Any]:
    """The expert's commands through the client; all results."""
    begun = await client.call_tool("start_episode", {"split": "train", "index": 1})
    named = {"episode": begun.meta[META]["episode"]} if more else {}
    mirror = await LiveEpisode.start(Household, "train", 1)
    assert begun.content[0].text.startswith(mirror.initial.text)
    results = []
    while not mirror.done:
        action = mirror.env.expert_action()
        assert action is not None
        expected = await mirror.step(action)
        results.append(await client.call_tool("act", {"text": action.text, **named}))
        assert results[-1].content[0].text.startswith(expected.observation.text)
        assert results[-1].meta[META]["log_hash"] == mirror.log_hash
    return results


async def test_a_text_environment_in_process() -> None:
    async with mcp.Client(EnvironmentServer(Household, handles=False)) as client:
        assert [one.name for one in (await client.list_tools()).tools] == ["start_episode", "act", "finish_episode"]
        early = await client.call_tool("act", {"text": "look"})
        assert (early.is_error, early.content[0].text) == (True, "There is no episode: call start_episode first.")
        results = await play_household(client)
        last = results[-1]
        assert last.content[0].text.endswith("[The episode has ended: solved.]")
        assert (last.meta[META]["reward"], last.meta[META]["terminated"]) == (1.0, True)
        assert all("reward" not in one.content[0].text for one in results)
        after = await client.call_tool("act", {"text": "look"})
        assert after.content[0].text == "The episode has ended: call start_episode for another."


async def test_an_environment_of_tools_shows_its_own() -> None:
    async with mcp.Client(EnvironmentServer(Sums, handles=False)) as client:
        tools = {one.name: one for one in (await client.list_tools()).tools}
        assert list(tools) == ["start_episode", "add", "answer", "finish_episode"]
        assert tools["add"].input_schema == add.spec.parameters
        await client.call_tool("start_episode", {})
        assert (await client.call_tool("add", {"a": 2, "b": 3})).content[0].text == "5"
        wrong = await client.call_tool("add", {"a": "two"})
        assert wrong.is_error
        assert wrong.content[0].text.startswith("Wrong arguments: ")
        said = await client.call_tool("answer", {"answer": "5"})
        assert said.meta[META]["info"]["end"] == "solved"


async def test_several_episodes_by_name() -> None:
    async with mcp.Client(EnvironmentServer(Sums, handles=True)) as client:
        begun = [(await client.call_tool("start_episode", {})).meta[META]["episode"] for _ in range(2)]
        assert begun[0] != begun[1]
        await client.call_tool("answer", {"episode": begun[0], "answer": "5"})
        assert (await client.call_tool("add", {"episode": begun[1], "a": 1, "b": 1})).content[0].text == "2"
        unknown = await client.call_tool("add", {"episode": "e", "a": 1, "b": 1})
        assert unknown.content[0].text == "There is no episode 'e': call start_episode first."


async def test_mistakes_at_the_start_and_a_finish() -> None:
    desk = Desk(Household, handles=False)
    for arguments, words in [
        ({"split": "no"}, "Wrong arguments: split: 'no' is not one of"),
        ({"index": 10**9}, "UnknownTask: split 'train' of 'household' has tasks 0 to"),
        ({"options": {"max_turns": 0}}, "Wrong arguments: options/max_turns: 0 is less than the minimum of 1."),
    ]:
        told = await desk.call("start_episode", arguments)
        assert told.wrong
        assert told.text.startswith(words)
    await desk.call("start_episode", {"options": {"max_turns": 5}})
    told = await desk.call("finish_episode", {"reason": "tired"})
    assert (told.facts["truncated"], told.facts["info"]["end"]) == (True, "finished:tired")
    await desk.close()


async def test_the_oldest_episode_makes_room() -> None:
    desk = Desk(Sums, handles=True)
    names = [(await desk.call("start_episode", {})).facts["episode"] for _ in range(MAX_EPISODES + 1)]
    assert "There is no episode" in (await desk.call("add", {"episode": names[0], "a": 1, "b": 1})).text
    assert (await desk.call("add", {"episode": names[1], "a": 1, "b": 1})).text == "2"
    await desk.close()


def test_names_that_are_needed() -> None:
    @tool
    def start_episode() -> str:
        """Mine."""
        return ""

    class Clash(FunctionEnvironment, id="clash", tools=[start_episode], tasks=[{"instruction": "x", "answers": ["y"]}]):
        pass

    with pytest.raises(ValueError, match="clash has a tool 'start_episode' whose name"):
        Desk(Clash, handles=False)


async def test_the_command_over_stdio() -> None:
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "turnwise_envs", "mcp", "household"])
    async with mcp.Client(parameters) as client:
        assert (await play_household(client))[-1].meta[META]["reward"] == 1.0


@pytest.fixture
def port() -> Iterator[int]:
    """Of a household server over HTTP."""
    holder = held()
    port = holder.getsockname()[1]
    command = [sys.executable, "-m", "turnwise_envs", "mcp", "household", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(60)


async def test_the_command_over_http(port: int) -> None:
    async with mcp.Client(f"http://127.0.0.1:{port}/mcp") as client:
        assert (await play_household(client, by="name"))[-1].meta[META]["reward"] == 1.0


async def test_an_environment_of_ours_through_mcp_and_back(tmp_path: Path) -> None:
    """Our MCP server behind our MCP adapter: the one thing that both ends must agree on is the protocol."""
    (tmp_path / "tasks.jsonl").write_text(
        '{"instruction": "Look around.", "calls": [{"name": "start_episode"}, {"name": "act", "arguments": {"text": "look"}}]}'
    )
    made = load(
        "mcp:inside",
        {"command": f"{sys.executable} -m turnwise_envs mcp household", "tasks": str(tmp_path / "tasks.jsonl")},
    )
    episode = await LiveEpisode.start(made, "train", 0)
    while not episode.done:
        action = episode.env.expert_action()
        assert action is not None
        await episode.step(action)
    await episode.close()
    assert episode.records[-1].result.reward == 1.0
