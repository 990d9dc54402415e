"""Answer probes: how likely does the policy find the gold answer, before each of its turns?

The answer comes from the task's Reference and goes to the engine's scorer, as the continuation of a context that nobody
keeps. It is part of no prompt; what remains of a probe are log-probs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turnwise_agent.engines.base import Engine
from turnwise_agent.errors import EngineError, EnvFailed, RolloutError
from turnwise_agent.renderer import Renderer

if TYPE_CHECKING:
    from turnwise_agent.client import Session

#: Where the answer stands in a template.
ANSWER = "{answer}"

#: IGPO's words (arXiv 2510.14967), behind which a policy that thinks and answers in tags would say what it knows.
PAPER_TEMPLATE = f"\nNow there's enough information to answer\n</think>\n<answer>\n{ANSWER}\n</answer>"


@dataclass(frozen=True, slots=True)
class AnswerProbe:
    """What the policy is made to say in a probe: an action of its own that gives the answer.

    Raises:
        RolloutError: the template does not have ``{answer}`` in it exactly once.
    """

    template: str = PAPER_TEMPLATE

    def __post_init__(self) -> None:
        if self.template.count(ANSWER) != 1:
            raise RolloutError(f"the template of a probe has {ANSWER} in it exactly once, not as in {self.template!r}")


class GroupProbe:
    """Probes the contexts of one group, each once: forks and siblings share what was read before they part.

    What they read is compared, not only where they stand: a world that promises no determinism may greet them differently.

    Raises:
        EngineError: the engine has no probabilities.
    """

    def __init__(self, probe: AnswerProbe, engine: Engine, renderer: Renderer) -> None:
        if not engine.can_probe:
            raise EngineError(
                f"{type(engine).__name__} cannot say how likely an answer is, so info_gain has nothing to measure; "
                "use LocalEngine, or an objective without it"
            )
        self._probe = probe
        self._engine = engine
        self._renderer = renderer
        self._learning = asyncio.Lock()
        self._ids: tuple[int, ...] = ()
        self._given = 0
        self._asked: dict[tuple[int | None, tuple[int, ...]], asyncio.Task[tuple[float, ...]]] = {}

    @property
    def tokens(self) -> int:
        """How many tokens a probe needs behind a prompt."""
        return len(self._ids)

    async def learn(self, session: Session) -> None:
        """Ask for the task's answer, the first time. With several aliases it is the first one.

        Raises:
            Forbidden, Unauthorized: the client's token may not see references.
            RolloutError: there is no answer.
        """
        async with self._learning:
            if self._ids:
                return
            try:
                reference = await session.reference()
            except EnvFailed as error:  # of every episode of this task, so drawing another would not help
                raise RolloutError(f"{session.task.id} cannot tell its answer: {error}") from error
            answer = next(iter(reference.answers), "")
            if not answer:
                raise RolloutError(f"the Reference of {session.task.id} has no answer that info_gain could look for")
            before, _, after = self._probe.template.partition(ANSWER)
            self._ids, self._given = self._renderer.span_ids(before, answer, after)

    async def score(self, leaf: int | None, prompt_ids: Sequence[int], parent: object | None) -> tuple[float, ...]:
        """Log-probs (nats) of the answer's tokens after ``prompt_ids``, which follow turn ``leaf`` (None: nothing)."""
        context = (leaf, tuple(prompt_ids))
        if context not in self._asked:
            scoring = self._engine.score(prompt_ids, self._ids, parent, given=self._given)
            self._asked[context] = asyncio.ensure_future(scoring)
        return await asyncio.shield(self._asked[context])

    async def close(self) -> None:
        """Forget what nobody waits for any more."""
        for asked in self._asked.values():
            asked.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
