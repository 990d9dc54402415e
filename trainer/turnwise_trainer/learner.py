"""From groups to new weights: credit, recomputed log-probs, loss, backward, AdamW. Blind to the algorithm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnwise_agent.engines.forward import Backbone
from turnwise_agent.trajectory import Group
from turnwise_trainer.config import OptimizerConfig
from turnwise_trainer.errors import TrainerError
from turnwise_trainer.fold import Folded, slice_groups
from turnwise_trainer.objective import Objective, combine
from turnwise_trainer.tree import tree_logprobs, unique_tokens
from turnwise_trainer.view import BatchView


class Learner:
    """Updates a model on batches of groups.

    Args:
        model: a causal LM; its parameters are trained in place.
        objective: what to learn.
        settings: optimizer and batch cutting.
        temperature: at which the groups were drawn.
        steps: length of the run, for the schedule.
        seed: of the order of groups in minibatches.
        reference: a frozen model for objectives with ``needs_reference``.
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        settings: OptimizerConfig,
        *,
        temperature: float,
        steps: int,
        seed: int = 0,
        reference: Any | None = None,
    ) -> None:
        self.model = model
        self.backbone = Backbone(model)
        self.objective = objective
        self.settings = settings
        self.temperature = temperature
        self.steps = steps
        self.seed = seed
        self.reference = Backbone(reference.eval().requires_grad_(False)) if reference is not None else None
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )

    def update(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """One training step on a batch: ``epochs`` passes in ``minibatches`` optimizer steps each.

        Returns:
            Metrics. ``logprob_gap_max`` is the largest difference (nats) between the engine's log-prob of a token and
            the learner's, before the update. With nothing to learn from (no group kept) nothing is updated.
        """
        view = BatchView.of(groups)
        credit = self.objective.credit(view)
        metrics: dict[str, float] = {**credit.metrics, "policy/entropy": float(view.entropy_U.mean())}
        lr = self.settings.lr * schedule(self.settings, step, self.steps)
        for setting in self.optimizer.param_groups:
            setting["lr"] = lr
        metrics["optimizer/lr"] = lr
        if not credit.groups:
            return metrics
        old = _Recomputed(self, view, credit.groups, self.backbone)
        reference = _Recomputed(self, view, credit.groups, self.reference) if self.reference is not None else None
        metrics["logprob_gap_max"] = old.gap
        rng = np.random.default_rng([self.seed, step])
        steps: list[dict[str, float]] = []
        for _ in range(self.settings.epochs):
            order = rng.permutation(credit.groups)
            for numbers in np.array_split(order, min(self.settings.minibatches, len(order))):
                batch = self.objective.fold(view, credit, sorted(int(number) for number in numbers))
                steps.append(self._optimize(batch, old, reference))
        for name in steps[0]:
            values = [entry[name] for entry in steps]
            metrics[name] = max(values) if name.endswith("_max") else sum(values) / len(values)
        return metrics

    def _optimize(self, batch: Folded, old: _Recomputed, reference: _Recomputed | None) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=True)
        logged = []
        for numbers in _microbatches(batch.view.groups, self.settings.microbatch_tokens):
            part = batch.part(numbers)
            logp, entropy = tree_logprobs(
                self.backbone,
                part.view.groups,
                self.temperature,
                entropy=self.objective.needs_entropy,
                batch_tokens=self.settings.microbatch_tokens,
            )
            reference_U = None if reference is None else reference.of(part)
            loss, metrics = self.objective.loss(part.inputs(logp, old.of(part), entropy, reference_U))
            loss.backward()  # type: ignore[no-untyped-call]
            logged.append(metrics)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.grad_clip)
        if not torch.isfinite(norm):
            raise TrainerError(f"the gradient is not finite (norm {float(norm)}); lower optimizer.lr, resume the run")
        self.optimizer.step()
        return {**combine(logged), "optimizer/grad_norm": float(norm)}

    @torch.no_grad()
    def logprobs(self, view: BatchView, backbone: Backbone) -> Tensor:
        """``[U]`` under ``backbone``, without gradient."""
        parts = [
            tree_logprobs(
                backbone,
                [view.groups[number] for number in numbers],
                self.temperature,
                batch_tokens=self.settings.microbatch_tokens,
            )[0]
            for numbers in _microbatches(view.groups, self.settings.microbatch_tokens)
        ]
        return torch.cat(parts)


class _Recomputed:
    """Log-probs of a batch's kept groups under one model, by their place in the batch's view."""

    def __init__(self, learner: Learner, view: BatchView, groups: Sequence[int], backbone: Backbone) -> None:
        piece = slice_groups(view, groups)
        self.logp_U = learner.logprobs(piece.view, backbone)
        self.place_U = np.full(len(view.node_U), -1)
        self.place_U[piece.U] = np.arange(len(piece.U))
        self.gap = float((self.logp_U.double().cpu() - torch.as_tensor(view.logp_U[piece.U])).abs().max())

    def of(self, part: Folded) -> Tensor:
        return self.logp_U[torch.as_tensor(self.place_U[part.source_U], device=self.logp_U.device)]


def schedule(settings: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate's factor in training step ``step`` (from 0) of ``steps``; 0 after the last step."""
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)
    return 1.0 - progress if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def _microbatches(groups: Sequence[Group], most: int) -> Iterator[list[int]]:
    """Numbers of consecutive groups of at most ``most`` unique tokens together (a larger group stands alone)."""
    batch: list[int] = []
    used = 0
    for number, group in enumerate(groups):
        size = unique_tokens([group])
        if batch and used + size > most:
            yield batch
            batch, used = [], 0
        batch.append(number)
        used += size
    if batch:
        yield batch
