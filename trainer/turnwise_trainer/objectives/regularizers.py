"""Terms added to the loss: an entropy bonus and a divergence from a reference policy."""

from __future__ import annotations

from pydantic import Field

from turnwise_trainer.losses import LossInputs, LossTerm
from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import entry


class Entropy(Settings):
    coefficient: float = Field(
        default=0.001, description="Multiplies the mean entropy, which is rewarded (negative: punished)."
    )


@entry("regularizers", "entropy", needs_entropy=True)
def entropy(inputs: LossInputs, settings: Entropy) -> LossTerm:
    """-coefficient H, the policy's full-vocabulary entropy (nats), aggregated like the loss."""
    assert inputs.entropy_U is not None  # the learner computes it because of needs_entropy
    return LossTerm(-settings.coefficient * inputs.weight_U * inputs.entropy_U)


class Kl(Settings):
    coefficient: float = Field(default=0.001, ge=0.0, description="Multiplies the divergence.")


@entry("regularizers", "kl", needs_reference=True)
def kl(inputs: LossInputs, settings: Kl) -> LossTerm:
    """coefficient (exp(d) - d - 1) with d = ref_logp - logp: the k3 estimate of KL(policy || reference).

    Aggregated like the loss. The form is that of the GRPO paper (arXiv 2402.03300).
    """
    assert inputs.ref_logp_U is not None  # the learner computes it because of needs_reference
    gap_U = inputs.ref_logp_U - inputs.logp_U
    divergence_U = gap_U.exp() - gap_U - 1.0
    return LossTerm(
        settings.coefficient * inputs.weight_U * divergence_U,
        {"policy/reference_kl": inputs.mean(divergence_U)},
    )
