"""What OpenEnv's clients send, and what they are answered. Pure."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from turnwise_envs.types import Action, EnvSpec, JsonObject, Noun, Observation, Task, ToolCall
from turnwise_server.bodies import check_values
from turnwise_server.refusal import Refusal

N = TypeVar("N", bound=BaseModel)

#: Error codes that OpenEnv's clients know.
Code = Literal[
    "INVALID_JSON",
    "UNKNOWN_TYPE",
    "VALIDATION_ERROR",
    "EXECUTION_ERROR",
    "CAPACITY_REACHED",
    "SESSION_ERROR",
]

#: Which code a refusal of ours has there; any other is an EXECUTION_ERROR.
CODES: dict[str, Code] = {
    "invalid-request": "VALIDATION_ERROR",
    "unknown-task": "VALIDATION_ERROR",
    "payload-too-large": "VALIDATION_ERROR",
    "too-many-sessions": "CAPACITY_REACHED",
    "journal-full": "CAPACITY_REACHED",
    "overloaded": "CAPACITY_REACHED",
    "not-found": "SESSION_ERROR",
    "session-expired": "SESSION_ERROR",
    "session-deleted": "SESSION_ERROR",
    "session-lost": "SESSION_ERROR",
}

#: The tool of environments that have none: MCP knows nothing but tools.
ACT = "act"


class Failed(Exception):
    """The client is told so; ``code`` is one of OpenEnv's, ``more`` goes along."""

    def __init__(self, code: Code, message: str, **more: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.more = more

    @property
    def retry_after(self) -> float | None:
        """Seconds until the same may go well."""
        after = self.more.get("retry_after")
        return float(after) if isinstance(after, int | float) else None


class Message(Noun):
    """One frame of a client."""

    type: str
    data: JsonObject = Field(default_factory=dict)


class ResetData(Noun):
    """What ``reset`` takes. The task is ``task_id``, or ``index`` of ``split``, or ``seed`` modulo the split's size."""

    seed: int | None = None
    episode_id: str | None = Field(default=None, max_length=255)
    split: str | None = None
    index: int | None = Field(default=None, ge=0)
    task_id: str | None = None
    options: JsonObject = Field(default_factory=dict)


class CallTool(Noun):
    """OpenEnv's action for tools."""

    type: Literal["call_tool"]
    tool_name: str = Field(min_length=1)
    arguments: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)


class WireObservation(BaseModel):
    """What ``observation`` is in an answer. For the page of schemas; answers are made by :func:`observed`."""

    model_config = ConfigDict(extra="forbid")

    text: str
    messages: list[JsonObject]
    context: Literal["append", "replace"]
    state_key: str | None
    admissible_actions: list[str] | None
    metadata: JsonObject


class WireState(BaseModel):
    """What ``state`` answers with."""

    episode_id: str | None
    step_count: int
    session_id: str | None
    env: str
    task: Task | None
    status: str | None
    log_hash: str | None


def read_message(text: str | bytes) -> Message:
    """Raises Failed."""
    try:
        check_values(text)
        value = from_json(text)
    except Refusal as refusal:
        raise Failed("VALIDATION_ERROR", refusal.detail, problem=refusal.problem) from None
    except ValueError as error:
        raise Failed("INVALID_JSON", f"Invalid JSON: {error}") from None
    return read(Message, value, "Invalid message")


def read_action(data: JsonObject, spec: EnvSpec, turn: int) -> Action:
    """The action in a step's data: ours, or OpenEnv's for a tool. Raises Failed."""
    if data.get("type") == "call_tool":
        call = read(CallTool, data, "Invalid action")
        return tool_action(spec, call.tool_name, call.arguments, turn)
    plain = {key: value for key, value in data.items() if key != "metadata"}  # of every action there; means nothing
    return read(Action, plain, "Invalid action")


def tool_action(spec: EnvSpec, name: str, arguments: JsonObject, turn: int) -> Action:
    """A call of a tool as an action; :data:`ACT` is the text itself where an environment has no tools."""
    if name == ACT and not spec.tools:
        return Action(text=str(arguments.get("text", "")))
    return Action(tool_calls=[ToolCall(id=f"c{turn}_0", name=name, arguments=arguments)])


def read(model: type[N], value: object, what: str) -> N:
    """Raises Failed with the errors that pydantic found."""
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        where = ".".join(map(str, errors[0]["loc"]))
        detail = f"{what}: {where + ': ' if where else ''}{errors[0]['msg']}"
        raise Failed("VALIDATION_ERROR", detail, errors=errors) from None


def observed(
    observation: JsonObject, reward: float | None, done: bool, metadata: JsonObject, **more: Any
) -> JsonObject:
    """The ``data`` of an answer to a reset or step; ``observation`` is ours, as JSON."""
    text = Observation.model_validate(observation).text
    seen = {"text": text, **observation, "metadata": metadata}
    return {"observation": seen, "reward": reward, "done": done, "metadata": metadata}


def frame(kind: str, data: JsonObject) -> str:
    return to_json({"type": kind, "data": data}).decode()


def failure(error: Failed) -> str:
    return frame("error", {"message": error.message, "code": error.code, **error.more})


def tools_of(spec: EnvSpec) -> list[JsonObject]:
    """An environment's tools in MCP's words."""
    if not spec.tools:
        parameters = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        return [{"name": ACT, "description": f"Act in {spec.id}: say what you do.", "inputSchema": parameters}]
    return [{"name": tool.name, "description": tool.description, "inputSchema": tool.parameters} for tool in spec.tools]
