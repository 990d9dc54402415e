"""The two values the whole environment is about: a ``World`` that never changes and a ``State`` that does.

Objects and receptacles are numbered by their position in the world's name tuples; sets of them are bit masks.
Every receptacle is a place of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from turnwise_envs.household.tables import LAMPS, OPENABLE, Family

if TYPE_CHECKING:
    from turnwise_envs.household.rules import Command

Kind = Literal["object", "receptacle"]

#: Place, what is in the hand, whether the place's door was opened, and what lies there.
Situation = tuple[int, int, int, tuple[int, ...]]

#: ``State.at`` in the middle of the room, ``State.held`` with empty hands, ``State.where`` of what is held.
NOWHERE = -1


class State(NamedTuple):
    """All that can change in an episode. Masks have one bit for each object or receptacle."""

    where: tuple[int, ...]  # receptacle of each object
    at: int = NOWHERE
    held: int = NOWHERE
    opened: int = 0  # receptacles
    clean: int = 0  # objects, like the masks below
    hot: int = 0
    cool: int = 0
    sliced: int = 0
    toggled: int = 0
    seen: int = 0  # receptacles whose contents have been shown: knowledge, not part of the world


@dataclass(frozen=True)
class Goal:
    """What the task asks for, in object and receptacle types."""

    family: Family
    obj: str
    receptacle: str = ""
    lamp: str = ""
    instruction: str = ""


@dataclass(frozen=True)
class World:
    """A room, what stands and lies in it, and the task. Names are sorted by type, then by number."""

    split: str
    index: int
    room: str
    plan: str
    goal: Goal
    receptacles: tuple[str, ...]
    objects: tuple[str, ...]
    start: tuple[int, ...]

    @cached_property
    def receptacle_types(self) -> tuple[str, ...]:
        return tuple(name.partition(" ")[0] for name in self.receptacles)

    @cached_property
    def object_types(self) -> tuple[str, ...]:
        return tuple(name.partition(" ")[0] for name in self.objects)

    @cached_property
    def openable(self) -> int:
        """Mask of the receptacles that have a door."""
        return sum(1 << r for r, kind in enumerate(self.receptacle_types) if kind in OPENABLE)

    @cached_property
    def carriable(self) -> int:
        """Mask of the objects that can be picked up."""
        return sum(1 << o for o, kind in enumerate(self.object_types) if kind not in LAMPS)

    @cached_property
    def targets(self) -> tuple[int, ...]:
        """Objects of the goal's type."""
        return tuple(o for o, kind in enumerate(self.object_types) if kind == self.goal.obj)

    @cached_property
    def lamps(self) -> tuple[int, ...]:
        """Lamps of the goal's type; empty when the goal needs none."""
        return tuple(o for o, kind in enumerate(self.object_types) if kind == self.goal.lamp)

    @cached_property
    def goal_receptacles(self) -> tuple[int, ...]:
        """Receptacles of the goal's type; empty when the goal needs none."""
        return tuple(r for r, kind in enumerate(self.receptacle_types) if kind == self.goal.receptacle)

    @cached_property
    def names(self) -> dict[Kind, tuple[str, ...]]:
        return {"object": self.objects, "receptacle": self.receptacles}

    @cached_property
    def numbers(self) -> dict[Kind, dict[str, int]]:
        """The inverse of ``names``."""
        return {kind: {name: i for i, name in enumerate(names)} for kind, names in self.names.items()}

    @cached_property
    def standing(self) -> dict[str, Command]:
        """Going to each receptacle, and what is always possible: the memory of ``rules.commands``."""
        return {}

    @cached_property
    def special(self) -> dict[Situation, list[Command]]:
        """What else could be done in situations that were met before: its memory as well."""
        return {}

    @cached_property
    def task_id(self) -> str:
        return f"household/{self.split}/{self.index}"

    def initial(self) -> State:
        return State(where=self.start)

    def is_shut(self, state: State, r: int) -> bool:
        """Whether ``r`` has a door and it is closed, so that its contents are hidden and out of reach."""
        return bool(self.openable & ~state.opened & (1 << r))

    def contents(self, state: State, r: int) -> list[int]:
        """Objects in or on ``r``, in the order in which they are listed."""
        return [o for o, place in enumerate(state.where) if place == r]


def goal_holds(world: World, state: State) -> bool:
    """Whether the task is done in this state."""
    goal = world.goal
    if goal.family.light:
        return state.held in world.targets and any(
            state.where[lamp] == state.at and state.toggled & (1 << lamp) for lamp in world.lamps
        )
    treatment = goal.family.treatment
    wanted = getattr(state, treatment.sets) if treatment else ~0
    placed = [state.where[o] for o in world.targets if wanted & (1 << o)]
    return any(placed.count(r) >= goal.family.count for r in world.goal_receptacles)
