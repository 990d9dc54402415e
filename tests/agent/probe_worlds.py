"""Riddles: environments whose References hold words that nobody else may ever see."""

from __future__ import annotations

from rollout_worlds import Talk

from turnwise_envs import FunctionTaskSet, Reference

#: In every Reference, and nowhere else.
CANARY = "zyzzyva"


class Riddle(Talk):
    """Talks like ``Talk``; its answer is the canary, with another alias and evidence."""

    spec = Talk.spec.model_copy(update={"id": "riddle"})
    tasks = FunctionTaskSet(
        spec,
        lambda split, index: f"Riddle {index}.",
        lambda task: Reference(answers=[f"a {CANARY} {task.index}", f"{CANARY}s"], data={"evidence": CANARY}),
    )


class Unanswerable(Talk):
    """Has a Reference without answers."""

    spec = Talk.spec.model_copy(update={"id": "unanswerable"})
    tasks = FunctionTaskSet(spec, lambda split, index: "Why?")


class Forgetful(Talk):
    """Cannot tell its Reference."""

    spec = Talk.spec.model_copy(update={"id": "forgetful"})

    @staticmethod
    def _lost(task) -> Reference:
        raise KeyError(task.id)

    tasks = FunctionTaskSet(spec, lambda split, index: "What was it?", _lost)
