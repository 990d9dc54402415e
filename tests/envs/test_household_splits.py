"""What each split shows, who can solve it, and that the worlds are the same everywhere."""

import os
import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from turnwise_envs.household import Household
from turnwise_envs.household.expert import expert_command
from turnwise_envs.household.generate import Scene, scene
from turnwise_envs.household.plans import SPLIT_SIZES, Split
from turnwise_envs.household.rules import commands
from turnwise_envs.household.tables import FAMILIES, HOLDS
from turnwise_envs.household.text import opening, view
from turnwise_envs.household.world import State, World, goal_holds

SPLITS: tuple[Split, ...] = ("train", "valid_seen", "valid_unseen")


@pytest.fixture(scope="module", params=[400, pytest.param(None, marks=pytest.mark.slow)], ids=["sample", "all"])
def drawn(request: pytest.FixtureRequest) -> dict[Split, list[Scene]]:
    """Scenes of each split: a sample (more of training, which must cover the words), or all."""
    sample = request.param
    sizes = {"train": 3 * sample, "valid_seen": sample, "valid_unseen": sample} if sample else SPLIT_SIZES
    return {split: [scene(split, index) for index in range(sizes[split])] for split in SPLITS}


def kind(name: str) -> str:
    return name.partition(" ")[0]


def pairs(world: World) -> set[tuple[str, str]]:
    """All pairs of object and receptacle types that a world shows, as a place or as a goal."""
    lying = {(kind(o), kind(world.receptacles[r])) for o, r in zip(world.objects, world.start, strict=True)}
    return lying | {(world.goal.obj, world.goal.receptacle)}


def words(world: World) -> set[str]:
    """All words and numbers that play in a world can show."""
    everything = State(where=world.start, opened=world.openable)
    views = (view(world, everything, r) for r in range(len(world.receptacles)))
    return set(re.findall(r"\w+", " ".join([opening(world), *views])))


def task(world: World) -> tuple[str, str, str, str]:
    return world.plan, world.goal.family.name, world.goal.obj, world.goal.receptacle


def test_unseen_rooms_are_new(drawn: dict[Split, list[Scene]]) -> None:
    shapes = {split: {found.world.receptacles for found in drawn[split]} for split in SPLITS}
    assert shapes["valid_seen"] <= shapes["train"]
    assert not shapes["valid_unseen"] & shapes["train"]
    assert len(shapes["valid_unseen"]) > 16


def test_unseen_tasks_are_about_new_pairs(drawn: dict[Split, list[Scene]]) -> None:
    known = set().union(*(pairs(found.world) for split in SPLITS[:2] for found in drawn[split]))
    for found in drawn["valid_unseen"]:
        world = found.world
        if world.goal.family.light:
            about = {(world.goal.obj, kind(world.receptacles[world.start[o]])) for o in world.targets}
        else:
            about = {(world.goal.obj, world.goal.receptacle)}
        assert about - known, f"nothing new in {world.task_id}"


def test_unseen_words_are_all_known(drawn: dict[Split, list[Scene]]) -> None:
    known = set().union(*(words(found.world) for found in drawn["train"]))
    for split in SPLITS[1:]:
        assert set().union(*(words(found.world) for found in drawn[split])) <= known


def test_seen_rooms_get_new_tasks(drawn: dict[Split, list[Scene]]) -> None:
    train, seen = ({task(found.world) for found in drawn[split]} for split in SPLITS[:2])
    assert not train & seen


def test_worlds_are_well_made(drawn: dict[Split, list[Scene]]) -> None:
    for split in SPLITS:
        families = Counter(found.world.goal.family.name for found in drawn[split])
        assert set(families) == set(FAMILIES)
        assert min(families.values()) > 0.1 * len(drawn[split])
        for found in drawn[split]:
            world = found.world
            assert 10 <= len(world.receptacles) <= 16
            assert 12 <= len(world.objects) <= 20
            assert max(Counter(world.start).values()) <= 4
            assert len(set(world.objects)) == len(world.objects)
            assert not goal_holds(world, world.initial())
            for o, r in enumerate(world.start):
                thing, place = world.object_types[o], world.receptacle_types[r]
                assert thing in HOLDS[place] or thing in {"desklamp", "floorlamp"}


