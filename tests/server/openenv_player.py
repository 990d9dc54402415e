"""Run in a process of its own: OpenEnv's own client against our server. ``python openenv_player.py SCENARIO URL``.

Whoever imports its client imports its server too, and with that Gradio, FastMCP and more. The client uses none of them,
so they are replaced here by things that do nothing; the client itself is the package's, unchanged.
"""

import asyncio
import contextlib
import importlib.util
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

HEAVY = ("fastmcp", "gradio", "huggingface_hub", "mcp", "openai", "requests", "yaml")
PARTS = {"fastmcp": ("fastmcp.client", "fastmcp.client.client"), "mcp": ("mcp.types",)}
for package in HEAVY:
    if importlib.util.find_spec(package) is None:
        sys.modules.update({name: MagicMock() for name in (package, *PARTS.get(package, ()))})

from openenv.core import GenericEnvClient, MCPToolClient  # noqa: E402


async def episode(url):
    """One episode, as the package's own examples play it."""
    async with GenericEnvClient(base_url=url) as env:
        first = await env.reset(seed=105, episode_id="mine")
        before = await env.state()
        missed = await env.step({"text": "7"})
        right = await env.step({"text": "5"})
        after = await env.state()
        again = await env.reset(seed=6)
        return {
            "first": [first.observation["text"], first.reward, first.done],
            "states": [before["episode_id"], before["step_count"], after["step_count"]],
            "steps": [[step.reward, step.done, step.observation["metadata"]["turn"]] for step in (missed, right)],
            "again": again.observation["metadata"]["task_id"],
        }


def in_words_of_sync(url):
    """The same without ``await``."""
    with GenericEnvClient(base_url=url).sync() as env:
        env.reset(seed=5)
        return [env.step({"text": "7"}).reward, env.step({"text": "5"}).reward, env.state()["step_count"]]


async def many(url):
    """Two hundred sessions at once."""

    async def play(index):
        async with GenericEnvClient(base_url=url, connect_timeout_s=60) as env:
            await env.reset(seed=index % 100)
            rewards = [(await env.step({"text": "100"})).reward for _ in range(3)]
            last = await env.step({"text": str(index % 100)})
            return [*rewards, last.reward, (await env.state())["step_count"]]

    return await asyncio.gather(*(play(index) for index in range(200)))


async def timeout(url):
    """A step that takes longer than the client waits, and then another."""
    gate = Path(tempfile.mkdtemp()) / "gate"
    async with GenericEnvClient(base_url=url, message_timeout_s=60) as env:
        session = (await env.reset(seed=5)).observation["metadata"]["session_id"]
        said = []
        env._message_timeout = 0.05
        try:
            await env.step({"text": f"until {gate}"})
        except TimeoutError:
            said.append("timeout")
        gate.touch()
        env._message_timeout = 60
        for text in ("second", "third"):
            try:
                said.append((await env.step({"text": text})).observation["text"])
            except RuntimeError as error:
                said.append(str(error))
    if len(said) == 3 and said[2].startswith("slept"):
        return [*said, None]
    env = GenericEnvClient(base_url=url)
    env._ws_url += f"?session_id={session}"
    async with env:
        for _ in range(600):  # until the first step has ended
            if turns := (await env.state())["step_count"]:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)  # a second one would take 0.2 s
        return [*said, max(turns, (await env.state())["step_count"])]


async def capacity(url):
    """One more than the server takes."""
    one, two = GenericEnvClient(base_url=url), GenericEnvClient(base_url=url)
    await one.connect()
    await one.reset()
    await two.connect()
    try:
        await two.reset()
    except RuntimeError as error:
        said = str(error)
    await one.close()
    for _ in range(600):
        try:
            await two.reset()
            break
        except RuntimeError:
            await asyncio.sleep(0.1)
    state = await two.state()
    await two.close()
    return [said, state["step_count"]]


async def tools(url):
    """Its client for tools: a session over HTTP, and a socket on it where the version knows that."""
    async with MCPToolClient(base_url=url) as env:
        await env.reset(seed=3)
        names = [tool.name for tool in await env.list_tools()]
        return [names, await env.call_tool("add", a=2, b=3), await env.call_tool("add", a=20, b=3)]


def page(url):
    """The program in docs/openenv.md."""
    text = (Path(__file__).parents[2] / "docs" / "openenv.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block.replace("http://127.0.0.1:8000", url), {"__name__": "__main__"})
    return printed.getvalue()


if __name__ == "__main__":
    scenario, url = sys.argv[1:]
    done = globals()[scenario](url)
    print(json.dumps(asyncio.run(done) if asyncio.iscoroutine(done) else done))
