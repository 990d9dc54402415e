"""Does an ``async`` environment hold up the event loop?

Instead of watching the loop from outside, each coroutine is run by hand, so that the time between two of its awaits
is known exactly. On a busy machine any such stretch can look long; only one that is long each time counts.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from turnwise_envs.check.subject import Failure, Skip, Subject
from turnwise_envs.check.trace import Trace
from turnwise_envs.environment import SyncEnvironment

LIMIT_SECONDS = 0.005
#: A suspicious call is repeated at most so often, and its shortest time counts.
REPEATS = 10

T = TypeVar("T")


async def blocking(subject: Subject) -> None:
    if issubclass(subject.env_class, SyncEnvironment):
        raise Skip("a SyncEnvironment does not run on the event loop.")
    for trace in subject.traces:
        shortest = await _stretches(subject, trace)
        for _ in range(REPEATS):
            if max(shortest) <= LIMIT_SECONDS:
                break
            again = await _stretches(subject, trace)
            shortest = [min(pair) for pair in zip(shortest, again, strict=False)]
        slowest = max(range(len(shortest)), key=shortest.__getitem__)
        if shortest[slowest] > LIMIT_SECONDS:
            call = "`reset`" if slowest == 0 else f"`step` at turn {slowest - 1}"
            raise Failure(
                f"an async environment must not hold the event loop for more than {LIMIT_SECONDS * 1000:.0f} ms, but "
                f"{call} of {trace.where} held it for {shortest[slowest] * 1000:.0f} ms or more, {REPEATS + 1} times out "
                f"of {REPEATS + 1}; await what blocks, or derive from SyncEnvironment."
            )


async def _stretches(subject: Subject, trace: Trace) -> list[float]:
    """Longest stretch without an await, in seconds, of the reset and of each step."""
    env = subject.env_class()
    task = subject.env_class.tasks.get(trace.split, trace.index)
    try:
        calls = [_Timed(env.reset(task, trace.seed, dict(trace.options)))]
        await calls[0]
        for action in trace.actions:
            timed = _Timed(env.step(action))
            await timed
            calls.append(timed)  # type: ignore[arg-type]
    finally:
        await env.close()
    return [call.longest for call in calls]


class _Timed(Awaitable[T], Generic[T]):
    """Awaits a coroutine and keeps the longest time between two of its awaits."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self.longest = 0.0

    def __await__(self) -> Generator[Any, Any, T]:
        send, value = self._coroutine.send, None
        while True:
            begun = time.perf_counter()
            try:
                waited_for = send(value)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self.longest = max(self.longest, time.perf_counter() - begun)
            try:
                value, send = (yield waited_for), self._coroutine.send
            except BaseException as error:
                value, send = error, self._coroutine.throw
