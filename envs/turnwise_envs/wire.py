"""Request and answer bodies of the v1 protocol, shared by the server and its clients."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from turnwise_envs.types import Action, EnvSpec, JsonObject, Noun, Observation, Reward, StepInfo, Task, ToolSpec

PROTOCOL_VERSION = "1"
#: WebSocket subprotocol in which every message is a list of frames, or of replies, where plainly it is one of them.
MANY = "turnwise.v1.many"
Status = Literal["live", "done", "failed"]


class CreateRequest(Noun):
    """Open a session; ``actions`` are replayed first, and must then lead to ``expect_hash`` if that is given."""

    env: str
    split: str = "train"
    index: int = Field(default=0, ge=0)
    seed: int = 0
    options: JsonObject = Field(default_factory=dict)
    key: str | None = Field(default=None, min_length=1, max_length=200)
    actions: list[Action] = Field(default_factory=list)
    expect_hash: str | None = None


class StepRequest(Noun):
    """``turn`` is the index of this action: the number of actions taken before it."""

    turn: int = Field(ge=0)
    action: Action


class FinishRequest(Noun):
    """The client ends the episode before taking turn ``turn``."""

    turn: int = Field(ge=0)
    reason: str = Field(min_length=1, max_length=200)


class ForkRequest(Noun):
    """Branch ``count`` sessions off at ``at_turn`` (default: now)."""

    at_turn: int | None = None
    count: int = Field(default=1, ge=1)
    key: str = Field(min_length=1, max_length=200)


class SessionView(Noun):
    """A session at its current turn."""

    session_id: str
    env: str
    env_version: str
    seed: int
    options: JsonObject
    turn: int
    task: Task
    tools: list[ToolSpec]
    max_turns: int
    observation: Observation
    status: Status
    log_hash: str


class StepView(Noun):
    """The answer to a step or a finish."""

    session_id: str
    turn: int
    observation: Observation
    reward: Reward
    terminated: bool
    truncated: bool
    info: StepInfo
    status: Status
    log_hash: str


class ForkView(Noun):
    sessions: list[SessionView]


class HistoryStep(StepView):
    """One recorded step; ``action`` is None for a ``finish``, whose reason is then in ``info.end``."""

    action: Action | None


class HistoryView(Noun):
    initial: SessionView
    steps: list[HistoryStep]


class SessionSummary(Noun):
    session_id: str
    env: str
    task_id: str
    turn: int
    status: Status


class SessionPage(Noun):
    items: list[SessionSummary]
    total: int


class EnvPage(Noun):
    items: list[EnvSpec]
    total: int


class TaskPage(Noun):
    items: list[Task]
    total: int | None


class Call(Noun):
    """One call of a batch: what an HTTP request would be. ``trace`` is a W3C ``traceparent``."""

    method: str
    path: str
    body: Any = None
    trace: str | None = None


class Frame(Call):
    """One call on a socket; ``id`` is what the reply to it will carry."""

    id: int | str


class BatchRequest(Noun):
    """``requests`` are :class:`Call` each; they are checked one by one, so that a bad one harms no other."""

    requests: list[Any]


class Reply(Noun):
    """What HTTP would answer; ``body`` is a :class:`Problem` for a status of 400 and more, null for 204."""

    status: int
    body: Any


class BatchView(Noun):
    """The replies, in the order of the requests."""

    responses: list[Reply]


class FrameReply(Reply):
    """The reply to frame ``id``; null if what came was no frame."""

    id: int | str | None


class Problem(Noun):
    """RFC 9457 problem details, as ``application/problem+json``."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    retry_after: float | None = None


#: Every problem type of the protocol and its HTTP status. The wire carries ``urn:turnwise:<type>``.
PROBLEMS: dict[str, int] = {
    "not-found": 404,
    "unknown-env": 404,
    "unknown-task": 404,
    "invalid-request": 422,
    "turn-conflict": 409,
    "turn-ahead": 409,
    "session-done": 409,
    "step-indeterminate": 409,
    "replay-mismatch": 409,
    "version-mismatch": 409,
    "not-forkable": 409,
    "session-expired": 410,
    "session-deleted": 410,
    "session-lost": 410,
    "too-many-sessions": 503,
    "journal-full": 503,
    "overloaded": 429,
    "env-failed": 500,
    "unauthorized": 401,
    "forbidden": 403,
    "payload-too-large": 413,
}
PROBLEM_URN = "urn:turnwise:"
