"""What a loss or regularizer entry receives and returns. Letters in names are dimensions, as in ``view.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from turnwise_trainer.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"]


class LossSettings(Settings):
    """Base of the settings of all loss entries: how token losses become one number."""

    aggregation: Aggregation = Field(
        default="token-mean",
        description="Every token weighs the same (token-mean), every episode the same (seq-mean-token-mean), or "
        "episode sums are averaged and divided by max_length (seq-mean-token-sum-norm).",
    )
    max_length: int | None = Field(
        default=None, ge=1, description="The constant of seq-mean-token-sum-norm; only with that aggregation."
    )

    @model_validator(mode="after")
    def _constant_where_needed(self) -> LossSettings:
        if (self.aggregation == "seq-mean-token-sum-norm") != (self.max_length is not None):
            raise ValueError("max_length goes with aggregation = 'seq-mean-token-sum-norm', and only with it")
        return self


@dataclass(frozen=True, kw_only=True)
class LossInputs:
    """Tensors over the unique tokens of some groups, [U] where nothing else is said; log-probs in nats.

    A token that several episodes share stands here once. Each copy has an advantage A and a weight w (what the
    aggregation gives it), and what a token-level loss needs of all copies is three sums.

    Attributes:
        logp_U: current policy; the only tensor with a gradient (and ``entropy_U``).
        old_logp_U: policy at the start of the update.
        positive_U, negative_U: sums over the copies of w max(A, 0) and w min(A, 0).
        weight_U: sum over the copies of w.
        leaves_U: number of copies.
        entropy_U: entropy of the current policy, when the objective needs it.
        ref_logp_U: reference policy, when the objective needs it.
        flat_NL: [N, L] index of each episode's tokens into U, -1 after its end; for sequence-level losses.
        advantage_NL, weight_NL: [N, L] A and w of each copy, 0 after the end.
        copies: number of copies in the whole mini-batch, of which this may be a part.
    """

    logp_U: Tensor
    old_logp_U: Tensor
    positive_U: Tensor
    negative_U: Tensor
    weight_U: Tensor
    leaves_U: Tensor
    entropy_U: Tensor | None
    ref_logp_U: Tensor | None
    flat_NL: Tensor
    advantage_NL: Tensor
    weight_NL: Tensor
    copies: int

    @property
    def ratio_U(self) -> Tensor:
        """exp(logp - old_logp), with gradient."""
        return (self.logp_U - self.old_logp_U).exp()

    def mean(self, values_U: Tensor) -> Tensor:
        """This part's contribution to the mean over all copies in the mini-batch, without gradient: add the parts."""
        return (values_U.detach() * self.leaves_U).sum() / self.copies

    def fraction(self, mask_NL: Tensor) -> Tensor:
        """This part's contribution to the share of copies where ``mask_NL`` (False after an episode's end) is True."""
        return mask_NL.sum() / self.copies


@dataclass(frozen=True)
class LossTerm:
    """A tensor of any shape whose sum is the loss ([U] for token-level losses), and what to log.

    Metrics are contributions that add up over the parts of a mini-batch, except those named ``*_max``.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
