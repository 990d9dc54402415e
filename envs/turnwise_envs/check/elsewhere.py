"""Replay traces in a fresh Python process. This module is both ends: ``python -m turnwise_envs.check.elsewhere``.

The other process gets JSON on standard input and answers with JSON on standard output. It has a ``PYTHONHASHSEED``
of its own and, when ``shifted``, another time zone and a clock that runs fifty days ahead.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from turnwise_envs.address import Address, address, find, is_local
from turnwise_envs.check.subject import Failure, Skip
from turnwise_envs.check.trace import Trace, follow, replay, shorten, trace_of
from turnwise_envs.environment import Environment
from turnwise_envs.episode import LiveEpisode, Record
from turnwise_envs.types import Action, Observation, StepResult

TIMEOUT_SECONDS = 300
_CLOCK_SHIFT_SECONDS = 50 * 86_400 + 12_345


@dataclass(frozen=True)
class Job:
    """Replay ``trace``; with a snapshot, restore it at ``turn`` and go on from there."""

    trace: Trace
    turn: int = 0
    snapshot: bytes | None = None


def replay_elsewhere(
    env_class: type[Environment], jobs: list[Job], *, shifted: bool, hash_seed: int = 0
) -> list[Trace]:
    """Do the jobs one after the other in one fresh process.

    Raises:
        Skip: the class cannot be imported there, since it is local to a function.
        Failure: the process failed.
    """
    if is_local(env_class):
        raise Skip(f"{env_class.__qualname__} is defined inside a function, where a fresh process cannot find it.")
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if shifted:
        environment |= {"TZ": "XXX-9:30"}
    request = {"class": asdict(address(env_class)), "shifted": shifted, "jobs": [_pack(job) for job in jobs]}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"the replay in a fresh process must end, but took over {TIMEOUT_SECONDS} s.") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failure(
            f"an environment must also work in a fresh process, but there it ended with {shorten(last, 200)}; "
            "make in `reset` and `restore` all that they need."
        )
    return [_unpack_trace(each) for each in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    request = json.loads(sys.stdin.read())
    answer, sys.stdout = sys.stdout, sys.stderr  # whatever the environment prints must not get into the answer
    if request["shifted"]:
        real_time = time.time
        time.time = lambda: real_time() + _CLOCK_SHIFT_SECONDS
    env_class = find(Address(**request["class"]))
    traces = asyncio.run(_do(env_class, request["jobs"]))
    print(json.dumps([_pack_trace(trace) for trace in traces]), file=answer)


async def _do(env_class: type[Environment], jobs: list[dict[str, Any]]) -> list[Trace]:
    return [await _do_one(env_class, job) for job in jobs]


async def _do_one(env_class: type[Environment], job: dict[str, Any]) -> Trace:
    trace = _unpack_trace(job["trace"])
    if job["snapshot"] is None:
        return await replay(env_class, trace)
    turn = job["turn"]
    env = env_class()
    env.restore(base64.b64decode(job["snapshot"]))
    past = zip(trace.actions[:turn], trace.links[1:], trace.hashes[1:], strict=False)
    episode = LiveEpisode(
        env,
        env_class.tasks.get(trace.split, trace.index),
        trace.seed,
        trace.options,
        Observation.model_validate_json(trace.links[0]),
        trace.hashes[0],
        [Record(action, StepResult.model_validate_json(link), log_hash) for action, link, log_hash in past],
    )
    await follow(episode, trace)
    await episode.close()
    return trace_of(episode)


def _pack(job: Job) -> dict[str, Any]:
    snapshot = None if job.snapshot is None else base64.b64encode(job.snapshot).decode("ascii")
    return {"trace": _pack_trace(job.trace), "turn": job.turn, "snapshot": snapshot}


def _pack_trace(trace: Trace) -> dict[str, Any]:
    return {
        "split": trace.split,
        "index": trace.index,
        "seed": trace.seed,
        "options": trace.options,
        "actions": [action.model_dump(mode="json") for action in trace.actions],
        "links": [link.decode("utf-8") for link in trace.links],
        "hashes": list(trace.hashes),
        "finished": trace.finished,
    }


def _unpack_trace(packed: dict[str, Any]) -> Trace:
    return Trace(
        packed["split"],
        packed["index"],
        packed["seed"],
        packed["options"],
        tuple(Action.model_validate(action) for action in packed["actions"]),
        tuple(link.encode("utf-8") for link in packed["links"]),
        tuple(packed["hashes"]),
        packed["finished"],
    )


if __name__ == "__main__":
    main()
