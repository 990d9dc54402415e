"""Canonical bytes (RFC 8785) and the hash chain of a history, against published and hand-computed values."""

import hashlib
import json
from collections import OrderedDict
from enum import IntEnum

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from turnwise_envs import Action, Message, Observation, StepInfo, StepResult, ToolCall
from turnwise_envs.canonical import canonical, initial_hash, next_hash


def test_the_example_of_rfc_8785_section_3_2_4() -> None:
    source = r"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(json.loads(source)) == expected.encode()


def test_keys_are_sorted_by_utf_16_code_units() -> None:
    """RFC 8785 section 3.2.3: the astral 😀 (D83D DE00) sorts before the Hebrew letter FB33."""
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7}
    assert list(json.loads(canonical(value))) == ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (-0.0, "0"), (1.0, "1"), (5e-324, "5e-324"), (1e21, "1e+21"), (1e-7, "1e-7"), (1e20, "1" + "0" * 20)],
)
def test_numbers_as_ecmascript_writes_them(number: float, text: str) -> None:
    assert canonical(number) == text.encode()


@pytest.mark.parametrize("value", ["\ud800", 2**53, -(2**53), float("nan"), float("inf"), {1: 2}, b"bytes"])
def test_refuses_what_two_ends_could_read_differently(value: object) -> None:
    with pytest.raises(ValueError, match="not canonical JSON"):
        canonical(value)


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(
    st.characters(exclude_categories=["Cs"])), lambda inner: st.lists(inner) | st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])), inner)))  # fmt: skip
def test_bytes_are_json_and_a_fixed_point(value: object) -> None:
    once = canonical(value)
    assert canonical(json.loads(once, parse_int=float)) == once  # JCS writes the float 2^53 without a point


def test_hash_chain_computed_by_hand() -> None:
    """The literal bytes of protocol.md, "The hash of a history", for a start, a step and a finish."""
    observation = '{"admissible_actions":null,"context":"append","messages":[{"content":"%s","role":"user","tool_call_id":null}],"state_key":null}'
    head = (
        '{"env":"e","env_version":"1","observation":'
        + observation % "Go."
        + ',"options":{"b":1},"seed":7,"task id":"e/train/0"}'
    )
    h0 = hashlib.sha256(head.encode()).hexdigest()
    assert initial_hash("e", "1", "e/train/0", 7, {"b": 1}, Observation.say("Go.")) == h0

    info = '{"action_effective":true,"action_valid":true,"counters":{},"end":%s,"error":null,"metrics":{}}'
    step = (
        '{"action":{"text":"é","tool_calls":[]},"info":' + info % "null" + ',"observation":' + observation % "On."
        + ',"reward":0.5,"terminated":false,"truncated":false}'
    )  # fmt: skip
    h1 = hashlib.sha256(h0.encode() + step.encode()).hexdigest()
    result = StepResult(observation=Observation.say("On."), reward=0.5)
    assert next_hash(h0, Action(text="é"), result) == h1

    end = (
        '{"action":null,"info":' + info % '"finished:x"' + ',"observation":' + observation % "End."
        + ',"reward":1,"terminated":false,"truncated":true}'
    )  # fmt: skip
    last = StepResult(observation=Observation.say("End."), reward=1.0, truncated=True, info=StepInfo(end="finished:x"))
    assert next_hash(h1, None, last) == hashlib.sha256(h1.encode() + end.encode()).hexdigest()


def test_a_golden_hash() -> None:
    """sha256sum of the head above, taken with coreutils: the chain does not depend on this code's own hashing."""
    assert (
        initial_hash("e", "1", "e/train/0", 7, {"b": 1}, Observation.say("Go."))
        == "88383911855bd1c108eca6d1f3b422465a1a9ab16976bdfcf1cc44c72398e65b"
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from('a"\\/\x00\x1f\x7f\n\t\ud7ff\ue000\uffff\U0001f600é€\u2028')
)
NUMBER = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([-0.0, 1e-4, 9.999e-5, 1e16, 9999999999999998.0, 1e21, -1e16, -1e-4, 1e-7, 5e-324, 123456.0])
    | st.integers(-(2**53) + 1, 2**53 - 1)
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
CALLS = st.builds(
    ToolCall,
    id=TEXT,
    name=TEXT,
    arguments=st.none() | st.dictionaries(TEXT, JSON, max_size=3),
    raw=st.none() | TEXT,
    parse_error=st.none() | TEXT,
)
ACTIONS = st.builds(Action, text=TEXT, tool_calls=st.lists(CALLS, max_size=2))
OBSERVATIONS = st.builds(
    Observation,
    messages=st.lists(
        st.builds(
            Message,
            role=st.sampled_from(["system", "user", "tool"]),
            content=TEXT,
            tool_call_id=st.none() | TEXT,
        ),
        max_size=2,
    ),
    context=st.sampled_from(["append", "replace"]),
    state_key=st.none() | TEXT,
    admissible_actions=st.none() | st.lists(TEXT, max_size=3),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
RESULTS = st.builds(
    StepResult,
    observation=OBSERVATIONS,
    reward=FLOATS,
    terminated=st.booleans(),
    truncated=st.booleans(),
    info=st.builds(
        StepInfo,
        error=st.none() | TEXT,
        counters=st.dictionaries(TEXT, st.integers(-(2**53) + 1, 2**53 - 1), max_size=3),
        metrics=st.dictionaries(TEXT, FLOATS, max_size=3),
        end=st.none() | TEXT,
    ),
)


def by_the_book(value: object) -> bytes | None:
    """What the rfc8785 package writes, None for what it refuses."""
    try:
        return rfc8785.dumps(value.model_dump() if isinstance(value, BaseModel) else value)
    except (rfc8785.CanonicalizationError, UnicodeError):
        return None


def ours(value: object) -> bytes | None:
    try:
        return canonical(value)
    except ValueError:
        return None


@given(JSON | ACTIONS | OBSERVATIONS | RESULTS)
def test_written_directly_it_is_what_rfc8785_writes(value: object) -> None:
    assert ours(value) == by_the_book(value)


@given(st.none() | ACTIONS, RESULTS)
def test_a_link_of_the_chain_hashes_what_rfc8785_writes(action: Action | None, result: StepResult) -> None:
    link = {"action": None if action is None else action.model_dump(), **result.model_dump()}
    expected = hashlib.sha256(b"0" * 64 + rfc8785.dumps(link)).hexdigest()
    assert next_hash("0" * 64, action, result) == expected


@pytest.mark.parametrize("value", [(1, "b"), {"a": (True, None)}, OrderedDict(b=1, a=2.5), IntEnum("N", "ONE").ONE])
def test_subclasses_and_tuples_are_left_to_rfc8785(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("where", ["text", "name", "argument", "key", "big"])
def test_models_are_refused_for_what_they_hold(where: str) -> None:
    arguments = {"x\udfff" if where == "key" else "x": "\udfff" if where == "argument" else 2**53 * (where == "big")}
    call = ToolCall.model_construct(
        id="c", name="\ud800" if where == "name" else "n", arguments=arguments, raw=None, parse_error=None
    )
    with pytest.raises(ValueError, match="not canonical JSON"):
        canonical(Action.model_construct(text="\ud800" if where == "text" else "", tool_calls=[call]))
