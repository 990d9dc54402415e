"""Worked numbers of every built-in entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import GroupBuilder, flat_group
from numpy.testing import assert_allclose

from turnwise_agent.branching import EntropyBranching
from turnwise_trainer import catalog
from turnwise_trainer.fold import fold
from turnwise_trainer.losses import LossInputs, LossSettings
from turnwise_trainer.objective import Objective
from turnwise_trainer.objectives.arpo import ArpoHard, arpo_hard
from turnwise_trainer.objectives.clip import Clip, clip
from turnwise_trainer.objectives.empg import Empg, empg
from turnwise_trainer.objectives.grpo import Grpo, grpo
from turnwise_trainer.objectives.gspo import Gspo, gspo
from turnwise_trainer.objectives.regularizers import Entropy, Kl, entropy, kl
from turnwise_trainer.objectives.rewards import ShuffledEnv, shuffled_env
from turnwise_trainer.objectives.varied import Varied, varied
from turnwise_trainer.view import BatchView


def inputs_of(
    ratios: list[float],
    advantages: list[float],
    settings: LossSettings | None = None,
    lengths: list[int] | None = None,
    ref_ratio: float = 1.0,
) -> LossInputs:
    """Independent one-turn episodes of these lengths (default: one token each) with these ratios and advantages."""
    builder = GroupBuilder()
    for length in lengths or [1] * len(ratios):
        builder.episode(builder.turn(None, [0.5] * length))
    folded = fold(BatchView.of([builder.build()]), np.array(advantages), settings or Clip())
    logp = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    uniform = torch.full_like(logp, 2.0)
    return folded.inputs(logp, torch.zeros_like(logp), uniform, logp.detach() + float(np.log(ref_ratio)))


class TestGrpo:
    outcomes = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]

    @pytest.mark.parametrize(
        ("std", "up", "down"),
        [("sample", 1.620182, -0.540061), ("population", 1.732047, -0.577349), ("none", 0.75, -0.25)],
    )
    def test_normalises_outcomes(self, std: str, up: float, down: float) -> None:
        view = BatchView.of([flat_group(self.outcomes)])
        advantage_S = grpo(view, view.env_reward_S, Grpo(std=std))  # type: ignore[arg-type]
        assert_allclose(advantage_S, [up] * 2 + [down] * 6, atol=1e-6)

    def test_example_of_arpo(self) -> None:
        view = BatchView.of([flat_group([1.0, 0.0, 0.2, 0.9])])
        assert_allclose(grpo(view, view.env_reward_S, Grpo()), [0.95159, -1.05175, -0.65108, 0.75125], atol=1e-5)

    def test_sums_turn_rewards_and_stays_within_groups(self) -> None:
        builder = GroupBuilder()
        first = builder.turn(None, [0.5], reward=0.25)
        builder.episode(builder.turn(first, [0.5], reward=0.25), outcome=0.5)  # 1.0 over two turns
        builder.episode(builder.turn(None, [0.5]), outcome=0.0)
        view = BatchView.of([builder.build(), flat_group([5.0, 3.0], index=1)])
        half = np.sqrt(0.5)
        assert_allclose(grpo(view, view.env_reward_S, Grpo()), [half, half, -half, half, -half], atol=1e-5)

    def test_equal_outcomes_are_exactly_zero_and_a_single_episode_keeps_its_outcome(self) -> None:
        view = BatchView.of([flat_group([0.1] * 3), flat_group([0.7], index=1)])
        assert grpo(view, view.env_reward_S, Grpo()).tolist() == [0.0, 0.0, 0.0, 0.7]


class TestClip:
    def test_surrogate(self) -> None:
        inputs = inputs_of([1.5, 1.5, 0.5, 0.5, 1.1], [1, -1, 1, -1, 1])
        term = clip(inputs, Clip())
        assert_allclose(-5 * term.loss.detach().numpy(), [1.2, -1.5, 0.5, -0.8, 1.1], atol=1e-12)
        assert float(term.metrics["policy/clip_fraction"]) == pytest.approx(2 / 5)

    def test_only_a_bound_that_acts_counts_as_clipped(self) -> None:
        inputs = inputs_of([0.5, 1.5, 1.5, 0.5, 9.0], [0.5, -0.5, 0.5, -0.5, 0.0])
        assert float(clip(inputs, Clip()).metrics["policy/clip_fraction"]) == pytest.approx(2 / 5)

    def test_clip_higher(self) -> None:
        term = clip(inputs_of([1.5, 1.5, 0.5, 0.5, 1.1], [1, -1, 1, -1, 1]), Clip(eps_high=0.28))
        assert_allclose(-5 * term.loss.detach().numpy(), [1.28, -1.5, 0.5, -0.8, 1.1], atol=1e-12)

    def test_dual_clip_bounds_the_loss_and_stops_its_gradient(self) -> None:
        inputs = inputs_of([5.0, 1.0, 0.5], [-1, -1, -1])
        term = clip(inputs, Clip(dual_clip=3.0))
        assert_allclose(3 * term.loss.detach().numpy(), [3.0, 1.0, 0.8], atol=1e-12)
        term.loss.sum().backward()
        assert_allclose(3 * inputs.logp_U.grad.numpy(), [0.0, 1.0, 0.0], atol=1e-12)  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("settings", "loss"),
        [
            (Clip(aggregation="token-mean"), 3.0),
            (Clip(aggregation="seq-mean-token-mean"), 2.5),
            (Clip(aggregation="seq-mean-token-sum-norm", max_length=10), 0.9),
            (Clip(aggregation="seq-mean-token-sum-norm", max_length=1), 9.0),
        ],
    )
    def test_aggregation(self, settings: Clip, loss: float) -> None:
        inputs = inputs_of([1.0] * 6, [-1, -1, -4, -4, -4, -4], settings, lengths=[2, 4])
        assert float(clip(inputs, settings).loss.sum().detach()) == pytest.approx(loss)


class TestGspo:
    def test_one_ratio_per_episode(self) -> None:
        ratios = [float(np.exp(value)) for value in (0.1, -0.2, 0.4)]
        settings = Gspo(eps_high=0.5)
        inputs = inputs_of(ratios, [1.0, 1.0, 1.0], settings, lengths=[3])
        loss = gspo(inputs, settings).loss.sum()
        assert float(loss.detach()) == pytest.approx(-1.105171, abs=1e-6)
        loss.backward()
        assert_allclose(inputs.logp_U.grad.numpy(), [-1.105171 / 3] * 3, atol=1e-6)  # type: ignore[union-attr]

    def test_clipped_ratio_has_no_gradient(self) -> None:
        ratios = [float(np.exp(value)) for value in (0.1, -0.2, 0.4)]
        inputs = inputs_of(ratios, [1.0, 1.0, 1.0], Gspo(), lengths=[3])
        loss = gspo(inputs, Gspo()).loss.sum()
        assert float(loss.detach()) == pytest.approx(-1.0004)
        loss.backward()
        assert_allclose(inputs.logp_U.grad.numpy(), 0.0, atol=1e-12)  # type: ignore[union-attr]


def empg_view() -> BatchView:
    """Step entropies .2 .6 1 | .4 .8; the first step's are of two tokens, so that a mean is taken."""
    builder = GroupBuilder()
    first = builder.turn(None, [0.1, 0.3])
    builder.episode(builder.turn(builder.turn(first, [0.6]), [1.0]))
    builder.episode(builder.turn(builder.turn(None, [0.4]), [0.8]))
    return BatchView.of([builder.build()])


