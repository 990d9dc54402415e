"""The expert tool, after EAPO (On-Demand Expert Assistance): three scripted colleagues, who may be unavailable.

A question is heard with probability ``acceptance`` (EAPO anneals it as one over the training step, and forbids asking in
evaluation: acceptance 0). The colleagues take turns: one knows the method, one writes a program, one only estimates. They
know the problem, not what was asked: a scripted expert cannot read.
"""

from __future__ import annotations

import math
from fractions import Fraction

from turnwise_envs.dice import Dice
from turnwise_envs.tools.maths.families import Problem

#: Colleagues, and so questions in one call.
COLLEAGUES = 3
UNAVAILABLE = "Nobody is available for this question now."


def available(task_id: str, seed: int, asked: int, acceptance: float) -> bool:
    """Whether question number ``asked`` of an episode is heard."""
    return Dice("consult", task_id, seed, asked).chance(acceptance)


def reply(problem: Problem, answered: int) -> str:
    """What the colleague says whose turn it is after ``answered`` replies."""
    match answered % COLLEAGUES:
        case 0:
            return f"The mathematician says: {problem.method}"
        case 1:
            return f"The programmer says: I would run this.\n{problem.program}"
        case _:
            return f"The estimator says: it should be about {_rough(problem.value)}."


def _rough(value: Fraction) -> str:
    """One significant digit: enough to notice a slip, not enough to answer."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    unit = Fraction(10) ** size
    digit = round(value / unit)
    return str(digit * 10**size) if size >= 0 else f"{float(digit * unit):.{-size}f}"
