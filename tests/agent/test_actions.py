"""Tool calls out of a policy's text: what parses, what travels on as a mistake, and what no server could take."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_agent.actions import parse_action
from turnwise_envs import Action, EnvSpec, ToolCall
from turnwise_envs.canonical import canonical

TOOLS = EnvSpec(id="shop", action_format="tools")


def calls(text, turn=3):
    action = parse_action(text, turn, TOOLS)
    assert action.text == text
    return action.tool_calls


def call(body):
    (only,) = calls(f"<tool_call>{body}</tool_call>")
    return only


@pytest.mark.parametrize("action_format", ["text", "tags"])
def test_other_formats_are_left_alone(action_format):
    text = 'go <tool_call>{"name": "look"}</tool_call>'
    assert parse_action(text, 0, EnvSpec(id="x", action_format=action_format)) == Action(text=text)


def test_calls_are_numbered_by_turn_and_place():
    text = (
        "<think>two things</think>\n<tool_call>\n"
        '{"name": "search", "arguments": {"query": "ü", "k": 3}}\n</tool_call>\n'
        '<tool_call>{"name": "look"}</tool_call> and that was it'
    )
    assert calls(text) == [
        ToolCall(id="c3_0", name="search", arguments={"query": "ü", "k": 3}),
        ToolCall(id="c3_1", name="look", arguments={}),
    ]


@pytest.mark.parametrize("text", ["", "no call", "</tool_call>", '{"name": "look"}', "<tool_cal>{}</tool_cal>"])
def test_no_call(text):
    assert calls(text) == []


def test_a_call_that_was_cut_off():
    complete, cut = calls('<tool_call>{"name": "a"}</tool_call><tool_call>{"name": "b", "argum')
    assert complete.arguments == {}
    assert (cut.id, cut.name, cut.arguments, cut.raw) == ("c3_1", "", None, '{"name": "b", "argum')
    assert cut.parse_error.startswith("not JSON: Unterminated string")
    assert calls('<tool_call>{"name": "b"}') == [ToolCall(id="c3_0", name="b", arguments={})]


@pytest.mark.parametrize(
    ("body", "name", "error"),
    [
        ("", "", "not JSON"),
        ("look()", "", "not JSON"),
        ("{'name': 'look'}", "", "not JSON"),
        ("[" * 100_000, "", "not JSON"),
        ("[]", "", "expected"),
        ('"look"', "", "expected"),
        ('{"arguments": {}}', "", "expected"),
        ('{"name": 3}', "", "expected"),
        ('{"name": "look", "arguments": "at it"}', "look", "arguments must be an object"),
        ('{"name": "look", "arguments": null}', "look", "arguments must be an object"),
        ('{"name": "f", "arguments": {"x": NaN}}', "", "not canonical JSON"),
        ('{"name": "f", "arguments": {"x": -Infinity}}', "", "not canonical JSON"),
        ('{"name": "f", "arguments": {"x": 1e999}}', "", "not canonical JSON"),
        ('{"name": "f", "arguments": {"x": 9007199254740993}}', "", "not canonical JSON"),
        ('{"name": "f", "arguments": {"x": "\\ud800"}}', "", "not canonical JSON"),
        ('{"name": "f", "arguments": {"x": ' + "[" * 60 + "]" * 60 + "}}", "", "nested more than 50 levels deep"),
        ('{"name": "f", "arguments": {"x": ' + "[" * 900 + "]" * 900 + "}}", "", "nested more than 50 levels deep"),
    ],
)
def test_mistakes_travel_on(body, name, error):
    got = call(body)
    assert (got.id, got.name, got.arguments, got.raw) == ("c3_0", name, None, body.strip())
    assert error in got.parse_error


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps({"name": "f", "arguments": {"x": value}}))
)
def test_whatever_a_policy_writes_can_be_sent(body):
    text = f"<tool_call>{body}</tool_call>"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return  # decoded token ids are text, without lone surrogates
    action = parse_action(text, 0, TOOLS)
    assert canonical(action) == canonical(Action.model_validate_json(action.model_dump_json()))
