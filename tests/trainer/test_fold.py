"""Training on a tree equals training on all copies, and a mini-batch equals the sum of its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from builders import flat_group, random_group, unshared
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from turnwise_trainer.fold import Folded, fold, slice_groups
from turnwise_trainer.objective import Objective, combine
from turnwise_trainer.objectives.clip import Clip
from turnwise_trainer.view import BatchView

seeds = st.integers(0, 10_000)

COMPOSITIONS: list[Any] = [
    "grpo",
    "gspo",
    {"preset": "empg", "loss": {"dual_clip": 1.5, "aggregation": "seq-mean-token-mean"}},
    {"preset": "arpo", "modulators": ["arpo_hard"], "select": ["varied"]},
    {
        "regularizers": {"kl": {"coefficient": 0.3}, "entropy": {"coefficient": 0.2}},
        "loss": {"aggregation": "seq-mean-token-sum-norm", "max_length": 7, "eps_high": 0.28},
    },
]


def batch(seed: int, groups: int = 3) -> BatchView:
    rng = np.random.default_rng(seed)
    return BatchView.of([random_group(rng, index) for index in range(groups)])


def policy(view: BatchView, seed: int) -> tuple[Tensor, ...]:
    """logp (leaf, far enough from old to be clipped), old, entropy, reference: [U]."""
    rng = np.random.default_rng(seed)
    size = len(view.node_U)
    old = torch.tensor(rng.uniform(-3, -0.1, size))
    logp = (old + torch.tensor(rng.normal(0, 0.4, size))).requires_grad_()
    return logp, old, torch.tensor(rng.uniform(0, 2, size)), torch.tensor(rng.uniform(-3, -0.1, size))


def run(objective: Objective, folded: Folded, tensors: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    logp, old, entropy, reference = tensors
    return objective.loss(folded.inputs(logp, old, entropy, reference))


@given(seed=seeds, dual_clip=st.sampled_from([None, 1.5]))
@settings(max_examples=40, deadline=None)
def test_folded_clip_is_the_sum_over_copies(seed: int, dual_clip: float | None) -> None:
    view = batch(seed)
    advantage_K = np.random.default_rng(seed).normal(size=len(view.token_K))  # copies differ, in sign too
    loss_settings = Clip(dual_clip=dual_clip, eps_high=0.28, aggregation="seq-mean-token-mean")
    folded = fold(view, advantage_K, loss_settings)
    tensors = policy(view, seed)
    logp, old = tensors[:2]
    objective = Objective.resolve({"loss": loss_settings.model_dump()})
    loss, _ = run(objective, folded, tensors)
    (gradient,) = torch.autograd.grad(loss, logp)

    token_K = torch.tensor(view.token_K)
    advantage = torch.tensor(advantage_K)
    ratio = (logp - old).exp()[token_K]
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
    if dual_clip is not None:
        surrogate = torch.where(advantage < 0, torch.maximum(surrogate, dual_clip * advantage), surrogate)
    length_K = torch.tensor(view.tokens_N[view.episode_K])
    flat = -(surrogate / length_K).sum() / view.episodes
    (flat_gradient,) = torch.autograd.grad(flat, logp)
    assert_allclose(loss.detach(), flat.detach(), rtol=1e-10)
    assert_allclose(gradient, flat_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("composition", [pytest.param(c, id=str(n)) for n, c in enumerate(COMPOSITIONS)])
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_tree_equals_flat(composition: Any, seed: int) -> None:
    objective = Objective.resolve(composition)
    tree = batch(seed)
    flat = BatchView.of([unshared(group) for group in tree.groups])
    token_K = torch.tensor(tree.token_K)  # unshared turns stand in the order of the flat tokens
    credit, flat_credit = objective.credit(tree), objective.credit(flat)
    if "arpo_hard" not in str(composition):  # which is about sharing
        assert_allclose(credit.advantage_K, flat_credit.advantage_K, atol=1e-9)
    if not credit.groups:
        return
    flat_credit = type(credit)(**{**vars(flat_credit), "advantage_K": credit.advantage_K})
    tensors = policy(tree, seed)
    flat_tensors = (tensors[0].detach()[token_K].requires_grad_(), *(tensor[token_K] for tensor in tensors[1:]))

    folded = objective.fold(tree, credit, credit.groups)
    flat_folded = objective.fold(flat, flat_credit, credit.groups)
    loss, metrics = run(objective, folded, tuple(tensor[folded.source_U] for tensor in tensors))
    flat_loss, flat_metrics = run(
        objective, flat_folded, tuple(tensor[flat_folded.source_U] for tensor in flat_tensors)
    )
    assert_allclose(loss.detach(), flat_loss.detach(), rtol=1e-9, atol=1e-12)
    assert combine([metrics]) == pytest.approx(combine([flat_metrics]))
    (gradient,) = torch.autograd.grad(loss, tensors[0])
    (flat_gradient,) = torch.autograd.grad(flat_loss, flat_tensors[0])
    gathered = torch.zeros_like(gradient).index_add(0, token_K, flat_gradient)
    assert_allclose(gradient, gathered, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("composition", [pytest.param(c, id=str(n)) for n, c in enumerate(COMPOSITIONS)])
def test_parts_add_up_to_the_minibatch(composition: Any) -> None:
    objective = Objective.resolve(composition)
    view = batch(3, groups=5)
    credit = objective.credit(view)
    tensors = policy(view, 3)
    chosen = credit.groups[1:]
    whole = objective.fold(view, credit, chosen)
    loss, metrics = run(objective, whole, tuple(tensor[whole.source_U] for tensor in tensors))
    (gradient,) = torch.autograd.grad(loss, tensors[0])

    parts = [whole.part([0, 2]), whole.part([number for number in range(len(chosen)) if number not in (0, 2)])]
    assert sorted(np.concatenate([part.source_U for part in parts])) == sorted(whole.source_U)
    results = [run(objective, part, tuple(tensor[part.source_U] for tensor in tensors)) for part in parts]
    total = results[0][0] + results[1][0]
    assert_allclose(total.detach(), loss.detach(), rtol=1e-9, atol=1e-12)
    (sum_of_gradients,) = torch.autograd.grad(total, tensors[0])
    assert_allclose(sum_of_gradients, gradient, rtol=1e-9, atol=1e-12)
    assert combine([result[1] for result in results]) == pytest.approx(combine([metrics]))


def test_metrics_of_an_unchanged_policy() -> None:
    view = BatchView.of([flat_group([1.0, 0.0])])
    objective = Objective.resolve("grpo")
    folded = objective.fold(view, objective.credit(view), [0])
    logp = torch.tensor([-1.0, -2.0], requires_grad=True)
    _, metrics = objective.loss(folded.inputs(logp, logp.detach()))
    assert combine([metrics]) == {
        "loss/clip": 0.0,
        "policy/clip_fraction": 0.0,
        "policy/approx_kl": 0.0,
        "policy/ratio_max": 1.0,
    }


def test_approx_kl_and_ratio() -> None:
    view = BatchView.of([flat_group([1.0, 0.0])])
    objective = Objective.resolve("grpo")
    folded = objective.fold(view, objective.credit(view), [0])
    old = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    _, metrics = objective.loss(folded.inputs(old + torch.tensor([0.5, 0.0]), old))
    combined = combine([metrics])
    assert combined["policy/approx_kl"] == pytest.approx((np.exp(0.5) - 0.5 - 1) / 2)
    assert combined["policy/ratio_max"] == pytest.approx(np.exp(0.5))
    assert combined["policy/clip_fraction"] == pytest.approx(0.5)


def test_slice_keeps_flat_values_with_their_groups() -> None:
    view = batch(1, groups=4)
    piece = slice_groups(view, [2, 0])
    assert [group.task.index for group in piece.view.groups] == [2, 0]
    group_K = view.group_N[view.episode_K]
    assert group_K[piece.K].tolist() == [2] * (group_K == 2).sum() + [0] * (group_K == 0).sum()
    assert_allclose(view.entropy_U[piece.U], piece.view.entropy_U)
    assert_allclose(view.entropy_U[view.token_K][piece.K], piece.view.entropy_U[piece.view.token_K])


def test_flat_view_follows_each_path() -> None:
    view = batch(5, groups=2)
    folded = fold(view, np.ones(len(view.token_K)), Clip())
    assert folded.flat_NL.shape == (view.episodes, view.tokens_N.max())
    for episode, row in enumerate(folded.flat_NL):
        assert row[row >= 0].tolist() == view.token_K[view.episode_K == episode].tolist()
        assert (row >= 0).sum() == view.tokens_N[episode]
