"""GSPO: Group Sequence Policy Optimization (arXiv 2507.18071): one importance ratio for a whole episode."""

from __future__ import annotations

from pydantic import Field

from turnwise_trainer.losses import Aggregation, LossInputs, LossSettings, LossTerm
from turnwise_trainer.slots import Preset, entry

PRESET = Preset(name="gspo", summary="GRPO with one clipped ratio per episode.", loss="gspo")


class Gspo(LossSettings):
    aggregation: Aggregation = Field(
        default="seq-mean-token-mean", description="As for clip; the paper's form is seq-mean-token-mean."
    )
    eps_low: float = Field(default=3e-4, ge=0.0, le=1.0, description="The ratio counts down to 1 - eps_low.")
    eps_high: float = Field(default=4e-4, ge=0.0, description="The ratio counts up to 1 + eps_high.")


@entry("loss", "gspo")
def gspo(inputs: LossInputs, settings: Gspo) -> LossTerm:
    """-min(s A, clip(s, 1 - eps_low, 1 + eps_high) A), s = exp(mean of logp - old_logp over the episode's tokens).

    In the token form: every token's ratio has the value s and the gradient of its own log-prob, so that advantages may
    differ between turns. A shared token has one ratio per episode, hence the flat [N, L] view.
    """
    inside_NL = inputs.flat_NL >= 0
    log_ratio_NL = (inputs.logp_U - inputs.old_logp_U)[inputs.flat_NL].masked_fill(~inside_NL, 0.0)
    mean_N1 = log_ratio_NL.detach().sum(dim=1, keepdim=True) / inside_NL.sum(dim=1, keepdim=True)
    ratio_NL = (mean_N1 + log_ratio_NL - log_ratio_NL.detach()).exp()
    clipped_NL = ratio_NL.clamp(1.0 - settings.eps_low, 1.0 + settings.eps_high)
    surrogate_NL = (ratio_NL * inputs.advantage_NL).minimum(clipped_NL * inputs.advantage_NL)
    return LossTerm(-inputs.weight_NL * surrogate_NL)
