"""PPO's clipped surrogate (arXiv 1707.06347), with DAPO's two bounds (2503.14476) and the dual clip (1912.09729)."""

from __future__ import annotations

from pydantic import Field

from turnwise_trainer.losses import LossInputs, LossSettings, LossTerm
from turnwise_trainer.slots import entry


class Clip(LossSettings):
    eps_low: float = Field(default=0.2, ge=0.0, le=1.0, description="The ratio counts down to 1 - eps_low.")
    eps_high: float = Field(default=0.2, ge=0.0, description="The ratio counts up to 1 + eps_high.")
    dual_clip: float | None = Field(
        default=None, gt=1.0, description="Largest ratio that counts where the advantage is negative; none: no limit."
    )


@entry("loss", "clip")
def clip(inputs: LossInputs, settings: Clip) -> LossTerm:
    """-min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A), and at most -dual_clip A where A < 0.

    On folded tokens: -(min(rho, 1 + eps_high) A+ + min(max(rho, 1 - eps_low), dual_clip) A-).
    """
    ratio_U = inputs.ratio_U
    up_U = ratio_U.clamp(max=1.0 + settings.eps_high)
    down_U = ratio_U.clamp(min=1.0 - settings.eps_low, max=settings.dual_clip)
    above_NL = (inputs.advantage_NL > 0) & (ratio_U > up_U)[inputs.flat_NL]
    below_NL = (inputs.advantage_NL < 0) & (ratio_U != down_U)[inputs.flat_NL]
    return LossTerm(
        -(up_U * inputs.positive_U + down_U * inputs.negative_U),
        {"policy/clip_fraction": inputs.fraction(above_NL | below_NL)},
    )
