"""ARPO: Agentic Reinforced Policy Optimization (arXiv 2507.19849).

Half of a group are fresh episodes; the rest are branched off them where the policy's entropy rose after an observation.
Shared turns then carry the advantages of all their leaves (``soft`` attribution, nothing to do), or their mean (``hard``,
the modulator ``arpo_hard``).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from turnwise_agent.branching import EntropyBranching
from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import Preset, entry, use
from turnwise_trainer.view import BatchView, Floats

PRESET = Preset(
    name="arpo",
    summary="GRPO on a tree of turns that branches where entropy rose.",
    sampling="arpo",
    loss=use("clip", dual_clip=3.0),
)


class Arpo(Settings):
    mode: Literal["paper", "released"] = Field(
        default="paper",
        description="paper: measure the turn after the newest observation, fork before it, iff base + slope dH > "
        "threshold. released: measure the turn that made the call, fork after its answer, with probability "
        "clip(base + slope dH, 0, 1).",
    )
    initial_fraction: float = Field(default=0.5, gt=0.0, le=1.0, description="Share of the group that starts fresh.")
    beam: int = Field(default=2, ge=2, description="At most beam - 1 branches off a path in one round.")
    base: float = Field(default=0.5, description="alpha in the paper, p0 in the released code.")
    slope: float = Field(
        default=0.2, ge=0.0, description="beta in the paper, w in the released code: weight of the entropy rise."
    )
    threshold: float = Field(default=0.5, description="tau; only in mode paper.")
    tokens: int = Field(default=20, ge=1, description="How many first tokens of a turn are measured.")

    @model_validator(mode="after")
    def _threshold_is_used(self) -> Arpo:
        if self.mode == "released" and self.threshold != type(self).model_fields["threshold"].default:
            raise ValueError("threshold has no effect with mode = 'released', which draws branches at random")
        return self


@entry("sampling", "arpo")
def arpo(settings: Arpo) -> EntropyBranching:
    """Branch where e rose since the path's first turn; e sums the first tokens' truncated entropies / ln |V|."""
    return EntropyBranching(**settings.model_dump())


class ArpoHard(Settings):
    """No settings."""


@entry("modulators", "arpo_hard")
def arpo_hard(view: BatchView, advantage_K: Floats, settings: ArpoHard) -> Floats:
    """Every copy of a shared token gets the mean advantage over the episodes that share it."""
    total_U = np.bincount(view.token_K, weights=advantage_K, minlength=len(view.node_U))
    return (total_U / view.leaves_U)[view.token_K]
