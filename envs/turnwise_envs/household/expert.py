"""An expert that knows only what the episode has shown it, so that its play can be imitated.

It is a function of the state alone and may be asked in any state that play can reach. What it knows: where
receptacles stand, the contents of those it has looked into (``state.seen``; nobody else moves things), what it
holds, what it did. Before it looks anywhere it asks common sense: :data:`tables.LIKELY`, then what could hold the
thing at all, then the rest; an orderly expert looks into one receptacle after the other, as they are listed.

It can be made careless: a careless expert forgets to clean, heat or cool, puts the thing away as it is, and believes
that it is done. Demonstrations that people give look like that, and a policy that imitates them has something to learn.
"""

from __future__ import annotations

from collections.abc import Iterable

from turnwise_envs.household.rules import commands
from turnwise_envs.household.tables import HOLDS, LIKELY, Treatment
from turnwise_envs.household.world import NOWHERE, State, World, goal_holds


def expert_command(world: World, state: State, careless: bool = False, orderly: bool = False) -> str | None:
    """The next command towards the goal; ``look`` when it is reached, None when a careless expert believes so."""
    if goal_holds(world, state):
        return "look"
    if state.held != NOWHERE and state.held not in world.targets:
        return _put_down(world, state)
    if world.goal.family.light:
        return _bring_to_light(world, state, orderly)
    return _bring_home(world, state, None if careless else world.goal.family.treatment, orderly)


def expert_thought(world: World, state: State) -> str:
    """What the expert has in mind: the kind of thing it is after, and its number if it holds or sees one."""
    in_sight = state.at != NOWHERE and not world.is_shut(state, state.at)
    at_hand = [o for o in world.targets if o == state.held] or [
        o for o in world.targets if in_sight and state.where[o] == state.at
    ]
    return f"think: {world.objects[at_hand[0]] if at_hand else world.goal.obj}"


def expert_turns(world: World, limit: int) -> int | None:
    """Turns the expert needs from the start, None if more than ``limit``."""
    state = world.initial()
    for turn in range(1, limit + 1):
        command = expert_command(world, state)
        assert command is not None  # only a careless expert stops early
        state, _ = commands(world, state)[command].run(world, state)
        if goal_holds(world, state):
            return turn
    return None


def _bring_home(world: World, state: State, treatment: Treatment | None, orderly: bool) -> str | None:
    """Fetch a target, treat it if need be, and put it where the others of the goal are; None: all are there."""
    near = state.at if state.held != NOWHERE else NOWHERE
    done = _treated(state, treatment)
    home = max(world.goal_receptacles, key=lambda r: (_known_targets(world, state, r, done), r == near, -r))
    if state.held == NOWHERE:
        if _known_targets(world, state, home, done) >= world.goal.family.count:
            return None
        loose = [o for o in world.targets if not (state.where[o] == home and done >> o & 1)]
        return _fetch(world, state, loose, world.goal.obj, done, orderly)
    if treatment and not done >> state.held & 1:
        station = world.receptacle_types.index(treatment.station)
        name = f"{world.objects[state.held]} with {world.receptacles[station]}"
        return _at(world, state, station) or f"{treatment.verb} {name}"
    return _at_open(world, state, home) or f"move {world.objects[state.held]} to {world.receptacles[home]}"


def _bring_to_light(world: World, state: State, orderly: bool) -> str:
    """Fetch a target and switch the lamp on beside it."""
    if state.held == NOWHERE:
        return _fetch(world, state, world.targets, world.goal.obj, ~0, orderly)
    for lamp in world.lamps:
        if state.seen >> state.where[lamp] & 1:
            return _at(world, state, state.where[lamp]) or f"use {world.objects[lamp]}"
    return _explore(world, state, world.goal.lamp, orderly)


def _put_down(world: World, state: State) -> str:
    """Get rid of what is in the way: here if it fits, else at the first place that takes such a thing."""
    kind = world.object_types[state.held]
    fitting = [r for r, place in enumerate(world.receptacle_types) if kind in HOLDS[place]]
    spot = min(fitting, key=lambda r: (r != state.at, world.is_shut(state, r), r))
    return _at_open(world, state, spot) or f"move {world.objects[state.held]} to {world.receptacles[spot]}"


def _fetch(world: World, state: State, wanted: Iterable[int], kind: str, done: int, orderly: bool) -> str:
    """Take one of ``wanted`` whose place is known (those in the mask ``done`` and near ones first), or look for one."""
    known = [o for o in wanted if state.seen >> state.where[o] & 1]
    if not known:
        return _explore(world, state, kind, orderly)
    best = min(known, key=lambda o: (not done >> o & 1, state.where[o] != state.at, o))
    place = state.where[best]
    return _at_open(world, state, place) or f"take {world.objects[best]} from {world.receptacles[place]}"


def _explore(world: World, state: State, kind: str, orderly: bool) -> str:
    """Look into the most promising (or next) receptacle not yet looked into; finish the one it stands at first."""
    likely = LIKELY[kind]
    receptacles = len(world.receptacles)

    def promise(r: int) -> tuple[bool, int, int]:
        place = world.receptacle_types[r]
        rank = likely.index(place) if place in likely else len(likely) + (kind not in HOLDS[place])
        return r != state.at, rank, r

    def distance(r: int) -> int:
        return (r - max(state.at, 0)) % receptacles

    unseen = [r for r in range(receptacles) if not state.seen >> r & 1]
    best = min(unseen, key=distance if orderly else promise)
    return _at(world, state, best) or f"open {world.receptacles[best]}"


def _at(world: World, state: State, r: int) -> str | None:
    """The command that brings the agent to ``r``; None when it is there."""
    return None if state.at == r else f"go to {world.receptacles[r]}"


def _at_open(world: World, state: State, r: int) -> str | None:
    """The command that brings the agent closer to reaching into ``r``; None when it can."""
    return _at(world, state, r) or (f"open {world.receptacles[r]}" if world.is_shut(state, r) else None)


def _treated(state: State, treatment: Treatment | None) -> int:
    """Mask of the objects in the state that ``treatment`` gives; all of them without one."""
    return getattr(state, treatment.sets) if treatment else ~0


def _known_targets(world: World, state: State, r: int, done: int) -> int:
    """How many targets of the mask ``done`` are known to be in ``r``."""
    if not state.seen >> r & 1:
        return 0
    return sum(state.where[o] == r and done >> o & 1 for o in world.targets)
