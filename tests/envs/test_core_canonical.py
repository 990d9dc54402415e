"""Canonical bytes (RFC 8785) and the hash chain of a history, against published and hand-computed values."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_envs import Action, Observation, StepInfo, StepResult
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
