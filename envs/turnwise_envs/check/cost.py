"""What an episode costs: seconds of reset and step, characters of observations, bytes of snapshots.

Limits are far above what is good; they tell an environment that cannot be trained on from one that is merely slow.
"""

from __future__ import annotations

import time
from statistics import median

from turnwise_envs.check.subject import Failure, Subject
from turnwise_envs.check.trace import close, restart, take
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.types import Observation

#: Median over the checker's episodes, by the wall clock.
MAX_RESET_SECONDS = 30.0
MAX_STEP_SECONDS = 5.0
#: An observation of this many characters fills the context of any policy.
MAX_CHARACTERS = 1_000_000
#: Servers keep a snapshot for every idle session.
MAX_SNAPSHOT_BYTES = 4 * 1024**2


async def cost(subject: Subject) -> str:
    resets, steps, sizes, snapshots = [], [], [], []
    for trace in subject.traces:
        begun = time.perf_counter()
        episode = await restart(subject.env_class, trace)
        resets.append(time.perf_counter() - begun)
        sizes.append(_characters(episode.initial))
        for action in trace.actions:
            if episode.done:
                break  # without determinism it may end earlier than the recorded one
            snapshots.append(_snapshot_bytes(episode))
            begun = time.perf_counter()
            result = await take(episode, action)
            steps.append(time.perf_counter() - begun)
            sizes.append(_characters(result.observation))
        await close(episode)
    _limit("a reset", median(resets), MAX_RESET_SECONDS, "s", "load what episodes share once, outside of `reset`")
    _limit("a step", median(steps or [0.0]), MAX_STEP_SECONDS, "s", "thousands of them make one training step")
    _limit("an observation", max(sizes), MAX_CHARACTERS, "characters", "cut what is long and say that it was cut")
    _limit("a snapshot", max(snapshots, default=0), MAX_SNAPSHOT_BYTES, "bytes", "leave out what the task fixes")
    told = (
        f"median reset {_told(median(resets))}, step {_told(median(steps or [0.0]))}; observations up to {max(sizes)} "
    )
    return f"{told}characters" + (
        f", snapshots up to {max(snapshots)} bytes" if subject.spec.snapshot and snapshots else ""
    )


def _characters(observation: Observation) -> int:
    return sum(len(message.content) for message in observation.messages)


def _snapshot_bytes(episode: LiveEpisode) -> int:
    return len(episode.env.snapshot()) if type(episode.env).spec.snapshot else 0


def _limit(what: str, seen: float, limit: float, unit: str, advice: str) -> None:
    if seen > limit:
        raise Failure(
            f"{what} must stay below {_amount(limit)} {unit}, but it came to {_amount(seen)} {unit}; {advice}."
        )


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _told(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds >= 1
        else f"{seconds * 1000:.1f} ms"
        if seconds >= 1e-3
        else f"{seconds * 1e6:.0f} µs"
    )
