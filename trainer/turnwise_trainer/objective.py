"""A resolved objective at work: from sampled groups to advantages, and from tensors to a loss.

The learner is blind to the algorithm. It asks for a branch rule and a probe, for credit, and for the loss of a folded mini-batch::

    objective = Objective.resolve("empg")
    credit = objective.credit(view)                              # advantages over the whole batch
    batch = objective.fold(view, credit, groups)                 # a mini-batch: some of credit.groups
    part = batch.part(micro)                                     # a micro-batch of it
    loss, metrics = objective.loss(part.inputs(logp_U, old_logp_U))
    loss.backward()                                              # losses of the parts add up to the mini-batch's
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from turnwise_agent.branching import BranchRule
from turnwise_agent.probing import AnswerProbe
from turnwise_trainer.errors import ConfigError, ObjectiveError
from turnwise_trainer.fold import Folded, fold, slice_groups
from turnwise_trainer.losses import LossInputs, LossTerm
from turnwise_trainer.spec import Bound, ObjectiveSpec
from turnwise_trainer.view import BatchView, Floats


@dataclass(frozen=True)
class Credit:
    """What each turn and token of a batch earned.

    Attributes:
        rewards_S: each reward term by entry name, [S].
        advantage_K: [K]; 0 in groups that were not kept.
        kept_G: [G] bool, the groups to train on.
        metrics: what to log.
    """

    rewards_S: Mapping[str, Floats]
    advantage_K: Floats
    kept_G: NDArray[np.bool_]
    metrics: Mapping[str, float]

    @property
    def groups(self) -> list[int]:
        """Numbers of the kept groups. Empty: there is nothing to learn from this batch."""
        return [int(number) for number in np.flatnonzero(self.kept_G)]


@dataclass(frozen=True)
class Objective:
    """A composition of entries. All methods are pure."""

    spec: ObjectiveSpec

    @classmethod
    def resolve(cls, said: str | Mapping[str, Any] | ObjectiveSpec) -> Objective:
        """From a preset's name, a table as in the configuration, or a resolved spec. Raises ConfigError."""
        return cls(ObjectiveSpec.parse(said))

    @property
    def needs_entropy(self) -> bool:
        """Whether the learner must pass ``entropy_U``."""
        return any(bound.entry.needs_entropy for bound in self._loss_entries)

    @property
    def needs_reference(self) -> bool:
        """Whether the learner must pass ``ref_logp_U``."""
        return any(bound.entry.needs_reference for bound in self._loss_entries)

    def branch_rule(self) -> BranchRule | None:
        """How the rollout engine branches a group's episodes; None: it does not."""
        rule: BranchRule | None = self.spec.sampling.entry.function(self.spec.sampling.settings)
        return rule

    def answer_probe(self) -> AnswerProbe | None:
        """What the rollout engine scores before every turn; None: nothing.

        Raises:
            ConfigError: two entries would have it score different things.
        """
        probes = {bound.entry.probe(bound.settings) for bound in self.spec.rewards if bound.entry.probe is not None}
        if len(probes) > 1:
            raise ConfigError("objective.rewards: two entries want answers probed with different templates")
        return next(iter(probes), None)

    def credit(self, view: BatchView) -> Credit:
        """Rewards, selection, advantages and modulation, in this order; statistics are over the kept groups.

        Raises:
            ObjectiveError: an entry returned a wrong shape or a number that is not finite.
        """
        terms = {bound.name: _call(bound, (view,), (view.rows,)) for bound in self.spec.rewards}
        reward_S = np.sum(list(terms.values()), axis=0)
        kept_G = np.ones(len(view.groups), dtype=np.bool_)
        for bound in self.spec.select:
            kept_G &= _call(bound, (view, reward_S), (len(view.groups),)).astype(np.bool_)
        advantage_K = np.zeros(len(view.token_K))
        if kept_G.all():
            advantage_K = self._advantage(view, reward_S)
        elif kept_G.any():
            kept = slice_groups(view, [int(number) for number in np.flatnonzero(kept_G)])
            kept_S = kept_G[view.group_N[view.episode_S]]
            advantage_K[kept.K] = self._advantage(kept.view, reward_S[kept_S])
        metrics = {f"reward/{name}": float(term_S.sum()) / view.episodes for name, term_S in terms.items()}
        metrics["advantage/mean_abs"] = float(np.abs(advantage_K).mean())
        metrics["groups/kept"] = float(kept_G.mean())
        return Credit(rewards_S=terms, advantage_K=advantage_K, kept_G=kept_G, metrics=metrics)

    def fold(self, view: BatchView, credit: Credit, groups: Sequence[int]) -> Folded:
        """A mini-batch of these groups (numbers within ``view``). ``source_U`` of the result points into ``view``."""
        piece = slice_groups(view, groups)
        return replace(fold(piece.view, credit.advantage_K[piece.K], self.spec.loss_settings), source_U=piece.U)

    def loss(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a mini-batch or of a part of one, and what to log (see ``combine``); metrics carry no gradient."""
        total = inputs.logp_U.new_zeros(())
        metrics: dict[str, Tensor] = {}
        for bound in self._loss_entries:
            term = bound.entry.function(inputs, bound.settings)
            if not isinstance(term, LossTerm):
                raise ObjectiveError(f"{bound.entry.slot} entry {bound.name!r} must return a LossTerm, not {term!r}")
            value = term.loss.sum()
            total = total + value
            metrics[f"loss/{bound.name}"] = value.detach()
            metrics.update({name: metric.detach() for name, metric in term.metrics.items()})
        log_ratio_U = (inputs.logp_U - inputs.old_logp_U).detach()
        metrics["policy/approx_kl"] = inputs.mean(log_ratio_U.exp() - 1.0 - log_ratio_U)
        metrics["policy/ratio_max"] = log_ratio_U.max().exp()
        return total, metrics

    @property
    def _loss_entries(self) -> tuple[Bound, ...]:
        return (self.spec.loss, *self.spec.regularizers)

    def _advantage(self, view: BatchView, reward_S: Floats) -> Floats:
        advantage = _call(self.spec.advantage, (view, reward_S), (view.rows,), (len(view.token_K),))
        advantage_K = advantage[view.row_K] if advantage.shape == (view.rows,) else advantage
        for bound in self.spec.modulators:
            advantage_K = _call(bound, (view, advantage_K), (len(view.token_K),))
        return advantage_K


def combine(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Metrics of a mini-batch from those of its parts: the largest of each ``*_max``, the sum of all others."""
    combined: dict[str, float] = {}
    for part in parts:
        for name, metric in part.items():
            value = float(metric)
            before = combined.get(name)
            if before is None:
                combined[name] = value
            else:
                combined[name] = max(before, value) if name.endswith("_max") else before + value
    return combined


def _call(bound: Bound, arguments: tuple[Any, ...], *shapes: tuple[int, ...]) -> NDArray[Any]:
    """Run a numpy entry and check what it returns, where the entry's name is known."""
    result = np.asarray(bound.entry.function(*arguments, bound.settings))
    where = f"{bound.entry.slot} entry {bound.name!r}"
    if result.shape not in shapes:
        allowed = " or ".join(str(list(shape)) for shape in shapes)
        raise ObjectiveError(f"{where} returned shape {list(result.shape)}, not {allowed}")
    if not np.isfinite(result).all():
        raise ObjectiveError(f"{where} returned a number that is not finite")
    return result
