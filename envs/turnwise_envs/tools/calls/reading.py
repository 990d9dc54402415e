"""Finding calls in what a policy wrote: ``<tool_call>{...}</tool_call>`` tags, or BFCL's ``[f(x=1), g(y="a")]``."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from turnwise_envs.actions import tags, without_thoughts
from turnwise_envs.types import Action, ToolCall

#: Longer Python is not parsed.
_LONGEST = 8_000
_LOOKS_LIKE_CALLS = re.compile(r"\[.*\]|[A-Za-z_][\w.]*\(.*\)", re.DOTALL)


def calls_in(action: Action) -> list[ToolCall]:
    """The calls of an action, from its ``tool_calls`` or else its text; what cannot be read has a ``parse_error``."""
    if action.tool_calls:
        return action.tool_calls
    tagged = tags(action.text, ("tool_call",))
    if tagged:
        return [_from_json(f"t{number}", tag.content) for number, tag in enumerate(tagged)]
    text = without_thoughts(action.text).strip()
    return _from_python(text) if _LOOKS_LIKE_CALLS.fullmatch(text) else []


def _from_json(call_id: str, raw: str) -> ToolCall:
    try:
        call = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return ToolCall(id=call_id, name="", raw=raw, parse_error=f"not JSON: {str(error)[:100]}")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return ToolCall(id=call_id, name="", raw=raw, parse_error='expected {"name": ..., "arguments": {...}}')
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        return ToolCall(id=call_id, name=call["name"], raw=raw, parse_error="arguments must be an object")
    return ToolCall(id=call_id, name=call["name"], arguments=arguments)


def _from_python(text: str) -> list[ToolCall]:
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"longer than {_LONGEST} characters")
        tree = ast.parse(text, mode="eval").body
        items = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
        return [_from_node(f"t{number}", item) for number, item in enumerate(items)]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        told = f"not a list of calls like [f(x=1)]: {str(error)[:100] or type(error).__name__}"
        return [ToolCall(id="t0", name="", raw=text[:_LONGEST], parse_error=told)]


def _from_node(call_id: str, node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call):
        raise ValueError("there is something that is not a call")
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("every argument needs its name")
    arguments = {str(keyword.arg): _jsonable(ast.literal_eval(keyword.value)) for keyword in node.keywords}
    return ToolCall(id=call_id, name=ast.unparse(node.func), arguments=arguments)


def _jsonable(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} is no JSON")
