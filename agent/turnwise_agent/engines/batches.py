"""What waits for the local engine, and how it is cut into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from turnwise_agent.engines.base import Sampling
from turnwise_agent.engines.cache import Node


@dataclass(eq=False)
class Request:
    """Somebody who waits for an action or for scores.

    Attributes:
        node: the prompt to continue.
        sampling: how to draw; None: score ``continuation`` from token ``given`` on.
        future: where the answer goes.
        hidden: [scored tokens, d], what they come from, once they are computed.
    """

    node: Node
    sampling: Sampling | None
    continuation: tuple[int, ...]
    given: int
    future: asyncio.Future[Any]
    hidden: Tensor | None = None

    @property
    def is_probe(self) -> bool:
        return self.sampling is None


@dataclass(frozen=True)
class Filling:
    """A segment to compute, and the probe that comes along behind it."""

    node: Node
    rider: Request | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.node.tokens + (self.rider.continuation[:-1] if self.rider else ())


def is_full(waiting: Sequence[Request], most: int) -> bool:
    """Whether there is nothing to wait for: a batch of draws or of probes is complete."""
    probes = sum(request.is_probe for request in waiting)
    return max(probes, len(waiting) - probes) >= most


def next_batch(waiting: Sequence[Request], most: int) -> tuple[list[Request], list[Request]]:
    """The first ``most`` draws and the first ``most`` probes, and the rest. Probes must not push draws apart."""
    room = {True: most, False: most}
    batch: list[Request] = []
    rest: list[Request] = []
    for request in waiting:
        (batch if room[request.is_probe] > 0 else rest).append(request)
        room[request.is_probe] -= 1
    return batch, rest


def of_similar_length(fillings: Sequence[Filling], most: int) -> Iterator[list[Filling]]:
    """Batches of at most ``most`` segments, none longer than 1.5 times the shortest: padding is computed, too."""
    batch: list[Filling] = []
    for filling in sorted(fillings, key=lambda filling: len(filling.tokens)):
        if batch and (len(batch) == most or len(filling.tokens) > 1.5 * len(batch[0].tokens)):
            yield batch
            batch = []
        batch.append(filling)
    yield batch


def fail(requests: Sequence[Request], error: Exception) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(error)
