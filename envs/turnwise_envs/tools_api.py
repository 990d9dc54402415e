"""Tools of an environment: named, described by JSON Schema, called in order, each call answered by one message.

A tool environment in full::

    BOX = Toolbox([ToolSpec(name="add", description="Add two numbers.", parameters=schema)])

    class Adder(Environment):
        spec = EnvSpec(id="adder", action_format="tools", tools=BOX.specs)

        async def step(self, action):
            turn = BOX.run(action, self.call)           # or: await BOX.run_async(action, self.call)
            return turn.result()

        def call(self, name, arguments):                # arguments fit the tool's schema
            if arguments["a"] > 99:
                raise ToolMistake("a is too large: at most 99")
            return str(arguments["a"] + arguments["b"])

What the policy gets wrong never reaches ``call``: an unknown tool, arguments that do not fit, a call that could not be
parsed or one too many is answered here, in words that teach. Anything but :class:`ToolMistake` that ``call`` raises is
a fault of the environment and goes through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from turnwise_envs.types import Action, JsonObject, Message, Observation, StepInfo, StepResult, ToolCall, ToolSpec

#: Longest piece of the policy's own words that an error repeats.
_QUOTED = 200
#: Names in a list of tools; an API with hundreds would fill the context.
_LISTED = 20


class ToolMistake(Exception):
    """The policy's call made sense in form but not in fact (no such row, no permission); its text is the answer."""


@dataclass(frozen=True)
class ToolAnswer:
    """What a call gave. A handler may return a plain ``str`` for an ordinary success.

    ``valid``: the call was understood. ``effective``: it did what was asked. ``ends``: the episode is over, and calls
    after it are not run. ``counts`` are added up over the turn into ``StepInfo.counters``.
    """

    content: str
    valid: bool = True
    effective: bool = True
    ends: bool = False
    counts: dict[str, int] = field(default_factory=dict)


Handler = Callable[[str, JsonObject], ToolAnswer | str]
AsyncHandler = Callable[[str, JsonObject], Awaitable[ToolAnswer | str]]


@dataclass
class ToolTurn:
    """All calls of one action with their answers, in order: both lists have one entry a call."""

    calls: list[ToolCall] = field(default_factory=list)
    answers: list[ToolAnswer] = field(default_factory=list)
    #: How many of them reached the handler; the counter ``tool_calls``.
    run: int = 0

    @property
    def ended(self) -> bool:
        return any(answer.ends for answer in self.answers)

    @property
    def messages(self) -> list[Message]:
        """One ``tool`` message a call."""
        return [
            Message(role="tool", content=answer.content, tool_call_id=call.id)
            for call, answer in zip(self.calls, self.answers, strict=True)
        ]

    def info(self, **fields: Any) -> StepInfo:
        """Valid if every call was, effective if any was; ``error`` is the first that was not; other fields as given."""
        counters = {"tool_calls": self.run}
        for answer in self.answers:
            for name, count in answer.counts.items():
                counters[name] = counters.get(name, 0) + count
        wrong = [answer.content for answer in self.answers if not (answer.valid and answer.effective)]
        return StepInfo(
            **{
                "action_valid": bool(self.answers) and all(answer.valid for answer in self.answers),
                "action_effective": any(answer.effective for answer in self.answers),
                "error": clip(wrong[0], _QUOTED) if wrong else None,
                **fields,
                "counters": counters | fields.get("counters", {}),
            }
        )

    def result(self, reward: float = 0.0, *, say: str | None = None, end: str | None = None, **info: Any) -> StepResult:
        """The turn as a step's answer; it ends the episode if ``end`` is given. ``say`` adds a user message."""
        messages = self.messages + ([Message(content=say)] if say is not None else [])
        return StepResult(
            observation=Observation(messages=messages),
            reward=reward,
            terminated=end is not None,
            info=self.info(end=end, **info),
        )


