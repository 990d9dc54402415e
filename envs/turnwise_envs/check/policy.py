"""Actions for the checker: what a sensible policy might do, and what no environment may raise on."""

from __future__ import annotations

import random
from typing import Any, Literal

from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Action, EnvSpec, JsonObject, ToolCall, ToolSpec

#: Longest recorded episode. Faults that need more turns than this are rare, and replays cost time.
MAX_RECORDED_TURNS = 40
MAX_GUESSED_TURNS = 15


class Player:
    """Chooses the actions of one episode: an expert's, admissible ones at random, or plausible text and tool calls.

    An uninformed one never asks the expert, who may know the answers. Without a ``limit`` it plays to the end. ``last`` says what it chose: a ``known`` action, a ``guess`` that may be wrong but must not raise, or to ``stop``;
    ``action`` is the action.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        follow_expert: bool = False,
        uninformed: bool = False,
        limit: int | None = MAX_RECORDED_TURNS,
    ) -> None:
        self._rng = rng
        self._asks_expert = 0.0 if uninformed else 1.0 if follow_expert else 0.3
        self._limit = limit
        self.last: Literal["known", "guess", "stop"] = "known"
        self.action = Action()

    def __call__(self, episode: LiveEpisode) -> Action | None:
        action = self._known(episode)
        longest = MAX_GUESSED_TURNS if action is None else MAX_RECORDED_TURNS
        if self._limit is not None and episode.turn >= min(self._limit, longest):
            self.last = "stop"
            return None
        self.last = "guess" if action is None else "known"
        self.action = action or self._guess(episode)
        return self.action

    def _known(self, episode: LiveEpisode) -> Action | None:
        if self._rng.random() < self._asks_expert:
            expert = episode.env.expert_action()
            if expert is not None:
                return expert
        admissible = episode.observation.admissible_actions
        return Action(text=self._rng.choice(admissible)) if admissible else None

    def _guess(self, episode: LiveEpisode) -> Action:
        words = episode.observation.text.split() or ["look"]
        if episode.env.spec.tools and self._rng.random() < 0.8:
            tool = self._rng.choice(episode.env.spec.tools)
            arguments = example_arguments(tool, self._rng, words)
            return Action(tool_calls=[ToolCall(id=f"c{episode.turn}_0", name=tool.name, arguments=arguments)])
        word = self._rng.choice(words)
        pool = ["look", str(self._rng.randrange(100)), word, " ".join(words[:5])]
        pool += [f"<{tag}>{word}</{tag}>" for tag in ("answer", "search", "action")]
        return Action(text=self._rng.choice(pool))


def example_arguments(tool: ToolSpec, rng: random.Random, words: list[str]) -> JsonObject:
    """Arguments that fit the plain parts of the tool's schema (types, enums, required fields)."""
    value = _example(tool.parameters, rng, words)
    return value if isinstance(value, dict) else {}


def _example(schema: Any, rng: random.Random, words: list[str]) -> Any:
    if not isinstance(schema, dict):
        return None
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _example(schema[union][0], rng, words)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        return {
            name: _example(properties[name], rng, words)
            for name in properties
            if name in required or rng.random() < 0.5
        }
    if kind == "array":
        return [_example(schema.get("items", {}), rng, words) for _ in range(max(1, schema.get("minItems", 1)))]
    if kind in {"integer", "number"}:
        return rng.randint(int(schema.get("minimum", 0)), int(schema.get("maximum", schema.get("minimum", 0) + 10)))
    if kind == "boolean":
        return rng.random() < 0.5
    return None if kind == "null" else rng.choice(words)


def junk_actions(spec: EnvSpec) -> list[Action]:
    """What a broken, confused or hostile policy sends. All of it is a well-formed envelope."""
    texts = [
        "", " \n\t ", "\x00\x07\x1b[2J", "💥🧨", "ﷺ\u202eabc\u0301\u0301", "\u2028\ufeff", "²", "-1", "1e999", "NaN",
        "9" * 5000, "x" * 100_000, "<think>", "</think>", "<think>only thought</think>", "<answer>", "<answer></answer>",
        "<search></search>", "<a><b><c>" * 200, "{0} %s %n ${x} \\", "'; DROP TABLE tasks; --", "((((((((", "[" * 5000,
        '{"name": "', "null", "../../etc/passwd", "go to", "take  from ",
    ]  # fmt: skip
    calls: list[list[ToolCall]] = [
        [_call("no_such_tool", {})],
        [_call("", {})],
        [ToolCall(id="c0_0", name="broken", raw='{"name": ', parse_error="Expecting value")],
        [_call("no_such_tool", {"x": _nested(40)})],
    ]
    for tool in spec.tools:
        names = list(tool.parameters.get("properties", {})) or ["x"]
        calls += [[_call(tool.name, {})], [_call(tool.name, {"no_such_argument": 1})]]
        for value in (None, 10**15, -1, "", "'\"%;--\x00", "y" * 50_000, [_nested(20)], {"": True}):
            calls.append([_call(tool.name, dict.fromkeys(names, value))])
        calls.append([ToolCall(id="c0_0", name=tool.name, raw="{{", parse_error="not JSON")])
    if spec.tools:
        first = spec.tools[0].name
        calls.append([_call(first, {}, call_id=f"c0_{i}") for i in range(30)])
        calls.append([_call(first, {}), _call("no_such_tool", {}, call_id="c0_1")])
    return [Action(text=text) for text in texts] + [Action(text="both", tool_calls=one) for one in calls]


def _call(name: str, arguments: JsonObject, call_id: str = "c0_0") -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=arguments)


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value
