"""The trajectory nouns: a group of episodes of one task is a forest of turns.

Token ids are the truth; text is decoded from them for environments and people, and never encoded back. A turn that
several episodes share is one :class:`Turn` object. Turn indices are integers carried from where they were born.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from turnwise_envs.types import Action, JsonObject, Observation, StepInfo, Task


class StopReason(StrEnum):
    """Why an episode ended."""

    TERMINATED = "terminated"  # the environment reached an end of its own
    MAX_TURNS = "max_turns"  # the turn limit, enforced by the server
    CONTEXT_OVERFLOW = "context_overflow"  # the next prompt or action would not fit; the client finished it


@dataclass(frozen=True, slots=True)
class Turn:
    """A node: what was appended to the context, what the policy answered, and what the environment said to it.

    Attributes:
        id: position in ``Group.turns``.
        parent: the turn before it in time; None for the first turn of an episode.
        index: number of actions before this one.
        new_context: ``prompt_ids`` are the whole context (first turns, and after ``context: "replace"``); otherwise
            they continue the parent's context and action.
        prompt_ids: token ids appended before acting.
        action_ids: sampled token ids, the stop token included.
        logprobs: nats, of the sampled tokens under the sampling policy (temperature applied), one per action token.
        entropies: nats, full-vocabulary entropy at each action token.
        top_entropies: nats, entropy sum over the most likely alternatives only (what ARPO's proxy needs).
        versions: the weight version that produced each action token.
        action: what was sent to the environment.
        observation, reward, terminated, truncated, info, log_hash: its answer.
        answer_logprobs: nats, of the gold answer's tokens if the policy had given it here instead of acting; empty unless
            the context was probed.
    """

    id: int
    parent: int | None
    index: int
    new_context: bool
    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    top_entropies: tuple[float, ...]
    versions: tuple[int, ...]
    action: Action
    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    info: StepInfo
    log_hash: str
    answer_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """A path from a root to a leaf.

    ``final_reward`` and ``final_info`` come from ``finish`` when the client ended the episode, else from the last
    step (with a reward of 0, since the step's own reward is on its turn).
    ``forked_at`` is the number of turns this episode shares with the one it was branched off (0: none).
    """

    member: int
    leaf: int
    stop: StopReason
    final_reward: float
    final_info: StepInfo
    log_hash: str
    forked_from: int | None = None
    forked_at: int = 0

    @property
    def solved(self) -> bool:
        return self.final_info.end == "solved"


@dataclass(frozen=True, slots=True)
class Group:
    """All episodes of one task that were drawn together.

    ``dropped`` counts episodes that the environment lost (``env-failed``) and that were drawn again.
    """

    task: Task
    seed: int
    options: JsonObject
    initial: Observation
    turns: Sequence[Turn]
    episodes: Sequence[Episode]
    dropped: int = 0

    def path(self, episode: Episode) -> list[Turn]:
        """The turns of one episode, first to last."""
        return path_to(self.turns, episode.leaf)

    def paths(self) -> Iterator[list[Turn]]:
        return (self.path(episode) for episode in self.episodes)

    def leaves_per_turn(self) -> Counter[int]:
        """How many episodes pass through each turn."""
        return Counter(turn.id for path in self.paths() for turn in path)

    def outcome(self, episode: Episode) -> float:
        """Sum of all rewards that the environment gave along the episode."""
        return sum(turn.reward for turn in self.path(episode)) + episode.final_reward

    @property
    def env_steps(self) -> int:
        """Steps that the environment really took: each shared turn once."""
        return len(self.turns)

    @property
    def policy_tokens(self) -> int:
        """Tokens that the policy really sampled: each shared turn once."""
        return sum(len(turn.action_ids) for turn in self.turns)

    @property
    def saved_env_steps(self) -> int:
        """Steps that an unbranched group with the same episodes would have taken in addition."""
        return sum(self.leaves_per_turn().values()) - len(self.turns)

    @property
    def saved_policy_tokens(self) -> int:
        """Tokens that an unbranched group with the same episodes would have sampled in addition."""
        leaves = self.leaves_per_turn()
        return sum((leaves[turn.id] - 1) * len(turn.action_ids) for turn in self.turns)


def path_to(turns: Sequence[Turn], leaf: int) -> list[Turn]:
    """The turns up to ``leaf``, first to last."""
    path: list[Turn] = []
    cursor: int | None = leaf
    while cursor is not None:
        path.append(turns[cursor])
        cursor = turns[cursor].parent
    return path[::-1]


def in_order(turns: Sequence[Turn], episodes: Mapping[int, Episode]) -> tuple[tuple[Turn, ...], tuple[Episode, ...]]:
    """Turns as they happened and episodes by member, as a :class:`Group` has them.

    Turns are numbered by member and time, whatever order they were finished in; those of no episode are left out.
    """
    order: dict[int, int] = {}
    for member in sorted(episodes):
        for turn in path_to(turns, episodes[member].leaf):
            order.setdefault(turn.id, len(order))
    numbered = tuple(
        replace(turns[old], id=new, parent=None if (parent := turns[old].parent) is None else order[parent])
        for old, new in order.items()
    )
    by_member = (episodes[member] for member in sorted(episodes))
    return numbered, tuple(
        replace(_with_true_origin(episode, turns, episodes), leaf=order[episode.leaf]) for episode in by_member
    )


def _with_true_origin(episode: Episode, turns: Sequence[Turn], episodes: Mapping[int, Episode]) -> Episode:
    """An episode whose parent was lost after the fork (and drawn again) shares nothing with that member."""
    if episode.forked_from is None:
        return episode
    fork_turn = path_to(turns, episode.leaf)[episode.forked_at - 1]
    if fork_turn in path_to(turns, episodes[episode.forked_from].leaf):
        return episode
    return replace(episode, forked_from=None, forked_at=0)