class Toolbox:
    """The tools of an environment. Make it once (it compiles the schemas) and share it between episodes.

    At most ``max_calls`` calls of one action are run. Raises ValueError for an invalid schema or two tools of one name.
    """

    def __init__(self, specs: Sequence[ToolSpec], *, max_calls: int = 32) -> None:
        self.specs = list(specs)
        self.max_calls = max_calls
        self._by_name = {spec.name: spec for spec in self.specs}
        if len(self._by_name) < len(self.specs):
            raise ValueError(f"two tools have one name: {', '.join(sorted(spec.name for spec in self.specs))}")
        self._validators = {spec.name: _validator(spec) for spec in self.specs}

    def run(self, action: Action, handler: Handler) -> ToolTurn:
        """Run the action's calls in order. Raises whatever ``handler`` raises, except ToolMistake."""
        turn = ToolTurn()
        for call in action.tool_calls:
            answer = self._refusal(call, turn)
            if answer is None:
                turn.run += 1
                try:
                    answer = _answer(handler(call.name, call.arguments or {}))
                except ToolMistake as mistake:
                    answer = ToolAnswer(str(mistake), effective=False)
            turn.calls.append(call)
            turn.answers.append(answer)
        return turn

    async def run_async(self, action: Action, handler: AsyncHandler) -> ToolTurn:
        """Like :meth:`run` with a coroutine function; still one call after the other."""
        turn = ToolTurn()
        for call in action.tool_calls:
            answer = self._refusal(call, turn)
            if answer is None:
                turn.run += 1
                try:
                    answer = _answer(await handler(call.name, call.arguments or {}))
                except ToolMistake as mistake:
                    answer = ToolAnswer(str(mistake), effective=False)
            turn.calls.append(call)
            turn.answers.append(answer)
        return turn

    def problem(self, call: ToolCall) -> str | None:
        """What is wrong with the call, in one line that teaches; None if it can be run."""
        spec = self._by_name.get(call.name)
        if call.parse_error is not None:
            how = f" Write it as {signature(spec)}, arguments in JSON." if spec else ""
            return f"The call could not be read: {clip(call.parse_error, _QUOTED)}.{how}"
        if spec is None:
            near = get_close_matches(call.name[:_QUOTED], self._by_name, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            return f"There is no tool {clip(call.name, 60)!r}.{hint} Tools: {self._names()}."
        if call.arguments is None:
            return f"The call has no arguments. Write it as {signature(spec)}, arguments in JSON."
        wrong = _mismatch(self._validators[spec.name], call.arguments)
        return f"Wrong arguments: {wrong}. It is {signature(spec)}." if wrong else None

    def usage(self) -> str:
        """What to tell a policy that called no tool."""
        return f"No tool was called. Tools: {self._names()}."

    def _refusal(self, call: ToolCall, so_far: ToolTurn) -> ToolAnswer | None:
        if so_far.ended:
            return ToolAnswer("Not run: the episode ended with the call before.", effective=False)
        if len(so_far.calls) >= self.max_calls:
            return ToolAnswer(f"Not run: at most {self.max_calls} calls a turn.", valid=False, effective=False)
        problem = self.problem(call)
        return None if problem is None else ToolAnswer(problem, valid=False, effective=False)

    def _names(self) -> str:
        more = len(self.specs) - _LISTED
        return ", ".join(signature(spec) for spec in self.specs[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def signature(spec: ToolSpec) -> str:
    """``search(query: string, k?: integer)``: a tool as people write functions, from its JSON Schema."""
    required = spec.parameters.get("required", [])
    properties = spec.parameters.get("properties", {})
    parts = [f"{name}{'' if name in required else '?'}: {_kind(schema)}" for name, schema in properties.items()]
    return f"{spec.name}({', '.join(parts)})"


def clip(text: str, limit: int) -> str:
    """At most ``limit`` characters of ``text``, then how many were left out."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters left out)"


def _answer(given: ToolAnswer | str) -> ToolAnswer:
    answer = ToolAnswer(given) if isinstance(given, str) else given
    try:
        answer.content.encode()
    except UnicodeEncodeError:  # a lone surrogate is no text and would not go over the wire
        return replace(answer, content=answer.content.encode(errors="replace").decode())
    return answer


def _kind(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "any"
    if "enum" in schema:
        return clip("|".join(map(str, schema["enum"])), 80)
    kind = schema.get("type")
    if kind is None and ("anyOf" in schema or "oneOf" in schema):
        return "|".join(dict.fromkeys(_kind(one) for one in schema.get("anyOf") or schema["oneOf"]))
    return "|".join(kind) if isinstance(kind, list) else str(kind or "any")


def _validator(spec: ToolSpec) -> Validator:
    made: type[Validator] = validator_for(spec.parameters, default=jsonschema.Draft202012Validator)
    try:
        made.check_schema(spec.parameters)
    except jsonschema.SchemaError as error:
        raise ValueError(f"tool {spec.name!r} has an invalid JSON Schema: {clip(error.message, _QUOTED)}") from error
    nothing: Registry[Any] = Registry()  # without one, a "$ref" to an address would be fetched
    return made(spec.parameters, registry=nothing)


def _mismatch(validator: Validator, arguments: JsonObject) -> str | None:
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(arguments))
    except RecursionError:
        return "they are nested too deeply"
    except Unresolvable as reference:
        raise ValueError(f"a tool's JSON Schema refers to something that is not in it: {reference}") from reference
    if error is None:
        return None
    where = "/".join(map(str, error.absolute_path))
    return f"{where}: {clip(error.message, _QUOTED)}" if where else clip(error.message, _QUOTED)
