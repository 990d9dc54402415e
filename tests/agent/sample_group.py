"""A small group with every feature: shared turns, a fork of a fork, a fresh episode, a client-side finish."""

from __future__ import annotations

from turnwise_agent.trajectory import Episode, Group, StopReason, Turn
from turnwise_envs import Action, Observation, StepInfo, Task

#: Turn ids of the four episodes: 0 is shared by three of them, 1 by two.
PATHS = [[0, 1, 2], [0, 1, 3], [0, 4, 5], [6]]
_PARENTS = [None, 0, 1, 1, 0, 4, None]
_INDEX = [0, 1, 2, 2, 1, 2, 0]


def forest(task_index: int = 4) -> Group:
    """Turn k says "act k", hears "seen k", has k + 1 action tokens and is worth k / 10."""
    stops = [StopReason.TERMINATED, StopReason.MAX_TURNS, StopReason.TERMINATED, StopReason.CONTEXT_OVERFLOW]
    ends = ["solved", "max_turns", "failed", "finished:context_overflow"]
    forks = [(None, 0), (0, 2), (0, 1), (None, 0)]
    return Group(
        task=Task(env="toy", split="train", index=task_index, id=f"toy/train/{task_index}", instruction="do it"),
        seed=9,
        options={"hard": True},
        initial=Observation.say("Begin."),
        turns=tuple(_turn(k) for k in range(7)),
        episodes=tuple(
            Episode(
                member=member,
                leaf=PATHS[member][-1],
                stop=stops[member],
                final_reward=2.5 if member == 3 else 0.0,
                final_info=StepInfo(end=ends[member]),
                log_hash=f"end {member}",
                forked_from=forks[member][0],
                forked_at=forks[member][1],
            )
            for member in range(4)
        ),
        dropped=1,
    )


def _turn(k: int) -> Turn:
    return Turn(
        id=k,
        parent=_PARENTS[k],
        index=_INDEX[k],
        new_context=_PARENTS[k] is None,
        prompt_ids=(10 + k, 11),
        action_ids=tuple(range(k + 1)),
        logprobs=tuple(-0.1 * (n + 1) for n in range(k + 1)),
        entropies=(0.5,) * (k + 1),
        top_entropies=(0.4,) * (k + 1),
        versions=(3,) * (k + 1),
        action=Action(text=f"act {k}"),
        observation=Observation.say(f"seen {k}"),
        reward=k / 10,
        terminated=k in (2, 5),
        truncated=k == 3,
        info=StepInfo(counters={"looks": k}),
        log_hash=f"hash {k}",
    )
