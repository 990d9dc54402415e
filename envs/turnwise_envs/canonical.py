"""Canonical bytes and the running hash of a history (protocol.md, "The hash of a history").

``canonical(x)`` is RFC 8785 (JCS). Two ends that hold the same ``log_hash`` hold the same history.

A step costs one hash, so this is on the server's hot path: what every step consists of (exact built-in types and the
models of :mod:`turnwise_envs.types`) is written directly, about ten times as fast as by walking a dump of the model.
Whatever is not plainly one of those goes to the ``rfc8785`` package, which also words the errors.
"""

from __future__ import annotations

import hashlib
from json.encoder import encode_basestring
from typing import Any

import rfc8785
from pydantic import BaseModel

from turnwise_envs.types import Action, JsonObject, Message, Observation, StepInfo, StepResult, ToolCall

#: Integers beyond this are not the same number everywhere (RFC 8785, section 3.2.2.3).
LARGEST_INTEGER = 2**53 - 1


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value or a model (defaults filled in).

    Raises:
        ValueError: the value has a lone surrogate, an integer beyond 2^53, NaN, or is not JSON.
    """
    try:
        return _text(value).encode()
    except _REFUSALS as error:
        raise _refusal(error) from error


def initial_hash(
    env: str, env_version: str, task_id: str, seed: int, options: JsonObject, observation: Observation
) -> str:
    """h_0: the identity of the episode and its first observation."""
    head = {
        "env": env,
        "env_version": env_version,
        "task id": task_id,
        "seed": seed,
        "options": options,
        "observation": observation,
    }
    return hashlib.sha256(canonical(head)).hexdigest()


def next_hash(previous: str, action: Action | None, result: StepResult) -> str:
    """h_k from h_{k-1}; ``action`` is None for a finish."""
    return next_link(previous, action, result)[0]


def next_link(previous: str, action: Action | None, result: StepResult) -> tuple[str, str]:
    """What :func:`next_hash` gives, and the canonical text of ``result`` that went into it."""
    try:
        text = _text(result)
        chained = f'{previous}{{"action":{_text(action)},{text[1:]}'.encode()
    except _REFUSALS as error:
        raise _refusal(error) from error
    return hashlib.sha256(chained).hexdigest(), text


def _text(value: Any) -> str:
    """Canonical text, by exact type: a subclass may write itself in another way."""
    writer = _WRITERS.get(type(value))
    return _other(value) if writer is None else writer(value)


def _integer(value: int) -> str:
    return repr(value) if -LARGEST_INTEGER <= value <= LARGEST_INTEGER else _other(value)


def _float(value: float) -> str:
    """ECMAScript's notation. Python's differs in exponents, and where it begins to use them."""
    if value == 0.0:
        return "0"
    if 1e-4 <= value < 1e16 or -1e16 < value <= -1e-4:
        return repr(value).removesuffix(".0")
    return _other(value)


def _list(value: list[Any]) -> str:
    return f"[{','.join([_text(item) for item in value])}]"


def _dict(value: dict[str, Any]) -> str:
    if not value:
        return "{}"
    keys = sorted(value)  # by code points, which is the order of UTF-16 code units up to U+D7FF
    if max(map(max, filter(None, keys)), default="") > "\ud7ff":
        keys.sort(key=lambda key: key.encode("utf-16-be"))
    return f"{{{','.join([f'{encode_basestring(key)}:{_text(value[key])}' for key in keys])}}}"


def _action(value: Action) -> str:
    calls = _list(value.tool_calls) if value.tool_calls else "[]"
    return f'{{"text":{encode_basestring(value.text)},"tool_calls":{calls}}}'


def _tool_call(value: ToolCall) -> str:
    return (
        f'{{"arguments":{_text(value.arguments)},"id":{encode_basestring(value.id)},'
        f'"name":{encode_basestring(value.name)},"parse_error":{_text(value.parse_error)},"raw":{_text(value.raw)}}}'
    )


def _bool(value: Any) -> str:
    return "true" if value is True else "false" if value is False else _text(value)


def _optional(value: Any) -> str:
    return "null" if value is None else encode_basestring(value)


def _message(value: Message) -> str:
    role = value.role
    return (
        f'{{"content":{encode_basestring(value.content)},'
        f'"role":{_USER if role == "user" else encode_basestring(role)},'
        f'"tool_call_id":{_optional(value.tool_call_id)}}}'
    )


def _observation(value: Observation) -> str:
    admissible, context = value.admissible_actions, value.context
    actions = "null" if admissible is None else f"[{','.join(map(encode_basestring, admissible))}]"
    return (
        f'{{"admissible_actions":{actions},"context":{_APPEND if context == "append" else encode_basestring(context)},'
        f'"messages":[{",".join(map(_text, value.messages))}],"state_key":{_optional(value.state_key)}}}'
    )


def _info(value: StepInfo) -> str:
    counters, metrics = value.counters, value.metrics
    return (
        f'{{"action_effective":{_bool(value.action_effective)},"action_valid":{_bool(value.action_valid)},'
        f'"counters":{_text(counters) if counters else "{}"},"end":{_optional(value.end)},'
        f'"error":{_optional(value.error)},"metrics":{_text(metrics) if metrics else "{}"}}}'
    )


def _result(value: StepResult) -> str:
    return (
        f'{{"info":{_text(value.info)},"observation":{_text(value.observation)},"reward":{_text(value.reward)},'
        f'"terminated":{_bool(value.terminated)},"truncated":{_bool(value.truncated)}}}'
    )


def _refusal(error: Exception) -> ValueError:
    return ValueError(f"not canonical JSON: {error}")


def _other(value: Any) -> str:
    # Not mode="json": that would turn NaN into null instead of letting it be refused.
    return rfc8785.dumps(value.model_dump() if isinstance(value, BaseModel) else value).decode()


_USER, _APPEND = '"user"', '"append"'
_REFUSALS = (rfc8785.CanonicalizationError, UnicodeError, RecursionError, TypeError, AttributeError)
_WRITERS: dict[type, Any] = {
    str: encode_basestring,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
    int: _integer,
    float: _float,
    list: _list,
    dict: _dict,
    Action: _action,
    ToolCall: _tool_call,
    Message: _message,
    Observation: _observation,
    StepInfo: _info,
    StepResult: _result,
}
