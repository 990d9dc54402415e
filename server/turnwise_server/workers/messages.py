"""What server and worker say to each other: JSON, checked on arrival. No pickles, so that no byte becomes code.

The server speaks first (:class:`Hello`), the worker says :class:`Ready`, and then each request gets one answer, in order.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from turnwise_envs.address import Address
from turnwise_envs.types import Action, JsonObject, Observation, Reference, StepResult, Task
from turnwise_envs.wire import TaskPage


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Hello(Message):
    """Where modules are found, and which environments will be asked for, by id."""

    sys_path: list[str]
    environments: dict[str, Address]


class Ready(Message):
    """The worker has imported what it could; an environment that it could not import fails when it is asked for."""

    pid: int


class Nothing(Message):
    """The answer to a request that asks for an effect only."""


class Started(Message):
    task: Task
    observation: Observation
    initial_hash: str


class Stepped(Message):
    """``log_hash`` is the hash of the history with this result in it."""

    result: StepResult
    log_hash: str


class Taken(Message):
    snapshot: bytes


class Start(Message):
    """Begin an episode. The server chooses its ``handle``, and names it by that from now on."""

    op: Literal["start"] = "start"
    handle: int
    env: str
    split: str
    index: int
    seed: int
    options: JsonObject


class Restore(Message):
    """Begin an episode at ``turn``, from a snapshot."""

    op: Literal["restore"] = "restore"
    handle: int
    env: str
    task: Task
    seed: int
    options: JsonObject
    initial: Observation
    initial_hash: str
    turn: int
    log_hash: str
    snapshot: bytes


class Step(Message):
    op: Literal["step"] = "step"
    handle: int
    action: Action


class Finish(Message):
    op: Literal["finish"] = "finish"
    handle: int
    reason: str


class TakeSnapshot(Message):
    op: Literal["snapshot"] = "snapshot"
    handle: int


class Close(Message):
    op: Literal["close"] = "close"
    handle: int


class ListTasks(Message):
    op: Literal["tasks"] = "tasks"
    env: str
    split: str
    offset: int
    limit: int


class GetReference(Message):
    op: Literal["reference"] = "reference"
    env: str
    task: Task


Request = Start | Restore | Step | Finish | TakeSnapshot | Close | ListTasks | GetReference
Answer = Nothing | Started | Stepped | Taken | TaskPage | Reference
REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


FaultType = Literal["unknown-task", "invalid-options", "environment", "unexpected"]


class Fault(Message):
    """Why there is no answer. ``kind`` is the name of the exception's class; only ``unexpected`` lacks the context."""

    type: FaultType
    kind: str
    text: str
    trace: str


A = TypeVar("A", bound=BaseModel)


class Reply(Message, Generic[A]):
    """An answer or a fault."""

    answer: A | None = None
    fault: Fault | None = None
