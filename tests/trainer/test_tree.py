"""The tree forward equals an ordinary forward of every path, and forwards every unique token once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from forests import Forest, contexts, path_by_path, random_forest, tiny_model, unshared
from hypothesis import given
from hypothesis import strategies as st

from turnwise_agent.engines.forward import Backbone
from turnwise_agent.trajectory import Group
from turnwise_trainer.tree import chains_of, tree_logprobs, unique_tokens

MODEL = tiny_model()


def distinct_tokens(groups: Sequence[Group]) -> int:
    """A trie of all contexts: prompts are the same if their tokens are, actions only if they are the same turn's."""
    nodes = set()
    for number, group in enumerate(groups):
        for path in group.paths():
            for ids, actions in contexts(path):
                written = {place: (turn, offset) for place, turn, offset in actions}
                name: tuple[Any, ...] = (number,)
                for place, token in enumerate(ids):
                    name = (*name, written.get(place, token))
                    nodes.add(name)
    return len(nodes)


def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(MODEL.parameters())))


@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(1, 3),
    temperature=st.sampled_from([0.7, 1.0, 1.6]),
    batch_tokens=st.sampled_from([1, 16, 8192]),
)
def test_equals_every_path_on_its_own(seed: int, groups: int, temperature: float, batch_tokens: int) -> None:
    drawn = [random_forest(seed, index) for index in range(groups)]
    logp, entropy = tree_logprobs(Backbone(MODEL), drawn, temperature, entropy=True, batch_tokens=batch_tokens)
    expected, expected_entropy = path_by_path(MODEL, drawn, temperature)
    assert entropy is not None
    torch.testing.assert_close(logp, expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(entropy, expected_entropy, atol=2e-5, rtol=2e-5)
    weights = torch.tensor(np.random.default_rng(seed).normal(size=len(logp)), dtype=torch.float32) / len(logp)
    ours = gradients((weights * (logp + 0.5 * entropy)).sum())
    theirs = gradients((weights * (expected + 0.5 * expected_entropy)).sum())
    scale = max(float(gradient.abs().max()) for gradient in theirs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-5 * max(scale, 1.0), rtol=1e-4)


@given(seed=st.integers(0, 10**6), groups=st.integers(1, 3))
def test_forwards_every_unique_token_once(seed: int, groups: int) -> None:
    drawn = [random_forest(seed, index) for index in range(groups)]
    assert unique_tokens(drawn) == distinct_tokens(drawn)
    assert sum(len(chain.actions) for chain in chains_of(drawn)) == sum(group.policy_tokens for group in drawn)


def test_what_the_model_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members of one prompt, one of which forks twice: 4 + (2 + 2) + (1 + 2 + 1) + 2 tokens, none twice."""
    forest = Forest()
    first = forest.turn(None, [10, 11, 12, 13], [20, 21])
    second = forest.turn(None, [10, 11, 12, 13], [22, 23])
    left, right = forest.turn(first, [30], [40, 41]), forest.turn(first, [30], [42])
    other = forest.turn(left, [31], [43])
    for leaf in (second, right, other):
        forest.episode(leaf)
    given: list[int] = []
    backbone = Backbone(copy.deepcopy(MODEL))
    plain = backbone.hidden

    def counted(ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, past: Any) -> torch.Tensor:
        given.extend(ids.flatten().tolist())
        return plain(ids, positions, mask, past)

    monkeypatch.setattr(backbone, "hidden", counted)
    tree_logprobs(backbone, [forest.build()], 1.0, batch_tokens=1)  # batches of one chain: no padding
    assert sorted(given) == [10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 40, 41, 42, 43]
    assert unique_tokens([forest.build()]) == 14
    assert unique_tokens([unshared(forest.build())]) == 4 + (2 + 1 + 2 + 1 + 1) + (2 + 1 + 1) + 2


def test_a_replaced_context_is_read_alone() -> None:
    forest = Forest()
    first = forest.turn(None, [10, 11], [20])
    report = forest.turn(first, [50, 51], [60, 61], new_context=True)
    forest.episode(report)
    alone = Forest()
    alone.episode(alone.turn(None, [50, 51], [60, 61]))
    logp, none = tree_logprobs(Backbone(MODEL), [forest.build()], 1.0)
    expected, _ = tree_logprobs(Backbone(MODEL), [alone.build()], 1.0)
    assert none is None
    torch.testing.assert_close(logp[1:], expected)


@pytest.mark.parametrize("batch_tokens", [1, 30, 10_000])
def test_cutting_into_batches_changes_nothing(batch_tokens: int) -> None:
    drawn = [random_forest(3, index, members=8) for index in range(2)]
    one = tree_logprobs(Backbone(MODEL), drawn, 1.0, batch_tokens=batch_tokens)[0]
    torch.testing.assert_close(one, path_by_path(MODEL, drawn, 1.0)[0], atol=2e-5, rtol=2e-5)
