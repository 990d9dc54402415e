"""A group as a forest of turns, with counts worked out by hand."""

from __future__ import annotations

import pytest
from sample_group import PATHS, forest

from turnwise_agent.trajectory import StopReason


def test_paths_run_from_root_to_leaf():
    group = forest()
    assert [[turn.id for turn in path] for path in group.paths()] == PATHS
    assert [turn.index for turn in group.path(group.episodes[1])] == [0, 1, 2]


def test_leaves_of_every_turn():
    assert forest().leaves_per_turn() == {0: 3, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1}


def test_what_was_really_done_and_what_was_saved():
    """Turn k has k + 1 action tokens: 1 + 2 + 3 + 4 + 5 + 6 + 7 = 28. Turn 0 is used two more times and turn 1 once
    more: three steps and 2 * 1 + 1 * 2 = 4 tokens saved."""
    group = forest()
    assert (group.env_steps, group.policy_tokens) == (7, 28)
    assert (group.saved_env_steps, group.saved_policy_tokens) == (3, 4)


def test_outcomes_are_all_rewards_on_the_path_and_the_final_one():
    """Turn k is worth k / 10."""
    group = forest()
    outcomes = [group.outcome(episode) for episode in group.episodes]
    assert outcomes == pytest.approx([0.0 + 0.1 + 0.2, 0.0 + 0.1 + 0.3, 0.0 + 0.4 + 0.5, 0.6 + 2.5])


def test_solved_is_what_the_environment_says():
    assert [episode.solved for episode in forest().episodes] == [True, False, False, False]


def test_stop_reasons_are_their_names():
    assert [reason.value for reason in StopReason] == ["terminated", "max_turns", "context_overflow"]
