"""Record an episode as plain bytes, replay it, and say where two of them part."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from turnwise_envs.canonical import canonical
from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.errors import EnvironmentFault
from turnwise_envs.types import Action, JsonObject, Observation, StepResult

#: A reset or step that takes longer than this counts as hanging.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Trace:
    """An episode from outside. ``links[0]`` is the first observation, ``links[k]`` the answer to the k-th action.

    An episode that did not end by itself has one link more than actions and one: that of ``finish(FINISH)``.
    """

    split: str
    index: int
    seed: int
    options: JsonObject
    actions: tuple[Action, ...]
    links: tuple[bytes, ...]
    hashes: tuple[str, ...]
    finished: bool

    @property
    def where(self) -> str:
        return f"{self.split}/{self.index} seed {self.seed}"


#: The reason with which recorded episodes are ended that have not ended by themselves.
FINISH = "check"

Choose = Callable[[LiveEpisode], Action | None]


async def record(
    env_class: type[Environment], split: str, index: int, seed: int, options: JsonObject, choose: Choose
) -> Trace:
    """Play until the end or until ``choose`` gives None, then finish. Raises EnvironmentFault."""
    episode = await start(env_class, split, index, seed, options)
    try:
        while not episode.done and (action := choose(episode)) is not None:
            await take(episode, action)
        finished = not episode.done
        if finished:
            await take(episode, None)
        return trace_of(episode)
    finally:
        await close(episode)


async def replay(env_class: type[Environment], trace: Trace) -> Trace:
    """Take the trace's actions again. Raises EnvironmentFault."""
    episode = await restart(env_class, trace)
    try:
        await follow(episode, trace)
        return trace_of(episode)
    finally:
        await close(episode)


async def follow(episode: LiveEpisode, trace: Trace, until: int | None = None) -> None:
    """Go on from where the episode is to the end of the trace, or to turn ``until``."""
    for action in trace.actions[episode.turn : until]:
        if episode.done:
            return  # another history than the trace's: the comparison will say so
        await take(episode, action)
    if until is None and trace.finished and not episode.done:
        await take(episode, None)


async def restart(env_class: type[Environment], trace: Trace) -> LiveEpisode:
    """The trace's episode at its start. Raises EnvironmentFault."""
    return await start(env_class, trace.split, trace.index, trace.seed, trace.options)


async def start(env_class: type[Environment], split: str, index: int, seed: int, options: JsonObject) -> LiveEpisode:
    """As :meth:`LiveEpisode.start`; a reset that hangs is a fault."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await LiveEpisode.start(env_class, split, index, seed, options)
    except TimeoutError as error:
        raise EnvironmentFault(f"reset of {split}/{index} did not return within {PATIENCE_SECONDS:.0f} s") from error


async def close(episode: LiveEpisode) -> None:
    """Close; an environment that raises here is at fault too."""
    try:
        await episode.close()
    except Exception as error:
        raise EnvironmentFault(f"close of {episode.task.id} failed: {type(error).__name__}: {error}") from error


async def take(episode: LiveEpisode, action: Action | None) -> StepResult:
    """Step, or finish when ``action`` is None; a step that hangs is a fault."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await (episode.finish(FINISH) if action is None else episode.step(action))
    except TimeoutError as error:
        raise EnvironmentFault(f"step {episode.turn} did not return within {PATIENCE_SECONDS:.0f} s") from error


def trace_of(episode: LiveEpisode) -> Trace:
    records = episode.records
    return Trace(
        episode.task.split,
        episode.task.index,
        episode.seed,
        episode.options,
        tuple(record.action for record in records if record.action is not None),
        (canonical(episode.initial), *(canonical(record.result) for record in records)),
        (episode.initial_hash, *(record.log_hash for record in records)),
        finished=bool(records) and records[-1].action is None,
    )


def difference(expected: Trace, seen: Trace) -> str | None:
    """Where two traces part: turn, field and both values; None if they are equal."""
    if expected.hashes == seen.hashes and expected.links == seen.links:
        return None
    for turn, (left, right) in enumerate(zip(expected.links, seen.links, strict=False)):
        if left != right:
            where = "the first observation" if turn == 0 else f"turn {turn - 1}"
            return f"{where}, {_field_difference(json.loads(left), json.loads(right))}"
    if len(expected.links) != len(seen.links):
        return f"turn {min(len(expected.links), len(seen.links)) - 1}, where one of the two episodes ended"
    return "the task id, which differs"


def _field_difference(left: Any, right: Any, path: str = "") -> str:
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        key = next(key for key in left if left[key] != right[key])
        return _field_difference(left[key], right[key], f"{path}.{key}" if path else key)
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        position = next(i for i, (one, other) in enumerate(zip(left, right, strict=True)) if one != other)
        return _field_difference(left[position], right[position], f"{path}[{position}]")
    return f"{path}: {_clip(left, right)} and then {_clip(right, left)}"


def _clip(value: Any, other: Any, width: int = 60) -> str:
    """``value`` around the place where it leaves ``other``."""
    if not (isinstance(value, str) and isinstance(other, str)):
        return shorten(json.dumps(value, ensure_ascii=False), width)
    parting = next(
        (i for i, (a, b) in enumerate(zip(value, other, strict=False)) if a != b), min(len(value), len(other))
    )
    start = max(0, parting - width // 2)
    return ("…" if start else "") + shorten(value[start:], width)


def shorten(text: str, width: int = 60) -> str:
    """At most ``width`` characters of ``text`` on one line, quoted."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")


def initial_difference(left: Observation, right: Observation) -> str:
    return _field_difference(left.model_dump(mode="json"), right.model_dump(mode="json"))
