"""Draws a world from (split, index) alone, and keeps the draws in which an expert finishes in good time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from turnwise_envs.dice import Dice
from turnwise_envs.household.expert import expert_turns
from turnwise_envs.household.plans import FloorPlan, Split, floor_plans, goals, is_held_out, places
from turnwise_envs.household.tables import CAPACITY, DEFAULT_CAPACITY, FAMILIES, LIKELY, ROOMS
from turnwise_envs.household.world import Goal, World

#: Two turns short of the default limit, so that an expert's episode survives a slip.
MAX_EXPERT_TURNS = 28
OBJECTS = (12, 18)
#: Share of things that lie where common sense looks first.
TIDINESS = 0.7


@dataclass(frozen=True)
class Scene:
    """A world and how many turns the expert takes in it."""

    world: World
    expert_turns: int


@lru_cache(maxsize=1024)
def scene(split: Split, index: int) -> Scene:
    """The scene of task ``index`` of ``split``."""
    family = Dice("household", split, index).pick(tuple(FAMILIES))
    attempt = 0
    while True:
        world = _draw(split, index, family, Dice("household", split, index, attempt))
        turns = expert_turns(world, MAX_EXPERT_TURNS) if world else None
        if world and turns:
            return Scene(world, turns)
        attempt += 1


def _draw(split: Split, index: int, family_name: str, dice: Dice) -> World | None:
    """One try: None when the plan has no task for this split, or the goal's things find no place."""
    family = FAMILIES[family_name]
    plan = dice.pick(floor_plans(dice.pick(family.rooms), split))
    room = ROOMS[plan.room]
    asked = goals(family, plan, split)
    if not asked:
        return None
    obj, receptacle = dice.pick(asked)
    lamp = (room.lamp or "") if family.light else ""

    floor = _Floor(plan, split, dice)
    for number in range(dice.between(family.count, family.count + 1)):
        odd_start = family.light and split == "valid_unseen" and number == 0
        allowed = tuple(
            kind
            for kind in places(obj, plan, split)
            if kind != receptacle and (not odd_start or is_held_out(obj, kind))
        )
        if not floor.lay(obj, allowed):
            return None
    if room.lamp and not floor.lay(room.lamp, places(room.lamp, plan, split)) and lamp:
        return None
    wanted = dice.between(*OBJECTS)
    for thing in dice.shuffled(room.objects):
        if len(floor.laid) < wanted and thing != obj:
            for _ in range(dice.pick((1, 1, 2))):
                floor.lay(thing, places(thing, plan, split))

    names, start = floor.named()
    wording = dice.pick(family.wordings)
    return World(
        split=split,
        index=index,
        room=plan.room,
        plan=plan.name,
        goal=Goal(
            family=family,
            obj=obj,
            receptacle=receptacle,
            lamp=lamp,
            instruction=wording.format(obj=obj, recep=receptacle, toggle=lamp),
        ),
        receptacles=plan.receptacles,
        objects=names,
        start=start,
    )


class _Floor:
    """A floor plan being filled with things."""

    def __init__(self, plan: FloorPlan, split: Split, dice: Dice) -> None:
        self.laid: list[tuple[str, int]] = []  # object type, receptacle
        self._dice = dice
        kinds = [name.partition(" ")[0] for name in plan.receptacles]
        self._spots = {kind: [r for r, other in enumerate(kinds) if other == kind] for kind in kinds}
        self._room_left = [CAPACITY.get(kind, DEFAULT_CAPACITY) for kind in kinds]

    def lay(self, obj: str, allowed: tuple[str, ...]) -> bool:
        """Put one ``obj`` somewhere on the ``allowed`` receptacle types; False when all of them are full."""
        tidy = [kind for kind in allowed if kind in LIKELY[obj]] if self._dice.chance(TIDINESS) else []
        for kinds in (tidy, list(allowed)):
            for kind in self._dice.shuffled(kinds):
                for r in self._dice.shuffled(self._spots[kind]):
                    if self._room_left[r]:
                        self._room_left[r] -= 1
                        self.laid.append((obj, r))
                        return True
        return False

    def named(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Names by type and number, and the receptacle of each; which of a type gets which number is chance."""
        by_type: dict[str, list[int]] = {}
        for obj, r in self.laid:
            by_type.setdefault(obj, []).append(r)
        rows = [
            (f"{obj} {number}", r)
            for obj in sorted(by_type)
            for number, r in enumerate(self._dice.shuffled(by_type[obj]), start=1)
        ]
        return tuple(name for name, _ in rows), tuple(r for _, r in rows)
