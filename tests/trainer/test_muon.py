"""Muon against the singular value decomposition, and on a problem that it has to solve."""

from __future__ import annotations

import pytest
import torch

from turnwise_trainer.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 12, 5), (1, 5, 12)])
def test_keeps_singular_vectors_and_brings_the_values_near_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    values = torch.diagonal(u.mT @ orthogonal(matrices) @ vh.mT, dim1=1, dim2=2)
    assert values.min() > 0.3
    assert values.max() < 1.3
    off = u.mT @ orthogonal(matrices) @ vh.mT - torch.diag_embed(values)
    assert off.abs().max() < 1e-8  # nothing is mixed: the iteration is a polynomial in the singular values


def test_first_step_has_the_size_of_adamw_s():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(64, 16))
    weight.grad = torch.randn(64, 16) * 1000  # the size of the gradient says nothing
    Muon([weight], lr=0.01).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.01 * 0.2, rel=0.25)  # rms 0.2 * lr


def test_solves_a_regression():
    torch.manual_seed(0)
    inputs, target = torch.randn(256, 16), torch.randn(16, 8)
    weight = torch.nn.Parameter(torch.zeros(16, 8))
    optimizer = Muon([weight], lr=0.1)
    losses = []
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        loss = (inputs @ (weight - target)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]


def test_refuses_a_vector():
    with pytest.raises(ValueError, match=r"not for parameters of shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
