"""Checks of the promise that an episode is a function of its actions: again, elsewhere, side by side, and in forks."""

from __future__ import annotations

import json
import pickletools

from turnwise_envs.check import elsewhere
from turnwise_envs.check.subject import Failure, Skip, Subject
from turnwise_envs.check.trace import (
    Trace,
    close,
    difference,
    follow,
    initial_difference,
    replay,
    restart,
    start,
    trace_of,
)
from turnwise_envs.episode import LiveEpisode

#: How often an episode is forked at a random turn.
_FORKS = 3
#: Two of them, since the order of a set of two strings is the same under every other seed.
_OTHER_HASH_SEEDS = (1, 2)


async def determinism(subject: Subject) -> None:
    if not subject.spec.deterministic:
        raise Skip(f"{_UNPROMISED}: replay shows recorded results{await _unpromised_but_kept(subject)}.")
    for trace in _all(subject):
        parted = difference(trace, await replay(subject.env_class, trace))
        if parted is None:
            continue
        if _episodes_leak(subject, trace):
            raise Failure(
                f"an episode must not depend on the episodes before it, but a second one with the same actions "
                f"({trace.where}) parts from the first at {parted}; keep all state in `self`, set in `reset`, "
                "and not in the class or module.",
                "isolation",
            )
        raise Failure(
            f"the same actions must give the same bytes, but a second run of {trace.where} parts from the first at "
            f"{parted}; draw from a random.Random made in `reset` from the task and seed, and read no clock."
        )


async def isolation(subject: Subject) -> None:
    """Two episodes step by turns in one process, each must go as it did alone."""
    _needs_determinism(subject, "whether episodes touch each other cannot be seen")
    pairs = list(zip(subject.traces, [*subject.traces[1:], subject.traces[0]], strict=True))
    for one, other in [*pairs, (subject.traces[0], subject.traces[0])]:
        episodes = [await restart(subject.env_class, t) for t in (one, other)]
        for turn in range(1, max(len(one.actions), len(other.actions)) + 1):
            for episode, trace in zip(episodes, (one, other), strict=True):
                await follow(episode, trace, until=turn)
        for episode, trace in zip(episodes, (one, other), strict=True):
            await follow(episode, trace)
            parted = difference(trace, trace_of(episode))
            await close(episode)
            if parted is not None:
                raise Failure(
                    f"episodes in one process must not touch each other, but with another one stepping beside it "
                    f"{trace.where} parts from its lone run at {parted}; keep all state, the random generator too, "
                    "in `self`, and not in the class or module."
                )


async def fresh_process(subject: Subject) -> None:
    _needs_determinism(subject, "another server cannot take over an episode")
    traces = _all(subject)
    jobs = [elsewhere.Job(trace) for trace in traces]
    for hash_seed in _OTHER_HASH_SEEDS:
        seen = elsewhere.replay_elsewhere(subject.env_class, jobs, shifted=True, hash_seed=hash_seed)
        for trace, again in zip(traces, seen, strict=True):
            parted = difference(trace, again)
            if parted is not None:
                raise Failure(
                    "a fresh process with another hash seed, clock and time zone must give the same bytes, but there "
                    f"{trace.where} parts at {parted}; sort sets before their order can show, use no hash() or id(), "
                    "and read no clock."
                )


async def seed(subject: Subject) -> None:
    _needs_determinism(subject, "two members of a group may start in different worlds")
    trace = subject.traces[0]
    one = await restart(subject.env_class, trace)
    other = await start(subject.env_class, trace.split, trace.index, trace.seed + 1, trace.options)
    await close(one)
    await close(other)
    keys = one.initial.state_key, other.initial.state_key
    same = keys[0] == keys[1] if None not in keys else one.initial == other.initial
    if not same:
        raise Failure(
            f"the index alone fixes the initial world, but {trace.split}/{trace.index} starts differently with seeds "
            f"{one.seed} and {other.seed}: {initial_difference(one.initial, other.initial)}; build the world from "
            "`task.index`, and use `seed` only for what is random afterwards."
        )


async def fork(subject: Subject) -> None:
    forks = "forks restore snapshots" if subject.spec.snapshot else "and without snapshots a fork is refused"
    _needs_determinism(subject, forks)
    rng = subject.rng("fork")
    for trace in subject.traces:
        parent = await restart(subject.env_class, trace)
        middle = rng.randint(0, max(0, len(trace.actions) - 1))
        await follow(parent, trace, until=middle)
        points = {middle, *(rng.randint(0, middle) for _ in range(_FORKS))}
        for at_turn in sorted(points):
            if not (subject.spec.snapshot and at_turn == parent.turn):  # that one is the business of `snapshot`
                await _branch(parent, trace, at_turn, "fork")
        await follow(parent, trace)
        _unchanged(parent, trace, f"a fork at turn {middle}", "fork")
        finished = await parent.fork()
        if finished.log_hash != parent.log_hash:
            raise Failure(f"a fork of the finished episode {trace.where} must be in its final state, and is not.")
        await close(finished)
        await close(parent)


async def snapshot(subject: Subject) -> str | None:
    if not subject.spec.snapshot:
        raise Skip("the spec promises no snapshots; forks replay instead.")
    jobs = [job for trace in subject.traces if trace.actions for job in await _snapshots(subject, trace)]
    if not subject.spec.deterministic:
        await _check_equal(subject, jobs)
        return "a snapshot comes back as it was (whether it holds the whole state cannot be seen without determinism)"
    for trace in subject.traces:
        parent = await restart(subject.env_class, trace)
        for turn in [job.turn for job in jobs if job.trace is trace]:
            await follow(parent, trace, until=turn)
            await _branch(parent, trace, turn, "snapshot")
        await close(parent)
    told = _restored_elsewhere(subject, jobs)
    await _check_equal(subject, jobs)
    return told


