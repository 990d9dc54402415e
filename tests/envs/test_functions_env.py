"""Python functions as an environment: schemas from annotations, state, mistakes, the checks."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from turnwise_envs import Action, Reference, Task, ToolCall, registry
from turnwise_envs.check import check_env
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.plugins.functions import FunctionEnvironment, tool
from turnwise_envs.tools_api import ToolMistake
from turnwise_envs.types import JsonObject


class Unit(Enum):
    PIECE = "piece"
    KILO = "kilo"


class Line(BaseModel):
    item: str
    count: int = Field(ge=1)


@tool
def price(item: Literal["apple", "pear"], unit: Unit = Unit.PIECE, day: date | None = None) -> float:
    """Price of an item in euros.

    It may change from day to day.

    Args:
        item: What is sold,
            in lower case.
        unit: How it is sold.
    """
    return (1.5 if item == "apple" else 2.0) * (4 if unit is Unit.KILO else 1) + (day.day if day else 0)


@tool
def order(state: dict[str, int], lines: Annotated[list[Line], Field(description="What to buy.")]) -> dict[str, int]:
    """Put items into the basket."""
    for line in lines:
        if line.item == "lemon":
            raise ToolMistake("There are no lemons today.")
        state[line.item] = state.get(line.item, 0) + line.count
    return state


@tool
def divide(a: int, b: int) -> float:
    """Divide a by b."""
    return a / b


@tool
def broken() -> str:
    """Never works."""
    raise OSError("disk on fire")


class Shop(
    FunctionEnvironment,
    id="shop",
    tools=[price, order, divide],
    tasks=[
        {"instruction": "What do 4 apples cost?", "answers": ["6.0", "6"], "calls": [{"name": "price"}]},
        {"instruction": "Buy two pears.", "calls": [{"name": "order"}], "split": "valid"},
    ],
):
    """Fruit and arithmetic."""

    def begin(self, task: Task, rng: random.Random) -> dict[str, int]:
        return {}


class Baskets(Shop):
    """Scored by what is in the basket."""

    def score(
        self, reference: Reference, answer: str | None, calls: Sequence[tuple[str, JsonObject]]
    ) -> tuple[float, dict[str, float]]:
        return float(self.state == {"pear": 2}), {"pears": float(self.state.get("pear", 0))}


def act(name: str, **arguments: Any) -> Action:
    return Action(tool_calls=[ToolCall(id="c0_0", name=name, arguments=arguments)])


async def said(action: Action) -> str:
    episode = await LiveEpisode.start(Shop, "train", 0)
    return (await episode.step(action)).observation.text


def test_a_schema_says_what_the_annotations_say() -> None:
    assert price.spec.description == "Price of an item in euros.\n\nIt may change from day to day."
    assert price.spec.parameters == {
        "$defs": {"Unit": {"enum": ["piece", "kilo"], "title": "Unit", "type": "string"}},
        "additionalProperties": False,
        "properties": {
            "item": {"description": "What is sold, in lower case.", "enum": ["apple", "pear"], "type": "string"},
            "unit": {"$ref": "#/$defs/Unit", "default": "piece", "description": "How it is sold."},
            "day": {"anyOf": [{"format": "date", "type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["item"],
        "type": "object",
    }
    assert "state" not in order.spec.parameters["properties"]
    assert order.spec.parameters["properties"]["lines"]["description"] == "What to buy."
    assert price("apple") == 1.5  # still a function


async def test_arguments_are_converted_and_results_are_json() -> None:
    assert await said(act("price", item="apple", unit="kilo", day="2026-11-21")) == "27.0"  # 1.5 * 4 + 21
    assert await said(act("order", lines=[{"item": "pear", "count": 2}])) == '{"pear": 2}'


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (act("price", item="plum"), "Wrong arguments: item: 'plum' is not one of ['apple', 'pear']."),
        (act("price", item="pear", day="soon"), "day: Input should be a valid date"),
        (
            act("order", lines=[{"item": "pear", "count": 0}]),
            "Wrong arguments: lines/0/count: 0 is less than the minimum",
        ),
        (act("order", lines=[{"item": "lemon", "count": 1}]), "There are no lemons today."),
        (act("divide", a=1, b=0), "ZeroDivisionError: division by zero"),
        (Action(text="Six."), "No tool was called. Tools: price(item: apple|pear, unit?: any"),
    ],
)
async def test_mistakes_are_observations(action: Action, words: str) -> None:
    assert (await said(action)).startswith(words)


async def test_an_episode() -> None:
    episode = await LiveEpisode.start(Shop, "train", 0)
    assert episode.initial.text == "What do 4 apples cost?\n\nUse the tools. When you are done, call the tool `answer`."
    await episode.step(act("price", item="apple"))
    result = await episode.step(act("answer", answer="6"))
    assert (result.reward, result.info.end, result.info.metrics["em"]) == (1.0, "solved", 1.0)
    early = await LiveEpisode.start(Shop, "train", 0)
    assert (await early.step(act("answer", answer="6"))).reward == 0.0  # the price was not asked for


async def test_state_is_of_the_episode_and_a_scorer_may_look_at_it() -> None:
    one, other = [await LiveEpisode.start(Baskets, "valid", 0) for _ in range(2)]
    await one.step(act("order", lines=[{"item": "pear", "count": 2}]))
    fork = await one.fork()
    assert (await one.step(act("answer", answer="done"))).reward == 1.0
    assert (await fork.step(act("answer", answer="done"))).info.metrics == {"pears": 2.0}
    assert (await other.finish("enough")).reward == 0.0


async def test_other_exceptions_are_faults() -> None:
    from turnwise_envs.errors import EnvironmentFault

    class Broken(FunctionEnvironment, id="broken", tools=[broken], tasks=[{"instruction": "x", "answers": ["y"]}]):
        pass

    episode = await LiveEpisode.start(Broken, "train", 0)
    with pytest.raises(EnvironmentFault, match="disk on fire"):
        await episode.step(act("broken"))


def test_it_passes_the_checks() -> None:
    report = check_env(Shop)
    assert report.ok, report


def test_what_cannot_be_a_tool_is_said() -> None:
    def untyped(a) -> str:  # type: ignore[no-untyped-def]
        """Do."""
        return ""

    def silent(a: int) -> str:
        return ""

    def many(*a: int) -> str:
        """Do."""
        return ""

    async def later() -> str:
        """Do."""
        return ""

    def odd(a: random.Random) -> str:
        """Do."""
        return ""

    for function, words in [
        (untyped, "tool untyped: parameter 'a' has no annotation"),
        (silent, "tool silent has no docstring"),
        (many, "tool many: parameter 'a' cannot be named in a call"),
        (later, "tool later: a coroutine function"),
        (odd, "tool odd: "),
    ]:
        with pytest.raises(TypeError, match=words):
            tool(function)


def test_the_version_tells_what_it_was_made_of() -> None:
    class Less(FunctionEnvironment, id="less", tools=[price], tasks=[{"instruction": "x", "answers": ["y"]}]):
        pass

    assert Shop.spec.version.startswith("1.")
    assert Shop.spec.version != Less.spec.version


def test_functions_of_a_module_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kiosk_tools.py").write_text(
        "from turnwise_envs.plugins.functions import tool\n"
        "@tool\ndef double(n: int) -> int:\n    '''Twice n.'''\n    return 2 * n\n"
    )
    (tmp_path / "tasks.jsonl").write_text('{"instruction": "Twice 21?", "answers": ["42"]}\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        made = registry.load("functions:kiosk_tools", {"tasks": str(tmp_path / "tasks.jsonl"), "max_turns": "5"})
    finally:
        sys.modules.pop("kiosk_tools", None)
    assert (made.spec.id, made.spec.max_turns) == ("functions:kiosk_tools", 5)
    assert [one.name for one in made.spec.tools] == ["double", "answer"]


class Division(
    FunctionEnvironment, id="division", tools=[divide], tasks=[{"instruction": "Try.", "calls": [{"name": "divide"}]}]
):
    """A call that must be made."""


async def test_a_call_that_failed_was_not_made() -> None:
    for b, reward in ((0, 0.0), (2, 1.0)):
        episode = await LiveEpisode.start(Division, "train", 0)
        for name, arguments in (("divide", {"a": 1, "b": b}), ("answer", {"answer": "done"})):
            last = await episode.step(Action(tool_calls=[ToolCall(id="c0_0", name=name, arguments=arguments)]))
        await episode.close()
        assert (last.reward, last.info.metrics) == (reward, {"calls_made": reward})
