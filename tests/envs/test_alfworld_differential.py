"""The household against ALFWorld's own engine: the same commands in both, world for world, command for command.

What differs on purpose is in docs/environments/alfworld.md, and :func:`as_alfworld_says` undoes exactly that.
``TURNWISE_PROOF=full`` plays 204 worlds of all six families; otherwise one of each. What was compared is printed
(``-rP`` shows it).
"""

import os
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from turnwise_envs import Action
from turnwise_envs.household import Household
from turnwise_envs.household.expert import expert_command
from turnwise_envs.household.generate import scene
from turnwise_envs.household.plans import Split
from turnwise_envs.household.rules import RULES, commands
from turnwise_envs.household.tables import FAMILIES, HOLDS, OPENABLE, SLICEABLE, TREATMENTS
from turnwise_envs.household.world import NOWHERE, State, World, goal_holds

pytest.importorskip("alfworld", reason="needs turnwise[alfworld]")
pytest.importorskip("fast_downward", reason="needs turnwise[alfworld]")

from turnwise_envs.alfworld.engine import Game
from turnwise_envs.alfworld.export import entity_ids, write_game

FULL = os.environ.get("TURNWISE_PROOF") == "full"
WORLDS_OF_A_FAMILY = 34 if FULL else 1
COMMANDS = 50
#: Shares of the commands that are the expert's, world by world.
CARE = (0.4, 0.0, 0.8, 1.0)
SPLITS: tuple[Split, ...] = ("train", "valid_seen", "valid_unseen")
BANNER = "-= Welcome to TextWorld, ALFRED! =-\n\n"


def worlds_of(family: str) -> list[World]:
    """The first worlds of a family, the splits in turn."""
    found: list[World] = []
    for index in count():
        for split in SPLITS:
            world = scene(split, index).world
            if world.goal.family.name == family and len(found) < WORLDS_OF_A_FAMILY:
                found.append(world)
        if len(found) == WORLDS_OF_A_FAMILY:
            return found
    raise AssertionError("count() has no end")


def as_alfworld_says(ours: str, opening: bool = False) -> str:
    """Our text in ALFWorld's manner: its banner, and things of a type listed by falling numbers."""
    listed = re.sub(r"(?<=you see )a .*?(?=\.)", _falling, ours)
    return BANNER + listed if opening else listed


def _falling(listing: re.Match[str]) -> str:
    names = re.findall(r"a (\w+) (\d+)", listing[0])
    assert names == sorted(names, key=lambda name: (name[0], int(name[1])))
    items = [f"a {kind} {number}" for kind, number in sorted(names, key=lambda name: (name[0], -int(name[1])))]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])}, and {items[-1]}"


def facts_of(world: World, state: State) -> set[str]:
    """What holds in ``state``, in the engine's words and identifiers."""
    receptacles, objects = entity_ids(world.receptacles), entity_ids(world.objects)
    places = [f"loc_bar_{r + 1:02d}" for r in range(len(receptacles))]
    found = {f"atlocation(agent1: agent, {'loc_bar_00' if state.at == NOWHERE else places[state.at]}: location)"}
    for r, receptacle in enumerate(receptacles):
        if state.opened >> r & 1:
            found.add(f"opened({receptacle}: receptacle)")
    for o, thing in enumerate(objects):
        if o == state.held:
            found |= {f"holds(agent1: agent, {thing}: object)", "holdsany(agent1: agent)"}
        else:
            where = state.where[o]
            found.add(f"inreceptacle({thing}: object, {receptacles[where]}: receptacle)")
            found.add(f"objectatlocation({thing}: object, {places[where]}: location)")
        for name in ("clean", "hot", "cool", "sliced", "toggled"):
            if getattr(state, name) >> o & 1:
                found.add(f"is{name}({thing}: object)")
    return found


#: Facts that change in play; ``ison`` is a switch that ALFWorld flips but never looks at.
CHANGING = re.compile(
    r"(atlocation|opened|holds|holdsany|inreceptacle|objectatlocation|isclean|ishot|iscool|issliced|istoggled)\("
)


def changing_facts(game: Game) -> set[str]:
    return {fact for fact in game.turn.facts if CHANGING.match(fact)}


