"""Household worlds as ALFWorld games: PDDL problems under the domain and the grammar of the ``alfworld`` package.

A game is a folder with the three files of ALFWorld's data set: ``game.tw-pddl`` (what its engine plays),
``traj_data.json`` (what its loader and its experts read) and ``initial_state.pddl``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from turnwise_envs.alfworld.package import package_folder
from turnwise_envs.household.expert import expert_command
from turnwise_envs.household.rules import commands
from turnwise_envs.household.tables import (
    HOLDS,
    LAMPS,
    LIKELY,
    MOVABLE_RECEPTACLES,
    SLICEABLE,
    TREATMENTS,
)
from turnwise_envs.household.world import World, goal_holds
from turnwise_envs.types import JsonObject

GAME_FILE, TRAJECTORY_FILE, PROBLEM_FILE = "game.tw-pddl", "traj_data.json", "initial_state.pddl"

_AGENT, _START = "agent1", "loc_bar_00"
#: Predicate of ALFWorld's domain that lets an object be treated, by our verb.
_TREATABLE = {"clean": "cleanable", "heat": "heatable", "cool": "coolable"}


def write_game(world: World, data: Path) -> Path:
    """Put ``world`` into a data folder as ALFWorld lays it out; returns its ``game.tw-pddl``.

    ``data/json_2.1.1/SPLIT/FAMILY-OBJECT-None-RECEPTACLE-PLAN/trial_INDEX/``
    """
    goal = world.goal
    about = [goal.family.name, goal.obj, "None", goal.receptacle or goal.lamp, world.plan.replace("-", "")]
    folder = data / "json_2.1.1" / world.split / "-".join(about) / f"trial_{world.index:05d}"
    folder.mkdir(parents=True, exist_ok=True)
    game = game_of(world)
    (folder / PROBLEM_FILE).write_text(game["pddl_problem"])
    (folder / TRAJECTORY_FILE).write_text(json.dumps(trajectory_of(world)))
    (folder / GAME_FILE).write_text(json.dumps(game))
    return folder / GAME_FILE


def game_of(world: World) -> JsonObject:
    """The content of ``game.tw-pddl``; its walkthrough is what our expert does."""
    domain, grammar = _rules()
    return {
        "pddl_domain": domain,
        "grammar": grammar.replace("UNKNOWN GOAL.", world.goal.instruction),
        "pddl_problem": problem_of(world),
        "solvable": True,
        "walkthrough": _walkthrough(world),
    }


def trajectory_of(world: World) -> JsonObject:
    """The part of ``traj_data.json`` that ALFWorld reads when it plays in text."""
    goal = world.goal
    return {
        "task_id": world.task_id,
        "task_type": goal.family.name,
        "pddl_params": {
            "object_target": goal.obj,
            "parent_target": goal.receptacle,
            "toggle_target": goal.lamp,
            "mrecep_target": "",
            "object_sliced": False,
        },
        "turk_annotations": {"anns": [{"task_desc": goal.instruction}]},
    }


def problem_of(world: World) -> str:
    """The PDDL problem of ``world`` in its initial state."""
    receptacles, objects = entity_ids(world.receptacles), entity_ids(world.objects)
    places = [f"loc_bar_{r:02d}" for r in range(1, len(receptacles) + 1)]
    declared = [
        f"{_AGENT} - agent",
        *(f"{place} - location" for place in (_START, *places)),
        *(f"{receptacle} - receptacle" for receptacle in receptacles),
        *(f"{thing} - object" for thing in objects),
        *(f"{kind}Type - rtype" for kind in sorted(HOLDS)),
        *(f"{kind}Type - otype" for kind in sorted(LIKELY)),
    ]
    return "\n".join(
        [
            f"(define (problem household_{world.split}_{world.index})",
            "(:domain alfred)",
            *_block(":objects", declared),
            *_block(":init", _facts(world, receptacles, objects, places)),
            _goal(world),
            "(:metric minimize (total-cost))",
            ")",
        ]
    )


def entity_ids(names: Iterable[str]) -> list[str]:
    """Identifiers from which ALFWorld makes exactly these names.

    It numbers the things of a type itself, backwards through their sorted identifiers, and appends "basin" to the
    name where an identifier has it: ``["mug 1", "mug 2", "sinkbasin 1"]`` are ``mug_bar_01``, ``mug_bar_00`` and
    ``sink_bar_00_bar_sinkbasin``.
    """
    names = list(names)
    total = {kind: sum(_kind(name) == kind for name in names) for kind in map(_kind, names)}
    found = []
    for name in names:
        kind, _, number = name.partition(" ")
        suffix = f"_bar_{kind}" if kind.endswith("basin") else ""
        found.append(f"{kind.removesuffix('basin')}_bar_{total[kind] - int(number):02d}{suffix}")
    return found


def _facts(world: World, receptacles: list[str], objects: list[str], places: list[str]) -> Iterable[str]:
    """The initial state, one fact after the other."""
    yield "= (total-cost) 0"
    yield f"atLocation {_AGENT} {_START}"
    for r, (receptacle, place) in enumerate(zip(receptacles, places, strict=True)):
        yield f"receptacleType {receptacle} {world.receptacle_types[r]}Type"
        yield f"receptacleAtLocation {receptacle} {place}"
        if world.openable >> r & 1:
            yield f"openable {receptacle}"
    for kind in sorted(HOLDS):
        for thing in sorted(HOLDS[kind]):
            yield f"canContain {kind}Type {thing}Type"
    for o, (thing, r) in enumerate(zip(objects, world.start, strict=True)):
        kind = world.object_types[o]
        yield f"objectType {thing} {kind}Type"
        yield f"inReceptacle {thing} {receptacles[r]}"
        yield f"objectAtLocation {thing} {places[r]}"
        yield f"toggleable {thing}" if kind in LAMPS else f"pickupable {thing}"
        if kind in MOVABLE_RECEPTACLES:
            yield f"isReceptacleObject {thing}"
        if kind in SLICEABLE:
            yield f"sliceable {thing}"
        for verb, treatment in TREATMENTS.items():
            if kind in treatment.objects:
                yield f"{_TREATABLE[verb]} {thing}"


def _goal(world: World) -> str:
    """ALFWorld's own goal for the family, without the last parenthesis of its text, which closes the problem."""
    from alfworld.gen.goal_library import gdict

    goal = world.goal
    template: str = gdict[goal.family.name]["pddl"]
    filled = template.format(obj=goal.obj, recep=goal.receptacle, toggle=goal.lamp).replace("#", "-")
    return filled.rstrip().removesuffix(")")


def _block(name: str, lines: Iterable[str]) -> list[str]:
    """A section of a PDDL problem; facts are put in parentheses, declarations are not."""
    wrap = "    ({})" if name == ":init" else "    {}"
    return [f"({name}", *(wrap.format(line) for line in lines), ")"]


def _kind(name: str) -> str:
    return name.partition(" ")[0]


def _walkthrough(world: World) -> list[str]:
    state, said = world.initial(), []
    while not goal_holds(world, state):
        line = expert_command(world, state)
        assert line is not None  # only a careless expert stops early
        state, _ = commands(world, state)[line].run(world, state)
        said.append(line)
    return said


@cache
def _rules() -> tuple[str, str]:
    """ALFWorld's PDDL domain and grammar."""
    data = package_folder() / "data"
    return (data / "alfred.pddl").read_text(), (data / "alfred.twl2").read_text()
