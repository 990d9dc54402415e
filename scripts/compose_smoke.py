"""Prove compose.yaml on a real engine: ``scripts/compose-smoke [--train] [--monitoring] [--replicas N]``.

Builds the image, brings up replicas of the household, and plays the same episodes through their published ports three
times: undisturbed; with one server killed in the middle (SIGKILL; the engine starts it again, and it takes its journal
up); and with one container killed that stays away (its episodes are rebuilt on the others). Every history must be that
of the undisturbed run, and every session that a killed replica had acknowledged must be in the journal when it is back.
``--train`` and ``--monitoring`` prove the profiles too. Afterwards everything that it made is taken down, volumes
included; images stay. Without an engine it says so in one line and ends with exit code 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from compose_stack import BUILD_S, Failed, NoEngine, Stack

from turnwise_agent.client import Session, TurnwiseClient
from turnwise_agent.client.tokens import find_token
from turnwise_envs import Action

EPISODES = 24
#: Seconds between two turns, as if a model thought: long enough for a kill to come in the middle.
THINKING_S = 0.1
#: Turns that have been taken everywhere before somebody is killed.
WARM_TURNS = 5
#: What a container says about itself.
SELF = """
import importlib.util, json, os, socket
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
try:
    open("/anything", "w")
    writable = True
except OSError:
    writable = False
