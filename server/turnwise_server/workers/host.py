"""Episodes in worker processes, as the session store sees them: a host like the local one.

Blocking environments go to workers, async ones stay on the loop.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from turnwise_envs.environment import Environment, SyncEnvironment
from turnwise_envs.episode import Record, check_options
from turnwise_envs.errors import EnvironmentFault, EpisodeDone, InvalidOptions, UnknownTask
from turnwise_envs.types import Action, JsonObject, Observation, Reference, StepResult, Task
from turnwise_envs.wire import TaskPage
from turnwise_server.hosts import Beginning, Episode, LocalHost, placeholder
from turnwise_server.workers.errors import remote_error
from turnwise_server.workers.messages import (
    Close,
    Fault,
    Finish,
    GetReference,
    ListTasks,
    Nothing,
    Reply,
    Request,
    Restore,
    Start,
    Started,
    Step,
    Stepped,
    Taken,
    TakeSnapshot,
)
from turnwise_server.workers.pool import WorkerPool
from turnwise_server.workers.process import Worker

A = TypeVar("A", bound=BaseModel)

_handles = itertools.count()


def in_workers(env_class: type[Environment]) -> bool:
    """Episodes of this class live in worker processes."""
    return issubclass(env_class, SyncEnvironment)


@dataclass(eq=False)
class WorkerEpisode:
    """An episode that lives in ``worker`` under ``handle``. The log is here, only the environment is there."""

    worker: Worker
    handle: int
    task: Task
    seed: int
    options: JsonObject
    initial: Observation
    initial_hash: str
    records: list[Record] = field(default_factory=list)

    @property
    def turn(self) -> int:
        finished = bool(self.records) and self.records[-1].action is None
        return len(self.records) - finished

    @property
    def done(self) -> bool:
        return bool(self.records) and self.records[-1].result.done

    @property
    def log_hash(self) -> str:
        return self.records[-1].log_hash if self.records else self.initial_hash

    async def step(self, action: Action) -> StepResult:
        self._check_live()
        request = Step(handle=self.handle, action=action)
        return self._take(action, await _ask(self.worker, self._what("step"), request, Reply[Stepped]))

    async def finish(self, reason: str) -> StepResult:
        self._check_live()
        request = Finish(handle=self.handle, reason=reason)
        return self._take(None, await _ask(self.worker, self._what("finish"), request, Reply[Stepped]))

    async def snapshot(self) -> bytes:
        request = TakeSnapshot(handle=self.handle)
        return (await _ask(self.worker, self._what("snapshot"), request, Reply[Taken])).snapshot

    async def close(self) -> None:
        """The worker closes the environment in its own time; a session does not wait for that."""
        _discard(self.worker, self.handle, self._what("close"))

    def _check_live(self) -> None:
        if self.done:
            raise EpisodeDone(f"{self.task.id} ended at turn {self.turn}")

    def _take(self, action: Action | None, stepped: Stepped) -> StepResult:
        self.records.append(Record(action, stepped.result, stepped.log_hash))
        return stepped.result

    def _what(self, call: str) -> str:
        return f"{call} at turn {self.turn} of {self.task.id}"


class WorkerHost:
    """An :class:`~turnwise_server.hosts.EpisodeHost` that keeps blocking environments in ``pool``."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self._local = LocalHost()

    def keeps_time(self, env_class: type[Environment]) -> bool:
        return in_workers(env_class)

    async def start(
        self, env_class: type[Environment], split: str, index: int, seed: int, options: JsonObject
    ) -> Episode:
        if not in_workers(env_class):
            return await self._local.start(env_class, split, index, seed, options)
        check_options(env_class, options)
        env = env_class.spec.id
        request = Start(handle=next(_handles), env=env, split=split, index=index, seed=seed, options=options)
        worker = self.pool.place()
        what = f"reset of {env}/{split}/{index}"
        started = await _begin(worker, request.handle, what, request, Reply[Started])
        return WorkerEpisode(
            worker, request.handle, started.task, seed, options, started.observation, started.initial_hash
        )

    async def snapshot(self, episode: Episode) -> bytes:
        if isinstance(episode, WorkerEpisode):
            return await episode.snapshot()
        return await self._local.snapshot(episode)

    async def restore(
        self, env_class: type[Environment], begin: Beginning, turn: int, log_hash: str, snapshot: bytes
    ) -> Episode:
        if not in_workers(env_class):
            return await self._local.restore(env_class, begin, turn, log_hash, snapshot)
        request = Restore(
            handle=next(_handles),
            env=env_class.spec.id,
            task=begin.task,
            seed=begin.seed,
            options=begin.options,
            initial=begin.initial,
            initial_hash=begin.initial_hash,
            turn=turn,
            log_hash=log_hash,
            snapshot=snapshot,
        )
        worker = self.pool.place()
        await _begin(worker, request.handle, f"restoring {begin.task.id} at turn {turn}", request, Reply[Nothing])
        records = [placeholder(log_hash)] * turn
        return WorkerEpisode(
            worker, request.handle, begin.task, begin.seed, begin.options, begin.initial, begin.initial_hash, records
        )

    async def tasks(self, env_class: type[Environment], split: str, offset: int, limit: int) -> TaskPage:
        if not in_workers(env_class):
            return await self._local.tasks(env_class, split, offset, limit)
        request = ListTasks(env=env_class.spec.id, split=split, offset=offset, limit=limit)
        return await _ask(self.pool.place(), f"tasks of {env_class.spec.id}/{split}", request, Reply[TaskPage])

    async def reference(self, env_class: type[Environment], task: Task) -> Reference:
        if not in_workers(env_class):
            return await self._local.reference(env_class, task)
        request = GetReference(env=task.env, task=task)
        return await _ask(self.pool.place(), f"reference of {task.id}", request, Reply[Reference])

    async def close(self) -> None:
        await self.pool.close()


async def _begin(worker: Worker, handle: int, what: str, request: Request, reply: type[Reply[A]]) -> A:
    """Ask for a new episode; whatever happens but success, nothing of it stays."""
    worker.episodes.add(handle)
    try:
        return await _ask(worker, what, request, reply)
    except BaseException:
        _discard(worker, handle, f"close after {what}")
        raise


def _discard(worker: Worker, handle: int, what: str) -> None:
    worker.episodes.discard(handle)
    worker.post(what, Close(handle=handle).model_dump_json().encode())


async def _ask(worker: Worker, what: str, request: Request, reply: type[Reply[A]]) -> A:
    """The answer to ``request``. Raises what the worker reports: UnknownTask, InvalidOptions, EnvironmentFault."""
    raw = await worker.call(what, request.model_dump_json().encode())
    try:
        said = reply.model_validate_json(raw)
    except ValidationError as error:
        raise EnvironmentFault(f"{what}: worker {worker.pid} gave no proper answer: {error}") from error
    if said.answer is None:
        raise _raised(what, said.fault)
    return said.answer


def _raised(what: str, fault: Fault | None) -> Exception:
    if fault is None:
        return EnvironmentFault(f"{what}: neither answer nor fault")
    if fault.type == "unknown-task":
        return UnknownTask(fault.text)
    if fault.type == "invalid-options":
        return InvalidOptions(fault.text)
    unexpected = fault.type == "unexpected"
    error = EnvironmentFault(f"{what} failed: {fault.kind}: {fault.text}" if unexpected else fault.text)
    error.__cause__ = remote_error(fault.kind, fault.text, fault.trace)
    return error
