"""The flat view of a batch: what objectives compute on.

Letters in names are dimensions: ``N`` episodes, ``S`` turn rows (one per episode and turn), ``K`` flat tokens (one per
episode, turn and action token), ``T`` unique turns, ``U`` unique action tokens. A shared turn stands once in ``T`` and ``U``
and once per leaf in ``S`` and ``K``, so that statistics over the flat view count it as often as it has leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from turnwise_agent.trajectory import Group, Turn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BatchView:
    """Index arrays and engine-side measurements of some groups. All arrays are read-only by convention.

    Attributes:
        groups: the groups, in order.
        turns_T: every unique turn of the batch.
        group_N: group number of each episode.
        episode_S, turn_S, node_S: the episode, the turn index within it, and the unique turn (``T``) of each row.
        row_K, token_K: the row (``S``) and the unique token (``U``) of each flat token. Tokens of a row are adjacent and
            in order, rows of an episode too.
        node_U: the unique turn (``T``) of each unique token; tokens of a turn are adjacent and in order.
        logp_U, entropy_U: the sampling policy's log-prob and entropy (nats).
        env_reward_S: the environment's reward of each row; what ``finish`` gave is on the episode's last row.
    """

    groups: Sequence[Group]
    turns_T: Sequence[Turn]
    group_N: Ints
    episode_S: Ints
    turn_S: Ints
    node_S: Ints
    row_K: Ints
    token_K: Ints
    node_U: Ints
    logp_U: Floats
    entropy_U: Floats
    env_reward_S: Floats

    @classmethod
    def of(cls, groups: Sequence[Group]) -> BatchView:
        turns = [turn for group in groups for turn in group.turns]
        sizes_T = np.array([len(turn.action_ids) for turn in turns], dtype=np.int64)
        first_token_T = np.concatenate([[0], np.cumsum(sizes_T)])[:-1]
        group_N: list[int] = []
        episode_S: list[int] = []
        turn_S: list[int] = []
        node_S: list[int] = []
        reward_S: list[float] = []
        first_turn = 0
        for number, group in enumerate(groups):
            for episode in group.episodes:
                path = group.path(episode)
                episode_S += [len(group_N)] * len(path)
                turn_S += [turn.index for turn in path]
                node_S += [first_turn + turn.id for turn in path]
                reward_S += [turn.reward for turn in path]
                reward_S[-1] += episode.final_reward
                group_N.append(number)
            first_turn += len(group.turns)
        nodes = np.array(node_S, dtype=np.int64)
        row_K = np.repeat(np.arange(len(nodes)), sizes_T[nodes])
        token_K = np.concatenate([np.arange(first_token_T[n], first_token_T[n] + sizes_T[n]) for n in nodes])
        return cls(
            groups=groups,
            turns_T=turns,
            group_N=np.array(group_N, dtype=np.int64),
            episode_S=np.array(episode_S, dtype=np.int64),
            turn_S=np.array(turn_S, dtype=np.int64),
            node_S=nodes,
            row_K=row_K.astype(np.int64),
            token_K=token_K.astype(np.int64),
            node_U=np.repeat(np.arange(len(turns)), sizes_T).astype(np.int64),
            logp_U=np.array([value for turn in turns for value in turn.logprobs], dtype=np.float64),
            entropy_U=np.array([value for turn in turns for value in turn.entropies], dtype=np.float64),
            env_reward_S=np.array(reward_S, dtype=np.float64),
        )

    @property
    def episodes(self) -> int:
        """N."""
        return len(self.group_N)

    @property
    def rows(self) -> int:
        """S."""
        return len(self.episode_S)

    @cached_property
    def episode_K(self) -> Ints:
        """The episode of each flat token."""
        return self.episode_S[self.row_K]

    @cached_property
    def last_N(self) -> Ints:
        """The row of each episode's last turn."""
        return np.cumsum(np.bincount(self.episode_S, minlength=self.episodes)) - 1

    @cached_property
    def tokens_S(self) -> Ints:
        """Number of action tokens of each row."""
        return np.bincount(self.row_K, minlength=self.rows)

    @cached_property
    def tokens_N(self) -> Ints:
        """Number of action tokens of each episode."""
        return np.bincount(self.episode_K, minlength=self.episodes)

    @cached_property
    def leaves_U(self) -> Ints:
        """Number of episodes that pass through each unique token."""
        return np.bincount(self.token_K, minlength=len(self.node_U))

    def sum_rows(self, values_S: Floats) -> Floats:
        """[S] -> [N]: sum over the turns of each episode."""
        return _sums(self.episode_S, values_S, self.episodes)

    def row_means(self, values_K: Floats) -> Floats:
        """[K] -> [S]: mean over the tokens of each row (rows always have at least one token)."""
        return _sums(self.row_K, values_K, self.rows) / self.tokens_S


def _sums(bins: Ints, values: Floats, size: int) -> Floats:
    """Sum of the values in each bin."""
    return np.bincount(bins, weights=values, minlength=size).astype(np.float64, copy=False)
