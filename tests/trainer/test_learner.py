"""The learner against a plain implementation on padded rows, and what must not change an update."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from forests import Forest, path_by_path, random_forest, tiny_model, unshared, with_logprobs

from turnwise_agent.trajectory import Group
from turnwise_trainer.config import OptimizerConfig
from turnwise_trainer.errors import TrainerError
from turnwise_trainer.learner import Learner, schedule
from turnwise_trainer.objective import Objective

TEMPERATURE = 0.8
#: A large eps keeps AdamW's first step, g / (|g| + eps), from amplifying rounding errors in tiny gradients.
SETTINGS = {"lr": 1e-3, "eps": 1e-3, "weight_decay": 0.1}


def hand_made(index: int = 0, outcomes: Sequence[float] = (1.0, 0.0, 1.0, 0.0)) -> Group:
    """Independent episodes of one prompt, of one or two turns."""
    forest = Forest(index)
    for member, outcome in enumerate(outcomes):
        turn = forest.turn(None, [10 + index, 11], [20 + member, 21])
        if member % 2:
            turn = forest.turn(turn, [30], [40 + member, 41, 42])
        forest.episode(turn, outcome)
    return forest.build()


def learner(model: Any, objective: Any = "grpo", *, steps: int = 10, reference: Any = None, **settings: Any) -> Learner:
    chosen = OptimizerConfig(**{**SETTINGS, **settings})
    return Learner(
        model, Objective.resolve(objective), chosen, temperature=TEMPERATURE, steps=steps, reference=reference
    )


def updated(groups: Sequence[Group], objective: Any = "grpo", **settings: Any) -> tuple[Any, dict[str, float]]:
    model = tiny_model()
    metrics = learner(model, objective, **settings).update(groups, step=0)
    return model, metrics


def distance(one: Any, other: Any) -> float:
    """The largest difference between two models' weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def plain_grpo(
    batches: Sequence[Sequence[Group]], *, epsilon: float = 0.2, kl: float = 0.0, reference: Any = None
) -> tuple[Any, list[float]]:
    """GRPO as in a textbook: padded rows of whole episodes, a mask of action tokens, one AdamW step a batch."""
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters(), **SETTINGS)
    at_start, norms = copy.deepcopy(model), []
    for groups in batches:
        rows: list[list[int]] = []
        masks: list[list[bool]] = []
        advantages: list[float] = []
        for group in groups:
            outcomes = np.array([episode.final_reward for episode in group.episodes])
            advantages += list((outcomes - outcomes.mean()) / (outcomes.std(ddof=1) + 1e-6))
            for path in group.paths():
                rows.append([token for turn in path for token in (*turn.prompt_ids, *turn.action_ids)])
                masks.append(
                    [
                        is_action
                        for turn in path
                        for is_action in [False] * len(turn.prompt_ids) + [True] * len(turn.action_ids)
                    ]
                )
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([row + [False] * (width - len(row)) for row in masks])[:, 1:]

        def logprobs(net: Any, ids: torch.Tensor = ids) -> torch.Tensor:
            scores = (net(input_ids=ids).logits[:, :-1] / TEMPERATURE).log_softmax(-1)
            return scores.gather(-1, ids[:, 1:, None])[..., 0]

        with torch.no_grad():
            old, fixed = logprobs(at_start), logprobs(reference or at_start)
        now, advantage = logprobs(model), torch.tensor(advantages, dtype=torch.float32)[:, None]
        ratio = (now - old).exp()
        objective = torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon) * advantage)
        divergence = (fixed - now).exp() - (fixed - now) - 1
        loss = ((kl * divergence - objective) * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
    return model, norms


class TestAgainstAPlainImplementation:
    def test_one_update(self) -> None:
        groups = [hand_made(0), hand_made(1, (1.0, 1.0, 1.0, 0.0))]
        ours, metrics = updated(groups)
        theirs, (norm,) = plain_grpo([groups])
        assert metrics["optimizer/grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert distance(ours, tiny_model()) > 1e-4
        assert distance(ours, theirs) < 2e-6

    def test_several_epochs_clip_against_the_policy_before_the_update(self) -> None:
        groups = [hand_made(0), hand_made(1, (1.0, 1.0, 1.0, 0.0))]
        ours, metrics = updated(groups, epochs=8)
        theirs, _ = plain_grpo([groups] * 8)
        assert metrics["policy/clip_fraction"] > 0.0
        assert distance(ours, plain_grpo([groups] * 8, epsilon=10.0)[0]) > 1e-4
        assert distance(ours, theirs) < 5e-6

    def test_minibatches_are_a_split_into_whole_groups(self) -> None:
        groups = [
            hand_made(index, outcomes) for index, outcomes in enumerate([(1, 0, 0, 0), (0, 1, 0, 1), (1, 1, 0, 1)])
        ]
        ours, _ = updated(groups, minibatches=2)
        distances = [
            distance(ours, plain_grpo([[groups[i] for i in sorted(order[:2])], [groups[order[2]]]])[0])
            for order in itertools.permutations(range(3))
            if order[0] < order[1]
        ]
        assert sorted(distances)[0] < 2e-6
        assert sorted(distances)[1] > 1e-4

    def test_kl_to_a_reference(self) -> None:
        reference, groups = tiny_model(seed=5), [hand_made()]
        objective = {"regularizers": {"kl": {"coefficient": 0.3}}}
        model = tiny_model()
        metrics = learner(model, objective, reference=copy.deepcopy(reference)).update(groups, step=0)
        assert metrics["policy/reference_kl"] > 0.0
        assert distance(model, plain_grpo([groups], kl=0.3, reference=reference)[0]) < 2e-6
        assert distance(model, plain_grpo([groups])[0]) > 1e-4


class TestWhatMustNotMatter:
    @pytest.mark.parametrize("objective", ["grpo", "empg", {"regularizers": ["entropy"]}])
    def test_microbatches(self, objective: Any) -> None:
        groups = [random_forest(7, index, replace_context=False) for index in range(4)]
        whole, expected = updated(groups, objective, microbatch_tokens=10**6, epochs=2)
        cut, metrics = updated(groups, objective, microbatch_tokens=1, epochs=2)
        assert distance(whole, cut) < 1e-6
        assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)

    @pytest.mark.parametrize("objective", ["grpo", "arpo", "gspo", "empg"])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_sharing_turns(self, objective: str, seed: int) -> None:
        """A tree of turns, as ARPO draws them, is worth all of its copies."""
        tree = [random_forest(seed, index, members=8) for index in range(3)]
        assert any(group.saved_policy_tokens for group in tree)
        shared, metrics = updated(tree, objective, epochs=2)
        flat, expected = updated([unshared(group) for group in tree], objective, epochs=2)
        del metrics["policy/entropy"], expected["policy/entropy"]  # of unique tokens
        assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert distance(shared, flat) < 5e-6
        assert distance(shared, tiny_model()) > 1e-4

    def test_groups_that_are_not_kept(self) -> None:
        good, even = hand_made(0), hand_made(1, (1.0, 1.0, 1.0, 1.0))
        alone, _ = updated([good], {"select": ["varied"]})
        beside, metrics = updated([even, good], {"select": ["varied"]})
        assert metrics["groups/kept"] == 0.5
        assert distance(alone, beside) < 1e-6


class TestReports:
    def test_gap_to_the_engine(self) -> None:
        model, group = tiny_model(), random_forest(1)
        right = path_by_path(model, [group], TEMPERATURE)[0].tolist()
        wrong = [*right[:3], right[3] - 0.25, *right[4:]]
        for reported, gap in ((right, 0.0), (wrong, 0.25)):
            metrics = learner(copy.deepcopy(model)).update([with_logprobs(group, reported)], step=0)
            assert metrics["logprob_gap_max"] == pytest.approx(gap, abs=2e-5)

    def test_nothing_kept_nothing_learned(self) -> None:
        ours = learner(tiny_model(), {"select": ["varied"]})
        metrics = ours.update([hand_made(0, (1.0, 1.0)), hand_made(1, (0.0, 0.0))], step=0)
        assert metrics["groups/kept"] == 0.0
        assert not any(name in metrics for name in ("optimizer/grad_norm", "logprob_gap_max", "loss/clip"))
        assert distance(ours.model, tiny_model()) == 0.0
        assert not ours.optimizer.state

    def test_a_gradient_that_is_not_finite(self) -> None:
        model = tiny_model()
        with torch.no_grad():
            model.get_output_embeddings().weight[0, 0] = math.inf
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(TrainerError, match="gradient is not finite"):
            learner(model).update([hand_made()], step=0)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class TestSchedule:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({}, [1, 1, 1, 1, 1, 1]),
            ({"warmup_steps": 2}, [1 / 3, 2 / 3, 1, 1, 1, 1]),
            ({"schedule": "linear"}, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
            ({"schedule": "linear", "warmup_steps": 2}, [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4]),
            ({"schedule": "cosine", "warmup_steps": 2}, [1 / 3, 2 / 3, 1, 0.8535534, 0.5, 0.1464466]),
            ({"warmup_steps": 6}, [1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7]),
        ],
    )
    def test_factors(self, settings: dict[str, Any], expected: list[float]) -> None:
        chosen = OptimizerConfig(**settings)
        assert [schedule(chosen, step, 6) for step in range(6)] == pytest.approx(expected)

    @pytest.mark.parametrize("kind", ["linear", "cosine"])
    def test_ends_at_zero(self, kind: Any) -> None:
        assert schedule(OptimizerConfig(schedule=kind, warmup_steps=3), 10, 10) == pytest.approx(0.0)

    def test_the_rate_is_what_is_logged_and_used(self) -> None:
        model = tiny_model()
        ours = learner(model, steps=4, schedule="linear", lr=1e-2)
        rates = [ours.update([hand_made()], step)["optimizer/lr"] for step in range(4)]
        assert rates == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])
        assert ours.optimizer.param_groups[0]["lr"] == pytest.approx(2.5e-3)
