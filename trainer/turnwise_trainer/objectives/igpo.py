"""IGPO: Information Gain-based Policy Optimization (arXiv 2510.14967).

Every turn but the last is paid by how much what it brought makes the gold answer more likely to the policy, and the last
one by the outcome. The two kinds are normalised apart, and a turn earns the discounted sum of what comes from it on. All is
counted by turn, never by where a reward is not zero (the authors' later code merges turns there).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from turnwise_agent.probing import ANSWER, PAPER_TEMPLATE, AnswerProbe
from turnwise_trainer.errors import ObjectiveError
from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import Preset, entry, use
from turnwise_trainer.view import BatchView, Floats

PRESET = Preset(
    name="igpo",
    summary="Turns are paid by what they tell about the gold answer, the last one by the outcome.",
    rewards=("outcome", "info_gain"),
    advantage="turn_returns",
    loss=use("clip", aggregation="seq-mean-token-mean"),
    regularizers=("kl",),
)


class Outcome(Settings):
    weight: float = Field(default=1.0, description="Multiplies the reward.")


@entry("rewards", "outcome")
def outcome(view: BatchView, settings: Outcome) -> Floats:
    """All that the environment gave along an episode, on its last turn."""
    reward_S = np.zeros(view.rows)
    reward_S[view.last_N] = view.sum_rows(view.env_reward_S)
    return settings.weight * reward_S


class InfoGain(Settings):
    difference: Literal["log_prob", "prob"] = Field(
        default="log_prob",
        description="Of s, the mean log-prob of the answer's tokens (log_prob), or of exp(s), as in the paper's first "
        "version and by default in the released code (prob).",
    )
    template: str = Field(
        default=PAPER_TEMPLATE,
        description="The action that would give the answer, with {answer} where it stands: as the policy writes it.",
    )
    weight: float = Field(default=1.0, description="Multiplies the reward.")

    @field_validator("template")
    @classmethod
    def _one_answer(cls, template: str) -> str:
        if template.count(ANSWER) != 1:
            raise ValueError(f"must have {ANSWER} in it exactly once")
        return template


@entry("rewards", "info_gain", probe=lambda settings: AnswerProbe(settings.template))
def info_gain(view: BatchView, settings: InfoGain) -> Floats:
    """s after a turn minus s before it, with s the mean log-prob of the gold answer's tokens; nothing on the last turn.

    s before a turn is measured on all that the policy has read when it acts. What it reads after its last turn it never
    acts on.
    """
    belief_T = np.array([np.mean(turn.answer_logprobs or np.nan) for turn in view.turns_T])
    if np.isnan(belief_T).any():
        raise ObjectiveError("info_gain: turns without answer_logprobs; draw them with Objective.answer_probe()")
    belief_S = belief_T[view.node_S]
    if settings.difference == "prob":
        belief_S = np.exp(belief_S)
    gain_S = np.append(np.diff(belief_S), 0.0)
    gain_S[view.last_N] = 0.0
    return settings.weight * gain_S


class TurnReturns(Settings):
    gamma: float = Field(default=1.0, ge=0.0, le=1.0, description="Discount of a reward one turn later.")
    normalise: Literal["separate", "joint"] = Field(
        default="separate",
        description="Within a group: last turns among themselves and all others among themselves (separate), or all "
        "turns together (joint).",
    )
    epsilon: float = Field(default=1e-6, ge=0.0, description="Added to the standard deviation.")


@entry("advantage", "turn_returns")
def turn_returns(view: BatchView, reward_S: Floats, settings: TurnReturns) -> Floats:
    """A_t = sum over k >= t of gamma^(k - t) z_k, with z the turns' rewards, normalised within the group.

    z = (r - mean) / (sqrt(variance + 1e-8) + epsilon), with the population's variance; a reward that is alone has z = 0.
    """
    last_S = np.zeros(view.rows, dtype=np.int64)
    last_S[view.last_N] = settings.normalise == "separate"
    kind_S = 2 * view.group_N[view.episode_S] + last_S
    count = np.maximum(np.bincount(kind_S), 1)
    centred_S = reward_S - (np.bincount(kind_S, weights=reward_S) / count)[kind_S]
    variance = np.bincount(kind_S, weights=centred_S**2) / count
    return_S: Floats = centred_S / (np.sqrt(variance + 1e-8) + settings.epsilon)[kind_S]
    for row in range(view.rows - 2, -1, -1):
        if view.episode_S[row] == view.episode_S[row + 1]:
            return_S[row] += settings.gamma * return_S[row + 1]
    return return_S
