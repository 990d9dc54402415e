"""The workers of a server: which one gets a new episode, and a new one for each that ends.

A process is started when it is first needed and replaced at once when it was lost in its work. One that did not even
start is tried again only when it is needed, so that a broken installation does not spin.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from contextvars import Context
from dataclasses import dataclass

from turnwise_envs.address import address, is_local
from turnwise_envs.environment import Environment
from turnwise_envs.errors import EnvironmentFault
from turnwise_server.workers.messages import Hello
from turnwise_server.workers.process import Ending, Worker

logger = logging.getLogger(__name__)

#: Seconds that environments get to close when the server stops.
GRACE = 2.0
#: What a worker needs of the server's environment variables: no token, key or password has such a name.
PASSED_ON = frozenset(
    {
        *("PATH", "LD_LIBRARY_PATH", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"),
        *("HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
        *("LANG", "LANGUAGE", "TZ", "OMP_NUM_THREADS"),
    }
)


@dataclass(frozen=True)
class WorkerState:
    """One worker, for metrics and people. ``episodes`` live in it, ``queued`` calls have no answer yet."""

    pid: int
    ready: bool
    episodes: int
    queued: int


class WorkerPool:
    """At most ``size`` processes for ``envs``; ``limit`` bounds one call, in seconds.

    ``pass_on`` names variables that workers get besides :data:`PASSED_ON`. Into ``restarts`` it counts the workers that
    were lost, by how: ``crash`` (it ended by itself or was killed from outside) or ``hang`` (killed for the time it
    took).
    """

    def __init__(
        self,
        envs: Iterable[type[Environment]],
        size: int,
        limit: float,
        pass_on: Iterable[str] = (),
        restarts: MutableMapping[str, int] | None = None,
    ) -> None:
        """Starts nothing yet. Raises ValueError for a class that other processes cannot import."""
        classes = list(envs)
        for env_class in classes:
            if is_local(env_class):
                raise ValueError(
                    f"environment {env_class.spec.id!r} runs in worker processes, which cannot import "
                    f"{env_class.__qualname__}: define it at the top of a module"
                )
        self.restarts = {} if restarts is None else restarts
        self.restarts.update(crash=0, hang=0)
        self._addresses = {env_class.spec.id: address(env_class) for env_class in classes}
        self._limit = limit
        self._environ = environment(os.environ, pass_on)
        self._slots: list[Worker | None] = [None] * size
        self._ending: set[asyncio.Task[None]] = set()
        self._open = True

    def warm(self) -> None:
        """Start all processes now, in the background, if there is an environment for them."""
        if not self._addresses:
            return
        for slot, worker in enumerate(self._slots):
            if worker is None:
                self._start(slot)

    def place(self) -> Worker:
        """The worker for a new episode: the one with the fewest.

        Raises:
            EnvironmentFault: the system lets us have no process, or the server stops.
        """
        if not self._open:
            raise EnvironmentFault("the server is stopping")
        slot = min(range(len(self._slots)), key=self._load)
        worker = self._slots[slot]
        if worker is not None:
            return worker
        try:
            return self._start(slot)
        except OSError as error:
            raise EnvironmentFault(f"cannot start a worker process: {error}") from error

    def states(self) -> list[WorkerState]:
        """The processes that there are."""
        return [
            WorkerState(worker.pid, worker.ready, len(worker.episodes), worker.queued)
            for worker in self._slots
            if worker is not None
        ]

    async def close(self) -> None:
        """End all processes, after their calls in hand and with their environments closed if that is quick."""
        self._open = False
        await asyncio.gather(*(worker.stop(GRACE) for worker in self._slots if worker is not None))
        if self._ending:
            await asyncio.wait(self._ending, timeout=GRACE)

    def _load(self, slot: int) -> tuple[int, int]:
        worker = self._slots[slot]
        return (0, 0) if worker is None else (len(worker.episodes), worker.queued)

    def _start(self, slot: int) -> Worker:
        # sys.path is read now, not earlier: a server may extend it before its first session.
        hello = Hello(sys_path=sys.path, environments=self._addresses)
        # In a context of its own: what happens to a worker is no part of the request that it was started for.
        worker = Context().run(Worker, hello, self._environ, self._limit, self._on_end)
        self._slots[slot] = worker
        return worker

    def _on_end(self, worker: Worker, ending: Ending) -> None:
        task = asyncio.create_task(_gone(worker))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        slot = self._slots.index(worker)
        self._slots[slot] = None
        if ending == "stopped" or not self._open:
            return
        self.restarts[ending] += 1
        if worker.ready:
            try:
                self._start(slot)
            except OSError:
                logger.exception("cannot replace worker %d yet", worker.pid)


async def _gone(worker: Worker) -> None:
    await worker.gone.wait()


def environment(ours: Mapping[str, str], pass_on: Iterable[str] = ()) -> dict[str, str]:
    """The environment variables of a worker: a list of harmless ones, locale settings, and those in ``pass_on``."""
    names = PASSED_ON | set(pass_on)
    return {name: value for name, value in ours.items() if name in names or name.startswith("LC_")}