@dataclass
class Comparison:
    """Plays one world in both and keeps what differs."""

    world: World
    game: Game
    state: State
    env: Household
    differences: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    over: bool = False

    def compare(self, what: str, ours: object, theirs: object) -> None:
        if ours != theirs:
            self.differences.append(f"{self.world.task_id}, {what}:\n  ours   {ours!r}\n  theirs {theirs!r}")

    async def say(self, line: str) -> None:
        """One command in both. After the goal is reached the end is not compared any more: our episodes end there."""
        result = await self.env.step(Action(text=line))
        command = commands(self.world, self.state).get(line)
        if command is not None:
            self.state, _ = command.run(self.world, self.state)
        turn = self.game.step(line)
        self.kinds[line.partition(" ")[0] if command else "impossible"] += 1
        self.compare(f"feedback of {line!r}", as_alfworld_says(result.observation.text), turn.feedback)
        self.compare(f"admissible after {line!r}", result.observation.admissible_actions, list(turn.admissible))
        self.compare(f"facts after {line!r}", facts_of(self.world, self.state), changing_facts(self.game))
        self.compare(f"won after {line!r}", goal_holds(self.world, self.state), turn.won)
        if not self.over:
            self.compare(f"end after {line!r}", result.terminated, turn.won)
            self.compare(f"reward of {line!r}", result.reward, float(turn.won))
        self.over = self.over or turn.won


def near_expert(both: Comparison, dice: random.Random, care: float) -> str:
    """The expert's command with probability ``care``; else any possible one, or one that is not possible now."""
    world, state = both.world, both.state
    drawn = dice.random()
    if drawn < care and not both.over:
        return expert_says(both)
    drawn = dice.random()
    if drawn < 0.75:
        return dice.choice(sorted(commands(world, state)))
    if drawn > 0.98:
        return dice.choice(["", "dance", "go to moon 1", "take it", "put mug 1 in desk 1", "examine", "open"])
    rule = dice.choice(RULES)
    return rule.template.format(*(dice.choice(world.names[kind]) for kind in rule.kinds))


def expert_says(both: Comparison) -> str:
    line = expert_command(both.world, both.state)
    assert line is not None  # only a careless expert stops early
    return line


def solves(plan: list[str], world: World) -> bool:
    """Whether the commands reach the goal of ``world``, each possible when it is said, and none too many."""
    state = world.initial()
    for line in plan:
        possible = commands(world, state)
        if goal_holds(world, state) or line not in possible:
            return False
        state, _ = possible[line].run(world, state)
    return goal_holds(world, state)


async def compared(world: World, care: float, data: Path) -> tuple[Comparison, bool]:
    """50 commands, ``care`` of them the expert's; then our expert wins from wherever they led. Also: won within them."""
    dice = random.Random(world.task_id)
    env = Household()
    opening = await env.reset(Household.tasks.get(world.split, world.index), 0, {})
    game = Game(write_game(world, data))
    try:
        both = Comparison(world, game, world.initial(), env)
        both.compare("opening", as_alfworld_says(opening.text, opening=True), game.turn.feedback)
        both.compare("admissible at first", opening.admissible_actions, list(game.turn.admissible))
        both.compare("facts at first", facts_of(world, world.initial()), changing_facts(game))
        both.compare("solved by their plan", True, solves(game.plan(), world))
        for turn in range(COMMANDS):
            await both.say("inventory" if turn % 10 == 9 else near_expert(both, dice, care))
        won = both.over
        for _ in range(COMMANDS):
            if not goal_holds(world, both.state):
                await both.say(expert_says(both))
        both.compare("won by our expert", True, game.turn.won)
    finally:
        game.close()
    return both, won


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("family", FAMILIES)
async def test_both_say_and_do_the_same(family: str, tmp_path: Path) -> None:
    began, kinds, differences, won = time.monotonic(), Counter[str](), [], 0
    worlds = worlds_of(family)
    for number, world in enumerate(worlds):
        both, solved = await compared(world, CARE[number % len(CARE)], tmp_path)
        kinds += both.kinds
        differences += both.differences
        won += solved
    print(
        f"{family}: {len(worlds)} worlds, {kinds.total()} commands, {won} won within {COMMANDS} commands, "
        f"{len(differences)} differences, {time.monotonic() - began:.0f} s; {dict(kinds.most_common())}"
    )
    assert not differences, "\n".join(differences[:10])


def test_the_tables_are_alfworlds() -> None:
    """What may be where and what can be treated is what ALFWorld's constants say, slices and stacking left out."""
    from alfworld.gen import constants

    def lower(kinds: set[str]) -> set[str]:
        return {kind.lower() for kind in kinds if not kind.endswith("Sliced")}

    theirs = {place.lower(): lower(things) for place, things in constants.VAL_RECEPTACLE_OBJECTS.items()}
    assert {place: theirs[place] for place in HOLDS} == {place: set(things) for place, things in HOLDS.items()}
    assert set(theirs) - set(HOLDS) == {"bowl", "box", "cart", "cup", "mug", "pan", "plate", "pot"}
    for verb, name in {"clean": "Cleanable", "heat": "Heatable", "cool": "Coolable"}.items():
        assert set(TREATMENTS[verb].objects) == lower(constants.VAL_ACTION_OBJECTS[name])
    assert lower(constants.VAL_ACTION_OBJECTS["Sliceable"]) == SLICEABLE
    assert lower(set(constants.OPENABLE_CLASS_LIST)) - {"box"} == OPENABLE
