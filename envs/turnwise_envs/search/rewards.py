"""Rewards of an episode, as pure functions: what an answer is worth, and what a judgement is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from turnwise_envs.scoring import exact_match, f1

RewardKind = Literal["em", "f1", "em_f1", "format"]

#: ReSeek's table (arXiv 2510.00568): by what was said, and what is so. Praising what is useless costs most.
JUDGE_REWARDS: dict[tuple[bool, bool], float] = {
    (True, True): 0.3,
    (False, False): 0.3,
    (True, False): -0.6,
    (False, True): -0.3,
}


def answer_reward(kind: RewardKind, answer: str | None, golds: Sequence[str], well_formed: bool) -> float:
    """The final reward; ``answer`` is None when none was given.

    - ``em``: 1 for an exact match (Search-R1).
    - ``f1``: word F1.
    - ``em_f1``: their sum, 0 to 2, for use with a cost of searching.
    - ``format``: Search-R1's shaped reward. Right: 1, or 0.8 with slips on the way. Otherwise 0.2 for an episode without
      slips, 0.1 for an answer after slips, 0 for nothing at all.
    """
    right = exact_match(answer, golds) if answer is not None else 0.0
    match kind:
        case "em":
            return right
        case "f1":
            return f1(answer, golds) if answer is not None else 0.0
        case "em_f1":
            return right + f1(answer, golds) if answer is not None else 0.0
        case "format":
            if right:
                return 1.0 if well_formed else 0.8
            if well_formed:
                return 0.2
            return 0.0 if answer is None else 0.1


def judge_reward(said: bool, ideal: bool) -> float:
    """What a judgement of a result is worth: ``said`` useful, where ``ideal`` would have been right."""
    return JUDGE_REWARDS[said, ideal]
