"""EMPG: Entropy-Modulated Policy Gradients (arXiv 2509.09265).

A step's advantage is scaled by how sure the policy was in it, and raised when the next step is a sure one.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import Preset, entry
from turnwise_trainer.view import BatchView, Floats

PRESET = Preset(
    name="empg", summary="GRPO, scaled by each turn's entropy, with a bonus for clarity.", modulators=("empg",)
)


class Empg(Settings):
    k: float = Field(
        default=1.0, ge=0.0, description="How strongly entropy scales the advantage: g = exp(-k H) / mean."
    )
    k_prime: float = Field(
        default=1.0, ge=0.0, description="How strongly the next turn's entropy lowers the bonus exp(-k' H)."
    )
    zeta: float = Field(default=0.1, ge=0.0, description="Size of the bonus for reaching a turn of low entropy.")


@entry("modulators", "empg")
def empg(view: BatchView, advantage_K: Floats, settings: Empg) -> Floats:
    """A' = A g(H_t) + zeta exp(-k' H_{t+1}), minus its mean over all turns; no bonus on an episode's last turn.

    H is the mean token entropy of a turn under the sampling policy, scaled to [0, 1] over all turns of the batch, and g has
    mean 1 over them. Turns are those of the flat view: a shared one counts once per episode.
    """
    entropy_S = view.row_means(view.entropy_U[view.token_K])
    low, high = entropy_S.min(), entropy_S.max()
    entropy_S = (entropy_S - low) / (high - low + 1e-8)
    scale_S = np.exp(-settings.k * entropy_S)
    scale_S /= scale_S.mean()
    bonus_S = np.zeros(view.rows)
    followed_S = np.flatnonzero(view.episode_S[:-1] == view.episode_S[1:])
    bonus_S[followed_S] = settings.zeta * np.exp(-settings.k_prime * entropy_S[followed_S + 1])
    modulated_K: Floats = advantage_K * scale_S[view.row_K] + bonus_S[view.row_K]
    mean = float(view.row_means(modulated_K).mean())
    return modulated_K - mean
