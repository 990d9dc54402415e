"""An engine that plays a given function: experts, baselines and tests. No model, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from turnwise_agent.engines.base import Generation, Sampling
from turnwise_agent.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

#: From the whole context (prompts and actions so far) to the ids of the next action, stop token included.
Script = Callable[[tuple[int, ...]], Sequence[int]]


class ScriptedEngine:
    """An :class:`~turnwise_agent.engines.base.Engine` whose actions come from ``script``::

        engine = ScriptedEngine(lambda context: renderer.action_ids("look"))

    What it says is certain: log-probs and entropies are 0. ``sampling`` only bounds the length. A handle is the context
    itself, and the version is what was published last. It believes nothing, so there is nothing to probe.
    """

    can_probe = False

    def __init__(self, script: Script) -> None:
        self.version = 0
        self._script = script

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, parent: object | None = None) -> Generation:
        """Raises EngineError if the context or the script's action is empty, or ``parent`` is no handle."""
        context = _context(prompt_ids, parent)
        ids = tuple(self._script(context))[: sampling.max_tokens]
        if not ids:
            raise EngineError("the script gave an empty action; an action has at least its stop token")
        zeros = (0.0,) * len(ids)
        return Generation(
            token_ids=ids,
            logprobs=zeros,
            entropies=zeros,
            top_entropies=zeros,
            versions=(self.version,) * len(ids),
            finish_reason="stop" if ids[-1] in sampling.stop_ids else "length",
            handle=context + ids,
        )

    async def score(
        self,
        prompt_ids: Sequence[int],
        continuation_ids: Sequence[int],
        parent: object | None = None,
        *,
        given: int = 0,
    ) -> tuple[float, ...]:
        """0 for what the script would say, minus infinity from the first token on that it would not."""
        context, wanted = _context(prompt_ids, parent), tuple(continuation_ids)
        said = tuple(self._script(context))
        agreed = next((i for i, token in enumerate(wanted) if said[i : i + 1] != (token,)), len(wanted))
        return ((0.0,) * agreed + (float("-inf"),) * (len(wanted) - agreed))[given:]

    async def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        self.version = version

    async def close(self) -> None:
        """Nothing to free."""


def _context(prompt_ids: Sequence[int], parent: object | None) -> tuple[int, ...]:
    if parent is not None and not isinstance(parent, tuple):
        raise EngineError(f"parent must be the handle of an earlier generation, not {type(parent).__name__}")
    context = (parent or ()) + tuple(prompt_ids)
    if not context:
        raise EngineError("the prompt is empty: give at least one token")
    return context
