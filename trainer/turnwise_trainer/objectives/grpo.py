"""GRPO: Group Relative Policy Optimization (DeepSeekMath, arXiv 2402.03300).

The preset is the plain baseline: independent episodes, the environment's reward, group-normalised outcomes, clipped loss.
It has no KL term (add ``regularizers = ["kl"]``) and averages over tokens (the paper's own form is
``loss.aggregation = "seq-mean-token-mean"``), so that it differs from the other presets only in what they name.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import Preset, entry
from turnwise_trainer.view import BatchView, Floats

PRESET = Preset(name="grpo", summary="Outcomes normalised within each group.")


class Independent(Settings):
    """No settings."""


@entry("sampling", "independent")
def independent(settings: Independent) -> None:
    """Every episode of a group is drawn on its own."""


class Grpo(Settings):
    std: Literal["sample", "population", "none"] = Field(
        default="sample",
        description="Divide by the group's sample standard deviation (as released), the population one, or not at all "
        "(Dr. GRPO).",
    )
    epsilon: float = Field(default=1e-6, ge=0.0, description="Added to the standard deviation.")


@entry("advantage", "grpo")
def grpo(view: BatchView, reward_S: Floats, settings: Grpo) -> Floats:
    """A_i = (R_i - mean_g R) / (std_g R + epsilon), with R_i the sum of the rewards of episode i's turns.

    The same on every turn of the episode. A group whose outcomes are equal has advantage 0; a group of one episode has
    nothing to compare with and keeps A = R.
    """
    outcome_N = view.sum_rows(reward_S)
    advantage_N = outcome_N.copy()
    for number in range(len(view.groups)):
        members = np.flatnonzero(view.group_N == number)
        if len(members) > 1:
            advantage_N[members] = _normalised(outcome_N[members], settings)
    return advantage_N[view.episode_S]


def _normalised(outcomes: Floats, settings: Grpo) -> Floats:
    if np.ptp(outcomes) == 0.0:  # exactly 0, not a rounding error divided by epsilon
        return np.zeros_like(outcomes)
    centred: Floats = outcomes - outcomes.mean()
    if settings.std == "none":
        return centred
    spread = float(outcomes.std(ddof=1 if settings.std == "sample" else 0))
    return np.divide(centred, spread + settings.epsilon)
