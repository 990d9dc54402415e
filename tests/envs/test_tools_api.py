"""The toolbox: what runs, what is refused and in which words, one message a call."""

from __future__ import annotations

import pytest

from turnwise_envs.tools_api import ToolAnswer, Toolbox, ToolMistake, clip, signature
from turnwise_envs.types import Action, JsonObject, ToolCall, ToolSpec

ADD = ToolSpec(
    name="add",
    description="Add.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        "required": ["a"],
        "additionalProperties": False,
    },
)
STOP = ToolSpec(name="stop", description="End.")
BOX = Toolbox([ADD, STOP])


def handle(name: str, arguments: JsonObject) -> ToolAnswer | str:
    if name == "stop":
        return ToolAnswer("Bye.", ends=True, counts={"stops": 1})
    if arguments["a"] > 99:
        raise ToolMistake("a is at most 99")
    return str(arguments["a"] + (arguments.get("b") or 0))


def call(name: str, number: int = 0, **arguments: object) -> ToolCall:
    return ToolCall(id=f"c0_{number}", name=name, arguments=arguments)


def test_calls_run_in_order_and_each_gets_its_message() -> None:
    turn = BOX.run(Action(tool_calls=[call("add", 0, a=1, b=2), call("add", 1, a=100), call("add", 2, a=7)]), handle)
    assert [(m.role, m.tool_call_id, m.content) for m in turn.messages] == [
        ("tool", "c0_0", "3"),
        ("tool", "c0_1", "a is at most 99"),
        ("tool", "c0_2", "7"),
    ]
    info = turn.info()
    assert (info.action_valid, info.action_effective, info.error) == (True, True, "a is at most 99")
    assert info.counters == {"tool_calls": 3}


async def test_the_same_with_a_coroutine() -> None:
    async def later(name: str, arguments: JsonObject) -> ToolAnswer | str:
        return handle(name, arguments)

    action = Action(tool_calls=[call("add", 0, a=1, b=2), call("ad", 1), call("add", 2, a=100)])
    assert (await BOX.run_async(action, later)).messages == BOX.run(action, handle).messages


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (call("ad"), "There is no tool 'ad'. Did you mean add? Tools: add(a: integer, b?: integer|null), stop()."),
        (
            call("add", a="1"),
            "Wrong arguments: a: '1' is not of type 'integer'. It is add(a: integer, b?: integer|null).",
        ),
        (call("add"), "Wrong arguments: 'a' is a required property. It is add(a: integer, b?: integer|null)."),
        (
            call("add", a=1, c=2),
            "Wrong arguments: Additional properties are not allowed ('c' was unexpected). "
            "It is add(a: integer, b?: integer|null).",
        ),
        (
            ToolCall(id="c0_0", name="add", raw="{", parse_error="Expecting value"),
            "The call could not be read: Expecting value. Write it as add(a: integer, b?: integer|null), arguments in JSON.",
        ),
        (
            ToolCall(id="c0_0", name="add"),
            "The call has no arguments. Write it as add(a: integer, b?: integer|null), arguments in JSON.",
        ),
    ],
)
def test_a_mistake_of_form_is_answered_with_what_is_right(wrong: ToolCall, words: str) -> None:
    turn = BOX.run(Action(tool_calls=[wrong]), handle)
    assert turn.messages[0].content == words
    info = turn.info()
    assert (info.action_valid, info.action_effective, info.error) == (False, False, clip(words, 200))
    assert info.counters == {"tool_calls": 0}


def test_an_error_never_repeats_pages_of_the_policy() -> None:
    turn = BOX.run(Action(tool_calls=[call("add", a="y" * 50_000), call("x" * 50_000)]), handle)
    assert all(len(message.content) < 500 for message in turn.messages)


def test_nothing_runs_after_the_end() -> None:
    turn = BOX.run(Action(tool_calls=[call("stop"), call("add", 1, a=1)]), handle)
    assert turn.ended
    assert turn.messages[1].content == "Not run: the episode ended with the call before."
    result = turn.result(1.0, end="solved", say="Well done.", metrics={"em": 1.0})
    assert (result.terminated, result.reward, result.info.end, result.info.metrics) == (
        True,
        1.0,
        "solved",
        {"em": 1.0},
    )
    assert result.info.counters == {"tool_calls": 1, "stops": 1}
    assert result.observation.messages[-1].content == "Well done."


def test_calls_beyond_the_limit_are_answered_but_not_run() -> None:
    turn = Toolbox([ADD], max_calls=1).run(Action(tool_calls=[call("add", 0, a=1), call("add", 1, a=2)]), handle)
    assert [message.content for message in turn.messages] == ["1", "Not run: at most 1 calls a turn."]


def test_no_call_is_no_valid_action() -> None:
    info = BOX.run(Action(text="hello"), handle).info()
    assert (info.action_valid, info.action_effective) == (False, False)
    assert BOX.usage() == "No tool was called. Tools: add(a: integer, b?: integer|null), stop()."


def test_other_errors_are_the_environments() -> None:
    def broken(name: str, arguments: JsonObject) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        BOX.run(Action(tool_calls=[call("stop")]), broken)


def test_an_answer_is_always_text_that_can_be_sent() -> None:
    assert BOX.run(Action(tool_calls=[call("stop")]), lambda *_: "a\ud800b").messages[0].content == "a?b"


def test_bad_schemas_are_refused_when_the_box_is_made() -> None:
    with pytest.raises(ValueError, match="tool 'x' has an invalid JSON Schema: 'whole' is not valid"):
        Toolbox([ToolSpec(name="x", description="", parameters={"type": "whole"})])
    with pytest.raises(ValueError, match="two tools have one name: add, add"):
        Toolbox([ADD, ADD])


def test_a_schema_never_makes_the_validator_fetch_anything() -> None:
    far = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    box = Toolbox([ToolSpec(name="far", description="", parameters=far)])
    with pytest.raises(ValueError, match="refers to something that is not in it"):
        box.problem(call("far", x=1))


def test_signature() -> None:
    schema = {"properties": {"unit": {"enum": ["C", "F"]}, "at": {"type": ["string", "null"]}, "x": {}}}
    assert (
        signature(ToolSpec(name="t", description="", parameters=schema)) == "t(unit?: C|F, at?: string|null, x?: any)"
    )
