"""The transcripts of docs/environments: what the pages let an agent say is said again, and what they show is answered.

``...`` stands for what a page leaves out. The pages of household, alfworld and search have tests of their own beside their
other tests, as have the MCP servers of others.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from turnwise_envs import registry
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Action, ToolCall

PAGES = Path(__file__).parents[2] / "docs" / "environments"


def transcript(page: str, title: str) -> tuple[str, list[tuple[str, str]]]:
    """The first transcript after a title: the prompt, and what was said and answered in each turn."""
    text = (PAGES / page).read_text(encoding="utf-8")
    section = f"\n{text}".split(f"\n{title}\n")[1]
    block = section.split("```text\n")[1].split("\n```")[0]
    block = block.replace("(3.40.1)", f"({sqlite3.sqlite_version})")
    opening, *turns = re.split(r"\n\n(?=> )", block)
    return opening, [tuple(turn.removeprefix("> ").partition("\n")[::2]) for turn in turns]


def as_shown(shown: str, said: str) -> bool:
    """Spaces at the end of a line do not count: editors take them out of pages."""
    said = re.sub(" +$", "", said, flags=re.MULTILINE)
    return re.fullmatch(".*".join(map(re.escape, shown.split("..."))), said, re.DOTALL) is not None


def action(said: str, tools: set[str]) -> Action:
    """``describe(table="flights")`` is a call if there is such a tool, all else is text."""
    called = re.match(r"(\w+)\(.*\)$", said)
    if called is None or called[1] not in tools:
        return Action(text=said)
    call = ast.parse(said, mode="eval").body
    assert isinstance(call, ast.Call)
    arguments = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    return Action(tool_calls=[ToolCall(id="c0_0", name=called[1], arguments=arguments)])


def played_as_shown(page: str, title: str, env: str, index: int, **arguments: str) -> LiveEpisode:
    """Plays a page's transcript and compares every line of it."""
    opening, turns = transcript(page, title)

    async def run() -> LiveEpisode:
        episode = await LiveEpisode.start(registry.load(env, arguments), "train", index)
        try:
            assert as_shown(opening, episode.initial.text), episode.initial.text
            for said, shown in turns:
                result = await episode.step(action(said, {tool.name for tool in episode.env.spec.tools}))
                assert as_shown(shown, result.observation.text), f"{said}\n{result.observation.text}"
        finally:
            await episode.close()
        return episode

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("page", "title", "env", "index"),
    [
        ("sql.md", "# sql", "sql", 4),
        ("tools.md", "## The desks", "shop-desk", 1),
        ("tools.md", "## calls", "calls", 8),
        pytest.param("tools.md", "## maths", "maths", 4, marks=pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs PROGRAM: bwrap")),
        ("plugins-games.md", "## TextArena", "textarena:GuessTheNumber-v0", 1),
        ("plugins-games.md", "## reasoning-gym", "reasoning-gym:leg_counting", 0),
    ],
)  # fmt: skip
def test_what_is_shown_wins(page: str, title: str, env: str, index: int) -> None:
    needs = {"sql": "sqlite_utils", "textarena": "textarena", "reasoning-gym": "reasoning_gym"}
    _needs(needs.get(env.partition(":")[0]))
    assert played_as_shown(page, title, env, index).records[-1].result.info.end == "solved"


def test_a_taxi_is_shown() -> None:
    _needs("gymnasium")
    assert not played_as_shown("plugins-games.md", "## Gymnasium", "gymnasium:Taxi-v4", 1).done


@pytest.mark.slow
def test_textworld_is_shown() -> None:
    _needs("textworld")
    last = played_as_shown("plugins-games.md", "## TextWorld and Jericho", "textworld", 0).records[-1].result
    assert (last.reward, last.info.end) == (1.0, "solved")


@pytest.mark.slow
def test_scienceworld_is_shown() -> None:
    _needs("scienceworld")
    if shutil.which("java") is None:
        pytest.skip("needs PROGRAM: java")
    assert not played_as_shown("plugins-games.md", "## ScienceWorld", "scienceworld:boil", 1).done


def _needs(package: str | None) -> None:
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}")