print(json.dumps({
    "uid": os.getuid(),
    "writable_root": writable,
    "capabilities": int(status["CapEff"], 16) + int(status["CapBnd"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "torch": importlib.util.find_spec("torch") is not None,
    "replicas": len({found[4][0] for found in socket.getaddrinfo("household", 8000, type=socket.SOCK_STREAM)}),
}))
"""


@dataclass
class Episode:
    """One session as its player sees it. ``told`` has what each server acknowledged: (session id, turn) to hash."""

    session: Session
    told: dict[tuple[str, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Blow:
    """What happens to whom while the episodes are played."""

    victim: str
    strike: Callable[[str], None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=3, help="servers of the household (at least 2)")
    parser.add_argument("--train", action="store_true", help="also build the trainer and train a step")
    parser.add_argument("--monitoring", action="store_true", help="also bring up Prometheus and ask it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turnwise-smoke-") as folder:
        try:
            stack = Stack(Path(folder))
        except NoEngine as error:
            print(f"compose-smoke: skipped: {error}")
            return 0
        say(f"{stack.versions()}, project {stack.project}")
        began = time.monotonic()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("compose-smoke: stopped"))  # and taken down below
        try:
            prove(stack, given.replicas, train=given.train, monitoring=given.monitoring)
        except BaseException:
            print(stack.logs(), file=sys.stderr)
            raise
        finally:
            stack.down()
            say("down, volumes included")
    say(f"green in {time.monotonic() - began:.0f} s")
    return 0


def prove(stack: Stack, replicas: int, *, train: bool, monitoring: bool) -> None:
    began = time.monotonic()
    stack.compose("build", "household", timeout=BUILD_S)
    size = int(stack.docker("image", "inspect", "--format", "{{.Size}}", "turnwise-server"))
    say(f"turnwise-server built in {time.monotonic() - began:.0f} s: {size / 1e6:.0f} MB with its base")

    stack.compose("up", "--detach", "--scale", f"household={replicas}", "household")
    containers = stack.containers("household")
    expect(len(containers) == replicas, f"{len(containers)} containers, not {replicas}")
    took = stack.wait_healthy(containers)
    say(f"{replicas} replicas healthy after {took:.1f} s at {', '.join(stack.url(each) for each in containers)}")
    check_hardening(stack, containers)

    calm = asyncio.run(play(stack, containers))
    turns = sum(len(history["steps"]) for history in calm)
    say(f"undisturbed: {len(calm)} episodes with {turns} turns over {replicas} published ports")

    for blow in (Blow(containers[1], stack.crash), Blow(containers[0], stack.kill)):
        expect(asyncio.run(play(stack, containers, blow)) == calm, "a history differs from the undisturbed one")
    say("all histories are those of the undisturbed run, byte for byte")

    if monitoring:
        check_monitoring(stack, replicas)
    if train:
        check_training(stack)


def check_hardening(stack: Stack, containers: list[str]) -> None:
    for container in containers:
        found = json.loads(stack.python(container, SELF))
        wanted = {
            "uid": stack.uid,
            "writable_root": False,
            "capabilities": 0,
            "no_new_privileges": 1,
            "torch": False,
            "replicas": len(containers),
        }
        expect(found == wanted, f"{container[:12]} is {found}, not {wanted}")
        limits = stack.inspect(container)["HostConfig"]
        expect(bool(limits["Memory"] and limits["NanoCpus"] and limits["PidsLimit"]), "a limit is missing")
        status = httpx.get(f"{stack.url(container)}/v1/envs").status_code
        expect(status == 401, f"a call without a token was answered with {status}")
    say(
        f"each runs as user {stack.uid} with a read-only root, no capabilities, no new privileges and limits; has no "
        f"torch; sees {len(containers)} addresses of household; refuses calls without a token"
    )


async def play(stack: Stack, containers: list[str], blow: Blow | None = None) -> list[dict]:
    """Play the episodes through the ports of ``containers``, with a ``blow`` in the middle; the histories."""
    urls = [stack.url(container) for container in containers]
    async with TurnwiseClient(urls, token_file=stack.token_file, patience=120.0) as client:
        episodes = [Episode(await client.create("household", index=index)) for index in range(EPISODES)]
        warm = asyncio.Barrier(EPISODES + 1)
        async with asyncio.TaskGroup() as group:
            players = [group.create_task(play_one(episode, warm)) for episode in episodes]
            await warm.wait()
            if blow is not None:
                victim = blow.victim
                theirs = await sessions_of(stack, victim)
                turns = sorted(episode.session.turn for episode in episodes)
                await asyncio.to_thread(blow.strike, victim)
                expect(not any(player.done() for player in players), "the kill came too late: episodes had ended")
                if returns := stack.inspect(victim)["State"]["Running"]:
                    took = await asyncio.to_thread(stack.wait_healthy, [victim])
        if blow is None:
            return [await history_of(episode) for episode in episodes]
        say(
            f"SIGKILL to replica {containers.index(victim) + 1} with {len(theirs)} of {EPISODES} episodes, at turn "
            f"{turns[0]} to {turns[-1]}: {client.stats.rebuilds} were rebuilt elsewhere by replay of "
            f"{client.stats.replayed_steps} turns"
        )
        if returns:
            say(f"the engine started it again, healthy after {took:.1f} s")
        else:
            stack.compose("up", "--detach", "--scale", f"household={len(containers)}", "household")
            expect(stack.containers("household") == containers, "the replica was replaced, not started again")
            say(f"it stayed away until the next `up`, healthy after {stack.wait_healthy([victim]):.1f} s")
        await check_journal(stack, victim, theirs, episodes)
        return [await history_of(episode) for episode in episodes]


async def play_one(episode: Episode, warm: asyncio.Barrier) -> None:
    session = episode.session
    chance = random.Random(session.task.id)
    while not session.done:
        if session.turn == WARM_TURNS:
            await warm.wait()
        choices = session.observation.admissible_actions or ["look"]
        view = await session.step(Action(text=chance.choice(choices)))
        episode.told[view.session_id, view.turn] = view.log_hash
        await asyncio.sleep(THINKING_S)


async def history_of(episode: Episode) -> dict:
    """A history without the ids that a server draws."""
    history = (await episode.session.history()).model_dump(mode="json")
    expect([step["turn"] for step in history["steps"]] == list(range(1, episode.session.turn + 1)), "a turn is missing")
    expect(history["steps"][-1]["log_hash"] == episode.session.log_hash, "the history is not the one that was played")
    for part in (history["initial"], *history["steps"]):
        del part["session_id"]
    return history


async def sessions_of(stack: Stack, container: str) -> list[str]:
    """Ids of the live sessions that a replica has."""
    page = await ask(stack, container, "/v1/sessions?status=live&limit=1000")
    return [item["session_id"] for item in page["items"]]


async def check_journal(stack: Stack, victim: str, theirs: list[str], episodes: list[Episode]) -> None:
    """Whatever the replica acknowledged before it was killed stands in its journal, hash by hash."""
    told: dict[str, dict[int, str]] = {sid: {} for sid in theirs}
    for episode in episodes:
        for (sid, turn), log_hash in episode.told.items():
            if sid in told:
                told[sid][turn] = log_hash
    for sid, hashes in told.items():
        steps = (await ask(stack, victim, f"/v1/sessions/{sid}/history"))["steps"]
        kept = {step["turn"]: step["log_hash"] for step in steps}
        lost = {turn for turn, log_hash in hashes.items() if kept.get(turn) != log_hash}
        expect(not lost, f"session {sid} lost turns {sorted(lost)}")
    count = sum(map(len, told.values()))
    say(f"its journal has all {count} turns that it had acknowledged in {len(told)} sessions")


async def ask(stack: Stack, container: str, path: str) -> dict:
    headers = {"authorization": f"Bearer {find_token(None, stack.token_file)}"}
    async with httpx.AsyncClient(base_url=stack.url(container), headers=headers, timeout=30) as http:
        answer = await http.get(path)
    expect(answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}")
    return answer.json()


def check_monitoring(stack: Stack, replicas: int) -> None:
    stack.compose("--profile", "monitoring", "up", "--detach", "--no-deps", "prometheus")
    (prometheus,) = stack.containers("prometheus")
    stack.wait_healthy([prometheus])
    wanted = {"sum(up)": float(replicas), "count(ALERTS) or vector(0)": 0.0}
    deadline = time.monotonic() + 60
    while True:
        found = {}
        for query in wanted:
            answer = httpx.get(f"{stack.url(prometheus, 9090)}/api/v1/query", params={"query": query}).json()
            found[query] = float((answer["data"]["result"] or [{"value": (0, "nan")}])[0]["value"][1])
        if found == wanted:
            break
        expect(time.monotonic() < deadline, f"Prometheus says {found}, not {wanted}")
        time.sleep(1)
    say(f"Prometheus found {replicas} replicas by the name of the service and reads their metrics; no alert")


def check_training(stack: Stack) -> None:
    began = time.monotonic()
    stack.compose("--profile", "train", "build", "train", timeout=BUILD_S)
    size = int(stack.docker("image", "inspect", "--format", "{{.Size}}", "turnwise-trainer"))
    say(f"turnwise-trainer built in {time.monotonic() - began:.0f} s: {size / 1e6:.0f} MB")
    run = ("--profile", "train", "run", "--rm", "-T", "train")
    tiny = ("--demos", "8", "--hidden", "16", "--layers", "1")
    stack.compose(*run, "imitate", "household", "--out", "models/start", *tiny, timeout=BUILD_S)
    settings = {
        "model": "models/start",
        "env.id": "household",
        "env.urls": '["dns+http://household:8000"]',
        "steps": "1",
        "rollout.groups_per_step": "2",
    }
    stack.compose(*run, "train", *(f"--set={name}={value}" for name, value in settings.items()), timeout=BUILD_S)
    say("a policy was made and trained for a step against dns+http://household:8000")


def expect(holds: bool, otherwise: str) -> None:
    """Raises Failed unless ``holds``."""
    if not holds:
        raise Failed(otherwise)


def say(line: str) -> None:
    print(f"compose-smoke: {line}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"compose-smoke: FAILED: {failure}")
