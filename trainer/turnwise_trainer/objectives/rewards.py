"""Reward terms that need nothing but the environment's own rewards."""

from __future__ import annotations

import hashlib

import numpy as np
from pydantic import Field

from turnwise_trainer.settings import Settings
from turnwise_trainer.slots import entry
from turnwise_trainer.view import BatchView, Floats


class Env(Settings):
    weight: float = Field(default=1.0, description="Multiplies the reward.")


@entry("rewards", "env")
def env(view: BatchView, settings: Env) -> Floats:
    """The environment's reward of each turn; what it gave when the episode was finished is on the last one."""
    return settings.weight * view.env_reward_S


class ShuffledEnv(Settings):
    weight: float = Field(default=1.0, description="Multiplies the reward.")


@entry("rewards", "shuffled_env")
def shuffled_env(view: BatchView, settings: ShuffledEnv) -> Floats:
    """A control that cannot teach: the outcomes of a group, dealt out at random among its episodes.

    Every statistic of the outcomes stays; only which episode earned which is lost. Each episode's dealt outcome is on its
    last turn. The deal is seeded by the group's task and its episodes' histories, so it is the same however often it is
    computed, and another one whenever the episodes are.
    """
    outcome_N = view.sum_rows(view.env_reward_S)
    dealt_N = np.empty_like(outcome_N)
    for number, group in enumerate(view.groups):
        members = np.flatnonzero(view.group_N == number)
        history = "\n".join([group.task.id, str(group.seed), *(episode.log_hash for episode in group.episodes)])
        seed = int.from_bytes(hashlib.sha256(history.encode()).digest()[:8], "big")
        dealt_N[members] = outcome_N[np.random.default_rng(seed).permutation(members)]
    reward_S = np.zeros(view.rows)
    reward_S[view.last_N] = dealt_N
    return settings.weight * reward_S