def test_the_expert_solves_everything_and_not_too_fast(drawn: dict[Split, list[Scene]]) -> None:
    """``scene`` counts the turns of an expert that plays to the end."""
    for split in SPLITS:
        turns = [found.expert_turns for found in drawn[split]]
        assert sum(turns) / len(turns) >= 7
        assert max(turns) <= 28


async def test_the_expert_solves_through_the_environment() -> None:
    for split in SPLITS:
        families = set()
        for index in range(40):
            given = Household.tasks.get(split, index)
            env = Household()
            await env.reset(given, 0, {})
            for _ in range(30):
                result = await env.step(env.expert_action())
                assert result.info.action_effective, result
                if result.done:
                    break
            assert result.reward == 1.0
            families.add(given.metadata["family"])
        assert families == set(FAMILIES)


def wander(world: World, rng: random.Random, turns: int) -> State:
    """The state after random admissible commands; stops where the goal holds."""
    state = world.initial()
    for _ in range(turns):
        if goal_holds(world, state):
            break
        state, _ = rng.choice(list(commands(world, state).values())).run(world, state)
    return state


@pytest.mark.parametrize("split", SPLITS)
def test_random_play_almost_never_solves(split: Split) -> None:
    rng = random.Random(0)
    worlds = [scene(split, index).world for index in range(300)]
    solved = sum(goal_holds(world, wander(world, rng, 30)) for world in worlds)
    assert solved / len(worlds) <= 0.05


@pytest.mark.parametrize("split", SPLITS)
def test_the_expert_recovers_from_anywhere(split: Split) -> None:
    rng = random.Random(1)
    for index in range(150):
        world = scene(split, index).world
        state = wander(world, rng, rng.randrange(60))
        for _ in range(60):
            if goal_holds(world, state):
                break
            state, _ = commands(world, state)[expert_command(world, state)].run(world, state)
        assert goal_holds(world, state), world.task_id


def hidden_elsewhere(world: World, state: State, rng: random.Random) -> State:
    """The same knowledge, another truth: what lies in receptacles not yet looked into lies in others of them."""
    unseen = [r for r in range(len(world.receptacles)) if not state.seen >> r & 1]
    return state._replace(where=tuple(rng.choice(unseen) if r in unseen else r for r in state.where))


def test_the_expert_knows_only_what_it_has_seen() -> None:
    rng = random.Random(2)
    changed = 0
    for index in range(100):
        world = scene("train", index).world
        state = wander(world, rng, rng.randrange(8))
        for _ in range(30):
            if goal_holds(world, state):
                break
            command = expert_command(world, state)
            other = hidden_elsewhere(world, state, rng)
            if not goal_holds(world, other):
                assert expert_command(world, other) == command
                changed += other != state
            state, _ = commands(world, state)[command].run(world, state)
    assert changed > 300


FINGERPRINT = """
import asyncio, hashlib
from turnwise_envs import Action
from turnwise_envs.episode import LiveEpisode
from turnwise_envs.household import Household

async def main():
    total = hashlib.sha256()
    for split in ("train", "valid_seen", "valid_unseen"):
        for index in range(12):
            episode = await LiveEpisode.start(Household, split, index)
            while not episode.done:
                await episode.step(episode.env.expert_action())
            total.update((episode.task.model_dump_json() + episode.log_hash).encode())
            total.update(Household.tasks.reference(episode.task).model_dump_json().encode())
    print(total.hexdigest())

asyncio.run(main())
"""


def test_worlds_are_the_same_in_every_process() -> None:
    prints = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(prints) == 1