class TestEmpg:
    def test_example(self) -> None:
        view = empg_view()
        advantage_S = np.array([1.0, 1.0, 1.0, -1.0, -1.0])
        modulated_K = empg(view, advantage_S[view.row_K], Empg())
        expected_S = np.array([1.35761, 0.72382, 0.31710, -1.41315, -0.98538])
        assert_allclose(modulated_K, expected_S[view.row_K], atol=1e-4)

    def test_parts(self) -> None:
        view = empg_view()
        scaled_K = empg(view, np.ones(6), Empg(zeta=0.0))
        g_S = np.array([1.55011, 0.94019, 0.57025, 1.20723, 0.73222])
        assert_allclose(scaled_K, (g_S - 1.0)[view.row_K], atol=1e-5)
        bonus_K = empg(view, np.zeros(6), Empg(k=0.0, zeta=1.0, k_prime=2.0))
        bonus_S = np.exp([-1.0, -2.0, -np.inf, -1.5, -np.inf])
        assert_allclose(bonus_K, (bonus_S - bonus_S.mean())[view.row_K], atol=1e-6)


class TestArpo:
    def test_hard_attribution_averages_over_leaves(self) -> None:
        builder = GroupBuilder()
        shared = builder.turn(None, [0.5, 0.5])
        builder.episode(builder.turn(shared, [0.5]), 1.0)
        builder.episode(builder.turn(shared, [0.5]), 0.0)
        builder.episode(builder.turn(None, [0.5]), 0.2)
        builder.episode(builder.turn(None, [0.5]), 0.9)
        view = BatchView.of([builder.build()])
        advantage_K = grpo(view, view.env_reward_S, Grpo())[view.row_K]
        hard_K = arpo_hard(view, advantage_K, ArpoHard())
        shared_value = -0.05008
        expected = [shared_value] * 2 + [0.95159] + [shared_value] * 2 + [-1.05175, -0.65108, 0.75125]
        assert_allclose(hard_K, expected, atol=1e-5)
        population_K = grpo(view, view.env_reward_S, Grpo(std="population"))[view.row_K]
        assert arpo_hard(view, population_K, ArpoHard())[0] == pytest.approx(-0.05783, abs=1e-5)

    def test_preset_branches_and_clips_twice(self) -> None:
        objective = Objective.resolve({"preset": "arpo", "sampling": {"beam": 3, "slope": 0.4}})
        assert objective.branch_rule() == EntropyBranching(beam=3, slope=0.4)
        assert objective.spec.table()["loss"]["dual_clip"] == 3.0
        assert Objective.resolve("grpo").branch_rule() is None


class TestRegularizers:
    def test_entropy_is_rewarded(self) -> None:
        inputs = inputs_of([1.0, 1.0], [0.0, 0.0])  # entropy 2 everywhere
        assert float(entropy(inputs, Entropy(coefficient=0.1)).loss.sum()) == pytest.approx(-0.2)

    def test_k3(self) -> None:
        term = kl(inputs_of([1.0, 1.0], [0.0, 0.0], ref_ratio=2.0), Kl(coefficient=0.5))
        k3 = 2.0 - np.log(2.0) - 1.0
        assert float(term.loss.sum().detach()) == pytest.approx(0.5 * k3)
        assert float(term.metrics["policy/reference_kl"]) == pytest.approx(k3)

    def test_needs(self) -> None:
        plain = Objective.resolve("grpo")
        assert (plain.needs_entropy, plain.needs_reference) == (False, False)
        both = Objective.resolve({"regularizers": ["entropy", "kl"]})
        assert (both.needs_entropy, both.needs_reference) == (True, True)


class TestRewardsAndSelect:
    def test_env_weight(self) -> None:
        view = BatchView.of([flat_group([1.0, 0.0], turns=2)])
        credit = Objective.resolve({"rewards": {"env": {"weight": 2.0}}}).credit(view)
        assert credit.rewards_S["env"].tolist() == [0.0, 2.0, 0.0, 0.0]
        assert credit.metrics["reward/env"] == 1.0

    def test_shuffled_outcomes_stay_in_their_group_and_are_dealt_the_same_each_time(self) -> None:
        groups = [flat_group([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], turns=2), flat_group([7.0, 8.0], turns=2, index=1)]
        view = BatchView.of(groups)
        dealt_S = shuffled_env(view, ShuffledEnv())
        dealt_N = view.sum_rows(dealt_S)
        assert dealt_S[::2].tolist() == [0.0] * 8  # on last turns only
        assert sorted(dealt_N[:6]) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        assert sorted(dealt_N[6:]) == [7.0, 8.0]
        assert dealt_N[:6].tolist() != [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        assert_allclose(shuffled_env(BatchView.of(groups[:1]), ShuffledEnv()), dealt_S[:12])

    def test_shuffled_outcomes_say_nothing_about_an_episode(self) -> None:
        own = []
        for index in range(400):
            view = BatchView.of([flat_group([1.0, 0.0, 0.0, 0.0], index=index)])
            own.append(grpo(view, shuffled_env(view, ShuffledEnv()), Grpo(std="none"))[0])
        assert np.mean(own) == pytest.approx(0.0, abs=0.07)  # standard error .022; unshuffled it is .75

    def test_varied(self) -> None:
        view = BatchView.of([flat_group([1.0, 1.0]), flat_group([1.0, 0.0], index=1), flat_group([1.0], index=2)])
        assert varied(view, view.env_reward_S, Varied()).tolist() == [False, True, True]


def test_every_entry_says_what_it_does() -> None:
    for slot in ("sampling", "rewards", "advantage", "modulators", "loss", "regularizers", "select"):
        for found in catalog.entries(slot).values():  # type: ignore[arg-type]
            assert found.summary, found
