"""Fold a flat batch into unique tokens: what the learner forwards once, weighted as much as its leaves.

For a token with copies p (one per episode that passes through it), weights w_p and advantages A_p, and bounds on the
ratio rho that do not depend on p::

    sum_p w_p min(rho A_p, clip(rho) A_p) = min(rho, 1 + eps) sum_p w_p A_p+  +  max(rho, 1 - eps) sum_p w_p A_p-

so two sums of advantages give the same loss and gradient as all copies. Their mean would not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise_trainer.losses import LossInputs, LossSettings
from turnwise_trainer.view import BatchView, Floats, Ints

Number = TypeVar("Number", np.float64, np.int64)


@dataclass(frozen=True)
class Slice:
    """Some groups of a batch: their own view, and where its flat tokens and unique tokens stand in the batch's."""

    view: BatchView
    K: Ints
    U: Ints


def slice_groups(view: BatchView, groups: Sequence[int]) -> Slice:
    """The groups with these numbers, in this order. ``values_K[slice.K]`` takes flat values along, ``[slice.U]`` unique."""
    group_K = view.group_N[view.episode_K]
    group_U = np.repeat(np.arange(len(view.groups)), [len(group.turns) for group in view.groups])[view.node_U]
    return Slice(
        view=BatchView.of([view.groups[number] for number in groups]),
        K=np.concatenate([np.flatnonzero(group_K == number) for number in groups]),
        U=np.concatenate([np.flatnonzero(group_U == number) for number in groups]),
    )


@dataclass(frozen=True)
class Folded:
    """A mini-batch, or a part of one: the view to forward and what the loss needs of it.

    Attributes:
        view: the groups.
        source_U: where each unique token stands in the view that was folded.
        advantage_K, weight_K: of each copy. Weights are the aggregation's over the whole mini-batch, so that the losses
            of its parts add up to the loss of the mini-batch.
        copies: number of copies in the whole mini-batch.
    """

    view: BatchView
    source_U: Ints
    advantage_K: Floats
    weight_K: Floats
    copies: int

    def part(self, groups: Sequence[int]) -> Folded:
        """Some groups of it (numbers within ``view``), for a micro-batch."""
        piece = slice_groups(self.view, groups)
        return Folded(
            view=piece.view,
            source_U=self.source_U[piece.U],
            advantage_K=self.advantage_K[piece.K],
            weight_K=self.weight_K[piece.K],
            copies=self.copies,
        )

    @cached_property
    def positive_U(self) -> Floats:
        """Sum over the copies of w max(A, 0)."""
        return self._sum_copies(self.weight_K * np.maximum(self.advantage_K, 0))

    @cached_property
    def negative_U(self) -> Floats:
        """Sum over the copies of w min(A, 0)."""
        return self._sum_copies(self.weight_K * np.minimum(self.advantage_K, 0))

    @cached_property
    def weight_U(self) -> Floats:
        """Sum over the copies of w."""
        return self._sum_copies(self.weight_K)

    @cached_property
    def flat_NL(self) -> Ints:
        """[N, L] index of each episode's tokens into the unique tokens, -1 after its end."""
        return self._padded(self.view.token_K, -1)

    def inputs(
        self, logp_U: Tensor, old_logp_U: Tensor, entropy_U: Tensor | None = None, ref_logp_U: Tensor | None = None
    ) -> LossInputs:
        """Join what the learner computed, [U] in the order of ``view``, with advantages and weights.

        Everything goes to the device and the float type of ``logp_U``.
        """

        def floats(values: Floats | Ints) -> Tensor:
            return torch.as_tensor(values, dtype=logp_U.dtype, device=logp_U.device)

        return LossInputs(
            logp_U=logp_U,
            old_logp_U=old_logp_U.to(logp_U),
            positive_U=floats(self.positive_U),
            negative_U=floats(self.negative_U),
            weight_U=floats(self.weight_U),
            leaves_U=floats(self.view.leaves_U),
            entropy_U=entropy_U,
            ref_logp_U=None if ref_logp_U is None else ref_logp_U.to(logp_U),
            flat_NL=torch.as_tensor(self.flat_NL, device=logp_U.device),
            advantage_NL=floats(self._padded(self.advantage_K, 0)),
            weight_NL=floats(self._padded(self.weight_K, 0)),
            copies=self.copies,
        )

    def _sum_copies(self, values_K: Floats) -> Floats:
        sums_U = np.bincount(self.view.token_K, weights=values_K, minlength=len(self.view.node_U))
        return sums_U.astype(np.float64, copy=False)

    def _padded(self, values_K: NDArray[Number], fill: int) -> NDArray[Number]:
        """[K] -> [N, L]."""
        lengths_N = self.view.tokens_N
        first_N = np.cumsum(lengths_N) - lengths_N
        position_K = np.arange(len(values_K)) - first_N[self.view.episode_K]
        padded = np.full((self.view.episodes, int(lengths_N.max())), fill, dtype=values_K.dtype.type)
        padded[self.view.episode_K, position_K] = values_K
        return padded


def fold(view: BatchView, advantage_K: Floats, settings: LossSettings) -> Folded:
    """Fold all groups of a view; ``settings`` say how token losses are aggregated."""
    return Folded(
        view=view,
        source_U=np.arange(len(view.node_U)),
        advantage_K=advantage_K,
        weight_K=copy_weights(view, settings),
        copies=len(view.token_K),
    )


def copy_weights(view: BatchView, settings: LossSettings) -> Floats:
    """[K] weight of each flat token's loss, such that the weighted sum is the aggregated loss.

    With K flat tokens, N episodes and n_i tokens in episode i: 1/K for token-mean, 1/(N n_i) for seq-mean-token-mean,
    1/(N max_length) for seq-mean-token-sum-norm.
    """
    tokens = len(view.token_K)
    if settings.aggregation == "token-mean":
        return np.full(tokens, 1.0 / tokens)
    if settings.aggregation == "seq-mean-token-mean":
        return 1.0 / (view.episodes * view.tokens_N[view.episode_K])
    assert settings.max_length is not None  # LossSettings checks it
    return np.full(tokens, 1.0 / (view.episodes * settings.max_length))
