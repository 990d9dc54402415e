"""ARPO's branching rule: worked numbers, both modes, and its bounds for random rounds."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_agent.branching import BranchRound, EntropyBranching, Fork, LivePath


def round_of(*paths: LivePath, free: int = 8, seed: int = 0) -> BranchRound:
    return BranchRound(paths, free, random.Random(seed))


def truncated_entropy(*probabilities: float) -> float:
    return -sum(p * math.log(p) for p in probabilities)


def test_proxy_is_a_sum_over_the_first_tokens_relative_to_log_vocabulary() -> None:
    tokens = [truncated_entropy(0.6, 0.3), truncated_entropy(0.5, 0.4)]
    assert EntropyBranching().entropy_of(tokens, 32000) == pytest.approx(0.13311, abs=1e-5)
    assert EntropyBranching(tokens=2).entropy_of([*tokens, 9.0], 32000) == pytest.approx(0.13311, abs=1e-5)
    assert EntropyBranching().entropy_of([1.0] * 25, 10) == pytest.approx(20 / math.log(10))


def test_scores_of_the_reference() -> None:
    rule = EntropyBranching()
    assert rule.branch_score(0.4) == pytest.approx(0.58)
    assert rule.branch_score(-0.1) == pytest.approx(0.48)


@pytest.mark.parametrize(("size", "fresh"), [(16, 8), (12, 6), (5, 2), (1, 1)])
def test_half_of_the_group_starts_fresh(size: int, fresh: int) -> None:
    assert EntropyBranching().initial(size) == fresh


def test_fractions_are_not_lost_to_rounding() -> None:
    assert EntropyBranching(initial_fraction=0.29).initial(100) == 29


def test_paper_forks_before_the_action_whose_entropy_rose() -> None:
    rose, fell, same = LivePath(0, (0.1, 0.2, 0.3)), LivePath(1, (0.4, 0.3)), LivePath(2, (0.2, 0.2))
    assert EntropyBranching().forks(round_of(rose, fell, same)) == [Fork(0, 2)]


def test_paper_measures_a_branch_against_its_own_first_turn() -> None:
    inherited_low = LivePath(0, (0.1, 0.5, 0.4), first_own=1)
    assert EntropyBranching().forks(round_of(inherited_low)) == []
    assert EntropyBranching().forks(round_of(LivePath(0, (0.9, 0.3, 0.4), first_own=1))) == [Fork(0, 2)]


def test_paper_never_shares_zero_turns_and_needs_a_second_own_turn() -> None:
    eager = EntropyBranching(base=1.0)
    assert eager.forks(round_of(LivePath(0, (0.9,)))) == []
    assert EntropyBranching().forks(round_of(LivePath(0, (0.1, 0.9), first_own=1))) == []


def test_released_forks_after_the_observation_with_the_scores_probability() -> None:
    rule = EntropyBranching(mode="released")
    rng = random.Random(7)
    draws = 4000
    up = sum(len(rule.forks(BranchRound([LivePath(0, (0.1, 0.5))], 1, rng))) for _ in range(draws))
    down = sum(len(rule.forks(BranchRound([LivePath(0, (0.4, 0.3))], 1, rng))) for _ in range(draws))
    first = sum(len(rule.forks(BranchRound([LivePath(0, (0.4,))], 1, rng))) for _ in range(draws))
    assert up / draws == pytest.approx(0.58, abs=0.03)
    assert down / draws == pytest.approx(0.48, abs=0.03)
    assert first / draws == pytest.approx(0.50, abs=0.03)
    certain = EntropyBranching(mode="released", base=2.0)
    assert certain.forks(round_of(LivePath(3, (0.4, 0.3)))) == [Fork(3, 2)]
    assert certain.forks(round_of(LivePath(3, (0.4,)))) == [Fork(3, 1)]


def test_slots_go_to_the_first_members_and_the_beam_bounds_a_path() -> None:
    paths = [LivePath(member, (0.1, 0.2)) for member in range(3)]
    assert EntropyBranching().forks(round_of(*paths, free=2)) == [Fork(0, 1), Fork(1, 1)]
    assert EntropyBranching(beam=3).forks(round_of(*paths, free=3)) == [Fork(0, 1), Fork(0, 1), Fork(1, 1)]


paths = st.lists(st.lists(st.floats(0, 3), min_size=1, max_size=5).map(tuple), max_size=6)


@given(paths, st.integers(0, 8), st.integers(2, 4), st.sampled_from(["paper", "released"]), st.integers(0, 99))
def test_bounds_hold_for_any_round(
    entropies: list[tuple[float, ...]], free: int, beam: int, mode: str, seed: int
) -> None:
    rule = EntropyBranching(mode=mode, beam=beam)  # type: ignore[arg-type]
    offered = [LivePath(member, values) for member, values in enumerate(entropies)]
    forks = rule.forks(round_of(*offered, free=free, seed=seed))
    assert len(forks) <= free
    for path in offered:
        own = [fork for fork in forks if fork.member == path.member]
        assert len(own) <= beam - 1
        assert all(1 <= fork.at_turn <= path.turns for fork in own)
    assert forks == rule.forks(round_of(*offered, free=free, seed=seed))
