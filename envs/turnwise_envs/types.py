"""The nouns that every room shares, as pydantic models: the source of truth of the wire protocol.

All models are frozen and refuse unknown fields when they are built. A client that reads answers of a newer
server validates with ``extra="ignore"``, since new optional response fields are compatible.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

JsonObject = dict[str, Any]

#: A reward must be a number: NaN and infinity are faults of the environment.
Reward = Annotated[float, Field(allow_inf_nan=False)]


class Noun(BaseModel):
    """Base of all shared models: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolSpec(Noun):
    """A tool that a policy may call; ``parameters`` is a JSON Schema of its arguments."""

    name: str
    description: str
    parameters: JsonObject = Field(default_factory=lambda: {"type": "object", "properties": {}})


class SplitSpec(Noun):
    """A named set of tasks; ``size`` is None when the split is unbounded."""

    name: str
    size: int | None = None


class EnvSpec(Noun):
    """What an environment is and promises.

    ``action_format`` says where the policy's action is: in its text, in tool calls, or in tags inside the text.
    ``deterministic`` promises that the same task, seed, options and actions give the same bytes.
    ``stateless_tools`` says that calling a tool changes nothing in the outside world.
    """

    id: str
    version: str = "1"
    description: str = ""
    action_format: Literal["text", "tools", "tags"] = "text"
    tools: list[ToolSpec] = Field(default_factory=list)
    max_turns: int = Field(default=30, ge=1)
    splits: list[SplitSpec] = Field(default_factory=lambda: [SplitSpec(name="train")])
    options_schema: JsonObject = Field(
        default_factory=lambda: {"type": "object", "properties": {}, "additionalProperties": False}
    )
    deterministic: bool = True
    snapshot: bool = False
    stateless_tools: bool = False


class Task(Noun):
    """The public half of a task. ``index`` alone fixes the initial world."""

    env: str
    split: str
    index: int = Field(ge=0)
    id: str
    instruction: str
    difficulty: float = Field(default=0.0, ge=0.0, le=1.0)
    metadata: JsonObject = Field(default_factory=dict)


class Reference(Noun):
    """The privileged half of a task: what a scorer needs. It never becomes part of an observation."""

    answers: list[str] = Field(default_factory=list)
    data: JsonObject = Field(default_factory=dict)


class ToolCall(Noun):
    """A tool call parsed by the agent. One that could not be parsed has ``arguments`` None and a ``parse_error``."""

    id: str
    name: str
    arguments: JsonObject | None = None
    raw: str | None = None
    parse_error: str | None = None


class Action(Noun):
    """What the policy did in one turn: its whole decoded text and the tool calls in it. Both may be empty."""

    text: str = ""
    tool_calls: list[ToolCall] = Field(default_factory=list)


class Message(Noun):
    """One chat message of an observation."""

    role: Literal["system", "user", "tool"] = "user"
    content: str
    tool_call_id: str | None = None


class Observation(Noun):
    """What the policy sees next.

    The first observation of an episode is the complete prompt. ``context="replace"`` means: forget the history,
    this is the whole prompt. ``state_key`` identifies the underlying state without counters, RNG or transcript.
    """

    messages: list[Message]
    context: Literal["append", "replace"] = "append"
    state_key: str | None = None
    admissible_actions: list[str] | None = None

    @classmethod
    def say(cls, text: str, **fields: Any) -> Self:
        """An observation of one user message: ``Observation.say("You see a door.")``."""
        return cls(messages=[Message(content=text)], **fields)

    @property
    def text(self) -> str:
        """All message contents, joined by newlines (for people and tests)."""
        return "\n".join(message.content for message in self.messages)


class StepInfo(Noun):
    """Facts about one step. ``end`` is ``solved``, ``failed``, ``max_turns`` or ``finished:REASON``."""

    action_valid: bool = True
    action_effective: bool = True
    error: str | None = None
    counters: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, Reward] = Field(default_factory=dict)
    end: str | None = None


class StepResult(Noun):
    """The answer of an environment to one action."""

    observation: Observation
    reward: Reward = 0.0
    terminated: bool = False
    truncated: bool = False
    info: StepInfo = Field(default_factory=StepInfo)

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated
