"""Tools and what travels: does a tool parser accept the schemas, and does everything survive its way through JSON?"""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
from pydantic import BaseModel

from turnwise_envs.canonical import canonical
from turnwise_envs.check.policy import example_arguments
from turnwise_envs.check.subject import Failure, Skip, Subject
from turnwise_envs.check.trace import shorten
from turnwise_envs.types import Action, ToolCall, ToolSpec

#: What chat templates and inference servers take as the name of a function.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: An agent's parser gives up on arguments that are nested deeper.
_MAX_DEPTH = 50
_EXAMPLES = 5


async def tools(subject: Subject) -> str | None:
    spec = subject.spec
    if not spec.tools:
        raise Skip("the environment has no tools.")
    if spec.action_format != "tools":
        raise Failure(
            f"an agent looks for tool calls only where the actions are tool calls, but the spec names tools and has "
            f'action_format={spec.action_format!r}; make it "tools", or drop the tools.'
        )
    for tool in spec.tools:
        wrong = _fault(tool) or _example_fault(subject, tool)
        if wrong is not None:
            raise Failure(f"a tool parser must accept every tool, but {tool.name!r} {wrong}.")
    return None


def _fault(tool: ToolSpec) -> str | None:
    """What is wrong with the form of the tool, and what to do."""
    schema = tool.parameters
    if not _NAME.fullmatch(tool.name):
        return "is no function name; use letters, digits, _ and -, at most 64"
    if not tool.description.strip():
        return "has no description, which is all that a policy knows of it; say what it does"
    if schema.get("type") != "object":
        return f'has parameters of type {schema.get("type")!r}; arguments have names: make it "object"'
    properties = schema.get("properties", {})
    unknown = sorted(set(schema.get("required", [])) - set(properties))
    if unknown:
        return f"requires {', '.join(unknown)}, but describes no such property; add it to `properties`"
    foreign = [ref for ref in _references(schema) if not ref.startswith("#")]
    if foreign:
        return f"refers to {foreign[0]}, which no parser fetches; put the definition under `$defs`"
    return None


def _example_fault(subject: Subject, tool: ToolSpec) -> str | None:
    """Write example calls as a policy would, and read them again. Only those that fit the schema say something."""
    rng = subject.rng(f"tool {tool.name}")
    validator = jsonschema.validators.validator_for(tool.parameters)(tool.parameters)
    for _ in range(_EXAMPLES):
        arguments = example_arguments(tool, rng, ["tea", "42", "ünïcode"])
        try:
            fits = validator.is_valid(arguments)
        except Exception as error:  # a reference to nothing, for instance: it shows only when it is followed
            return f"has a schema that cannot be used ({type(error).__name__}: {shorten(str(error))}); correct it"
        if not fits:
            continue
        written = json.dumps({"name": tool.name, "arguments": arguments}, ensure_ascii=False)
        read = ToolCall(id="c0_0", **json.loads(written))
        if read.arguments != arguments or _depth(arguments) > _MAX_DEPTH:
            return f"asks for arguments that do not survive JSON, such as {shorten(written)}; ask for plain JSON"
        canonical(Action(tool_calls=[read]))
    return None


async def serialisable(subject: Subject) -> None:
    spec, found = subject.spec, subject.env_class.tasks
    _survives(spec, "`spec`")
    for split in spec.splits:
        for index in {0, (1000 if split.size is None else split.size) - 1}:
            task = found.get(split.name, index)
            _survives(task, f"the task {task.id}")
            _survives(found.reference(task), f"the reference of {task.id}")


def _survives(model: BaseModel, what: str) -> None:
    told = "put only strings, numbers, booleans, None, lists, and dictionaries with string keys into it"
    try:
        text = canonical(model)
        again = type(model).model_validate_json(text)
    except Exception as error:  # whatever does not know how to become JSON has its own way to say so
        raise Failure(
            f"what travels must be JSON, but {what} is not ({shorten(str(error).splitlines()[0], 100)}); {told}."
        ) from error
    if again != model:
        parted = _parted(model.model_dump(), again.model_dump())
        raise Failure(f"what travels must survive JSON, but {what} does not: {parted}; {told}.")


def _parted(left: Any, right: Any, path: str = "") -> str:
    """Where two values part, and both of them."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        key = next(key for key in left if left[key] != right[key])
        return _parted(left[key], right[key], f"{path}.{key}" if path else str(key))
    return f"{path} was {left!r:.60} and became {right!r:.60}"


def _references(schema: Any) -> list[str]:
    """Every ``$ref`` in a schema."""
    if isinstance(schema, list):
        return [ref for item in schema for ref in _references(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return own + [ref for item in schema.values() for ref in _references(item)]


def _depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, children), default=0)
