"""What each split may show: floor plans, and pairs of an object and a place.

``train`` and ``valid_seen`` share floor plans; a task (family, object, goal receptacle) in a given plan belongs to
exactly one of the two. ``valid_unseen`` has plans of its own, and its tasks are about pairs of an object type and
a receptacle type that the other two never show, neither as a goal nor as a place where something lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from turnwise_envs.dice import Dice, stable_hash
from turnwise_envs.household.tables import HOLDS, LAMPS, LIKELY, OPENABLE, ROOMS, Family

Split = Literal["train", "valid_seen", "valid_unseen"]
SPLIT_SIZES: dict[Split, int] = {"train": 10_000, "valid_seen": 1_000, "valid_unseen": 1_000}

TRAIN_PLANS, UNSEEN_PLANS = 24, 8
RECEPTACLES = (10, 16)
#: More doors than this make searching longer than an episode.
MAX_DOORS = 6
#: One task in this many of a floor plan is kept for ``valid_seen``, one pair in this many for ``valid_unseen``.
SEEN_SHARE, HELD_OUT_SHARE = 8, 6


@dataclass(frozen=True)
class FloorPlan:
    """How many receptacles of each type a room has."""

    name: str
    room: str
    counts: tuple[tuple[str, int], ...]

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(kind for kind, _ in self.counts)

    @property
    def receptacles(self) -> tuple[str, ...]:
        """``("bed 1", "desk 1", "desk 2", ...)``, by type and number."""
        return tuple(f"{kind} {number}" for kind, count in self.counts for number in range(1, count + 1))


def floor_plans(room: str, split: Split) -> tuple[FloorPlan, ...]:
    """The plans of a room type that ``split`` plays in."""
    plans = _all_plans(room)
    return plans[TRAIN_PLANS:] if split == "valid_unseen" else plans[:TRAIN_PLANS]


@cache
def _all_plans(room: str) -> tuple[FloorPlan, ...]:
    """Distinct plans of a room type: first those of training, then those it never shows."""
    dice = Dice("household", "plans", room)
    found: dict[tuple[tuple[str, int], ...], FloorPlan] = {}
    while len(found) < TRAIN_PLANS + UNSEEN_PLANS:
        drawn = ((kind, dice.between(*limits)) for kind, limits in sorted(ROOMS[room].receptacles.items()))
        counts = tuple((kind, count) for kind, count in drawn if count)
        doors = sum(count for kind, count in counts if kind in OPENABLE)
        size = sum(count for _, count in counts)
        if RECEPTACLES[0] <= size <= RECEPTACLES[1] and doors <= MAX_DOORS and counts not in found:
            found[counts] = FloorPlan(f"{room}-{len(found)}", room, counts)
    return tuple(found.values())


@cache
def is_held_out(obj: str, receptacle: str) -> bool:
    """Whether only ``valid_unseen`` shows this pair. An object or a place with few partners keeps all of them."""
    return (
        obj in HOLDS[receptacle]
        and len(HOLDS[receptacle]) > 3
        and sum(obj in things for things in HOLDS.values()) > 3
        and stable_hash("household", "pair", obj, receptacle) % HELD_OUT_SHARE == 0
    )


def places(obj: str, plan: FloorPlan, split: Split) -> tuple[str, ...]:
    """Receptacle types of ``plan`` where ``obj`` may lie at the start."""
    if obj in LAMPS:
        return tuple(kind for kind in plan.types if kind in LIKELY[obj])
    fitting = (kind for kind in plan.types if obj in HOLDS[kind])
    return tuple(kind for kind in fitting if split == "valid_unseen" or not is_held_out(obj, kind))


@cache
def goals(family: Family, plan: FloorPlan, split: Split) -> tuple[tuple[str, str], ...]:
    """All (object type, goal receptacle type) that ``split`` may ask for in ``plan``; the second is "" for light."""
    found = []
    for obj in ROOMS[plan.room].objects:
        if family.treatment and obj not in family.treatment.objects:
            continue
        starts = places(obj, plan, split)
        if family.light:
            targets = [""] if starts else []
        else:
            station = family.treatment.station if family.treatment else ""
            targets = [
                kind
                for kind in plan.types
                if obj in HOLDS[kind] and kind != station and any(start != kind for start in starts)
            ]
        found += [(obj, target) for target in targets if _belongs(family, plan, obj, target, split)]
    return tuple(found)


def _belongs(family: Family, plan: FloorPlan, obj: str, target: str, split: Split) -> bool:
    """Whether this task in this plan is one of ``split``'s."""
    if split == "valid_unseen":
        if family.light:
            return any(is_held_out(obj, kind) for kind in plan.types)
        return is_held_out(obj, target)
    if target and is_held_out(obj, target):
        return False
    reserved = stable_hash("household", "task", plan.name, family.name, obj, target) % SEEN_SHARE == 0
    return reserved == (split == "valid_seen")
