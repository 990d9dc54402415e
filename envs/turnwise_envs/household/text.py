"""What the world says, in ALFWorld's words. Pure functions from a world and a state to a sentence."""

from __future__ import annotations

from collections.abc import Iterable

from turnwise_envs.household.tables import MOVABLE_RECEPTACLES
from turnwise_envs.household.world import NOWHERE, State, World

NOTHING_HAPPENS = "Nothing happens."
NO_TOOLS = "Tool calls have no effect here: write a command."
MIDDLE = "You are in the middle of a room. Looking quickly around you, you see"

HELP = """Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""


def listing(names: Iterable[str]) -> str:
    """``a mug 1, a pan 1, and a pot 2``; ``nothing`` for nothing. The article is always "a", as in ALFWorld."""
    items = [f"a {name}" for name in names]
    if len(items) < 2:
        return items[0] if items else "nothing"
    return f"{', '.join(items[:-1])}, and {items[-1]}"


def opening(world: World) -> str:
    """The first observation: what there is in the room, seen from its middle, and the task."""
    return f"{MIDDLE} {listing(world.receptacles)}.\n\n{task_line(world)}"


def task_line(world: World) -> str:
    return f"Your task is to: {world.goal.instruction}"


def view(world: World, state: State, r: int) -> str:
    """What a receptacle shows: its contents, or a closed door."""
    name = world.receptacles[r]
    if world.is_shut(state, r):
        return f"The {name} is closed."
    inside = listing(world.objects[o] for o in world.contents(state, r))
    if world.openable >> r & 1:
        return f"The {name} is open. In it, you see {inside}."
    return f"On the {name}, you see {inside}."


def look(world: World, state: State) -> str:
    """Where the agent is. As in ALFWorld it cannot list the room again: only the first observation does."""
    if state.at == NOWHERE:
        return f"{MIDDLE} nothing."
    return f"You are facing the {world.receptacles[state.at]}. Next to it, you see nothing."


def inventory(world: World, state: State) -> str:
    if state.held == NOWHERE:
        return "You are not carrying anything."
    return f"You are carrying: a {world.objects[state.held]}."


def examine_object(world: World, state: State, o: int) -> str:
    """The state of an object in the hand, in ALFWorld's order of precedence."""
    name, kind = world.objects[o], world.object_types[o]
    if kind in MOVABLE_RECEPTACLES:
        return f"This is a normal {name}. In it, you see nothing."
    clean, hot, cool, sliced = (mask >> o & 1 for mask in (state.clean, state.hot, state.cool, state.sliced))
    temperature = "hot" if hot else "cool" if cool else ""
    words = " and ".join(word for word in (temperature, "clean" if clean else "") if word)
    if sliced:
        return f"This is a {words} sliced {name}." if words else f"This is a sliced {name}."
    if words:
        return f"This is a {'cold' if words == 'cool' else words} {name}."
    return f"There's nothing special about {name}."
