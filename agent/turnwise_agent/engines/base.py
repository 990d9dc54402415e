"""What an inference engine is: token ids in, token ids out, with what the learner needs to know about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from turnwise_agent.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw an action.

    Attributes:
        max_tokens: most tokens to draw, the stop token included.
        stop_ids: drawing ends after one of these; it belongs to the action.
        temperature: logits are divided by it; 0 is greedy. Log-probs and entropies are of the tempered distribution
            (of the plain one when greedy).
        seed: key of the random stream: the same key draws with the same random numbers wherever it is in a batch.
        top_entropy_k: how many alternatives enter ``Generation.top_entropies``.

    Raises:
        EngineError: a number is out of range.
    """

    max_tokens: int
    stop_ids: tuple[int, ...]
    temperature: float = 1.0
    seed: tuple[int, ...] = (0,)
    top_entropy_k: int = 10

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.top_entropy_k < 1:
            raise EngineError(f"max_tokens ({self.max_tokens}) and top_entropy_k ({self.top_entropy_k}) start at 1")
        if not 0.0 <= self.temperature < float("inf"):
            raise EngineError(f"temperature must be 0 (greedy) or a positive number, not {self.temperature}")
        if min(self.seed, default=0) < 0:
            raise EngineError(f"the numbers of a seed are not negative: {self.seed}")


@dataclass(frozen=True, slots=True)
class Generation:
    """What was drawn, per token: ids, log-probs and entropies in nats, weight versions.

    ``handle`` stands for the context up to and including this action; pass it as ``parent`` of the next call, from
    several callers at once if the path forks. An engine keeps what belongs to a handle as long as the handle lives.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    top_entropies: tuple[float, ...]
    versions: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    handle: object


class Engine(Protocol):
    """Every engine: in process, over HTTP, or scripted.

    Attributes:
        can_probe: whether :meth:`score` says what the policy believes, as a short continuation of what is cached.
    """

    @property
    def can_probe(self) -> bool: ...

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, parent: object | None = None) -> Generation:
        """Draw an action after ``parent``'s context followed by ``prompt_ids``."""
        ...

    async def score(
        self,
        prompt_ids: Sequence[int],
        continuation_ids: Sequence[int],
        parent: object | None = None,
        *,
        given: int = 0,
    ) -> tuple[float, ...]:
        """Log-probs (nats, temperature 1) of ``continuation_ids`` after ``parent``'s context and ``prompt_ids``.

        The first ``given`` tokens of the continuation are read, but not scored. No continuation leaves a trace: ask with
        the prompt of a :meth:`generate` that waits at the same time, and the prompt is computed once for both.
        """
        ...

    async def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Swap the weights in; what is generated from now on carries ``version``."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...