def _restored_elsewhere(subject: Subject, jobs: list[elsewhere.Job]) -> str | None:
    """Restore them in a fresh process and go on; what to say if that cannot be tried."""
    try:
        restored = elsewhere.replay_elsewhere(subject.env_class, jobs, shifted=False)
    except Skip as reason:
        return f"a snapshot holds the whole state (not tried in a fresh process: {reason})"
    for job, again in zip(jobs, restored, strict=True):
        parted = difference(job.trace, again)
        if parted is not None:
            raise Failure(
                f"a snapshot must hold the whole state, but the one of {job.trace.where} at turn {job.turn}, restored in "
                f"a fresh process, parts from the original at {parted}; put the state itself into the bytes."
            )
    return None


async def _snapshots(subject: Subject, trace: Trace) -> list[elsewhere.Job]:
    """Snapshots at the first, a random and the last live turn; taking them must not disturb the episode."""
    parent = await restart(subject.env_class, trace)
    last = len(trace.actions) - 1
    jobs = []
    for turn in sorted({0, subject.rng(f"snapshot {trace.where}").randint(0, last), last}):
        await follow(parent, trace, until=turn)
        data = parent.env.snapshot()
        _check_bytes(data, trace, turn)
        jobs.append(elsewhere.Job(trace, turn, data))
    await follow(parent, trace)
    await close(parent)
    if subject.spec.deterministic:
        _unchanged(parent, trace, "a snapshot", "snapshot")
    return jobs


async def _branch(parent: LiveEpisode, trace: Trace, at_turn: int, how: str) -> None:
    """Fork, play the fork to the end of the trace, close it."""
    child = await parent.fork(at_turn)
    await follow(child, trace)
    parted = difference(trace, trace_of(child))
    await close(child)
    if parted is None:
        return
    if how == "fork":
        raise Failure(
            f"a fork must go on as its parent does, but a fork of {trace.where} at turn {at_turn}, given the same actions, "
            f"parts at {parted}; keep all state in `self`."
        )
    raise Failure(
        f"a snapshot must hold the whole state, but the one of {trace.where} at turn {at_turn}, restored and given the "
        f"same actions, parts at {parted}; add the field that it forgets, the random generator's state too."
    )


def _unchanged(parent: LiveEpisode, trace: Trace, what: str, check: str) -> None:
    parted = difference(trace, trace_of(parent))
    if parted is not None:
        raise Failure(
            f"{what} must not disturb the episode that it is taken of, but {trace.where} then parts at {parted}; "
            "share nothing that changes between the copies.",
            check,
        )


def _check_bytes(data: object, trace: Trace, turn: int) -> None:
    where = f"at {trace.where}, turn {turn},"
    if not isinstance(data, bytes):
        raise Failure(
            f"`snapshot` must return bytes, but {where} it returned {type(data).__name__}; use JSON, encoded."
        )
    if _is_pickle(data):
        raise Failure(
            f"a snapshot travels between machines and must not be a pickle, since unpickling runs code, but {where} "
            "it is one; write JSON, encoded."
        )


async def _check_equal(subject: Subject, jobs: list[elsewhere.Job]) -> None:
    """A snapshot of what was restored is the snapshot; how bytes that are no JSON are written is not our business."""
    for job in jobs:
        assert job.snapshot is not None
        copy = subject.env_class()
        copy.restore(job.snapshot)
        again = copy.snapshot()
        await copy.close()
        try:
            same = again == job.snapshot or json.loads(again) == json.loads(job.snapshot)
        except ValueError:
            continue
        if not same:
            raise Failure(
                f"a restored episode must give the same snapshot again, but the one of {job.trace.where} at turn "
                f"{job.turn} came back with another state; read in `restore` all that `snapshot` writes."
            )


def _is_pickle(data: bytes) -> bool:
    try:
        return sum(1 for _ in pickletools.genops(data)) > 1 and data.endswith(b".")
    except Exception:  # genops raises whatever the bytes make it raise
        return False


def _episodes_leak(subject: Subject, trace: Trace) -> bool:
    """Whether a second run differs from the first in one process, while the first runs of two processes agree."""
    jobs = [elsewhere.Job(trace)] * 2
    try:
        runs = [elsewhere.replay_elsewhere(subject.env_class, jobs, shifted=False) for _ in range(2)]
    except Skip:
        return False
    return difference(runs[0][0], runs[1][0]) is None and difference(runs[0][0], runs[0][1]) is not None


def _all(subject: Subject) -> list[Trace]:
    return [*subject.traces, *subject.junk_traces]


_UNPROMISED = "the spec says that the environment is not deterministic"


def _needs_determinism(subject: Subject, instead: str) -> None:
    if not subject.spec.deterministic:
        raise Skip(f"{_UNPROMISED}: {instead}.")


async def _unpromised_but_kept(subject: Subject) -> str:
    """A hint, if all episodes came out the same once more. Tools with effects are not called again for this."""
    if not subject.spec.stateless_tools and subject.spec.tools:
        return ""
    for trace in subject.traces:
        if difference(trace, await replay(subject.env_class, trace)) is not None:
            return ""
    return f"; {len(subject.traces)} of {len(subject.traces)} came out the same again: if that is so always, promise it"
