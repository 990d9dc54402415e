"""From the policy's text to an :class:`~turnwise_envs.Action`: tool calls in ``<tool_call>`` tags (Hermes, Qwen)."""

from __future__ import annotations

import json
import re
from typing import Any

from turnwise_envs.canonical import canonical
from turnwise_envs.types import Action, EnvSpec, ToolCall

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)

#: Servers bound the depth of JSON, and a policy can write brackets all day.
_MAX_DEPTH = 50


def parse_action(text: str, turn: int, spec: EnvSpec) -> Action:
    """The action of turn ``turn``. Only environments with ``action_format: "tools"`` have their calls parsed.

    A call that cannot be parsed travels on with ``arguments`` None, the raw text and what was wrong with it; telling the
    policy so is the environment's job.
    """
    if spec.action_format != "tools":
        return Action(text=text)
    calls = [_call(raw.strip(), f"c{turn}_{number}") for number, raw in enumerate(_CALL.findall(text))]
    return Action(text=text, tool_calls=calls)


def _call(raw: str, call_id: str) -> ToolCall:
    try:
        call = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return ToolCall(id=call_id, name="", raw=raw, parse_error=f"not JSON: {error}")
    if _deeper_than(_MAX_DEPTH, call):
        return ToolCall(id=call_id, name="", raw=raw, parse_error=f"nested more than {_MAX_DEPTH} levels deep")
    try:
        canonical(call)  # what has no canonical bytes (NaN, lone surrogates, integers beyond 2^53) no server takes
    except ValueError as error:
        return ToolCall(id=call_id, name="", raw=raw, parse_error=str(error))
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return ToolCall(id=call_id, name="", raw=raw, parse_error='expected {"name": ..., "arguments": {...}}')
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        return ToolCall(id=call_id, name=call["name"], raw=raw, parse_error="arguments must be an object")
    return ToolCall(id=call_id, name=call["name"], arguments=arguments)


def _deeper_than(levels: int, value: Any) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper_than(levels - 1, child) for child in children)
