"""The rules of a small made-up kitchen, sentence by sentence, against ALFWorld's grammar."""

import random
from dataclasses import replace

import pytest

from turnwise_envs.household.expert import expert_command
from turnwise_envs.household.generate import scene
from turnwise_envs.household.rules import commands, is_understood
from turnwise_envs.household.tables import FAMILIES
from turnwise_envs.household.text import opening
from turnwise_envs.household.world import Goal, World, goal_holds

RECEPTACLES = ("cabinet 1", "countertop 1", "countertop 2", "fridge 1", "microwave 1", "sinkbasin 1", "toaster 1")
PLACES = {
    "apple 1": "countertop 1",
    "apple 2": "fridge 1",
    "desklamp 1": "countertop 2",
    "knife 1": "countertop 1",
    "mug 1": "cabinet 1",
    "pen 1": "countertop 2",
}


class Play:
    """A world, its state, and one method to do things in it."""

    def __init__(self, goal: Goal) -> None:
        self.world = World(
            split="train",
            index=0,
            room="kitchen",
            plan="made-up",
            goal=goal,
            receptacles=RECEPTACLES,
            objects=tuple(PLACES),
            start=tuple(RECEPTACLES.index(place) for place in PLACES.values()),
        )
        self.state = self.world.initial()

    def __call__(self, *lines: str) -> str:
        for line in lines:
            command = commands(self.world, self.state).get(line)
            if command is None:
                return "Nothing happens."
            self.state, said = command.run(self.world, self.state)
        return said

    @property
    def possible(self) -> set[str]:
        return set(commands(self.world, self.state))

    @property
    def solved(self) -> bool:
        return goal_holds(self.world, self.state)


def play_for(family: str, obj: str, receptacle: str = "", lamp: str = "") -> Play:
    return Play(Goal(FAMILIES[family], obj, receptacle, lamp, "do it."))


@pytest.fixture
def play() -> Play:
    return play_for("pick_and_place_simple", "mug", "fridge")


def test_the_first_observation_lists_the_room_and_the_task(play: Play) -> None:
    assert opening(play.world) == (
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, a countertop 1, "
        "a countertop 2, a fridge 1, a microwave 1, a sinkbasin 1, and a toaster 1.\n\nYour task is to: do it."
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["look"], "You are in the middle of a room. Looking quickly around you, you see nothing."),
        (["go to toaster 1", "look"], "You are facing the toaster 1. Next to it, you see nothing."),
        (["go to toaster 1"], "You arrive at toaster 1. On the toaster 1, you see nothing."),
        (["go to countertop 1"], "You arrive at countertop 1. On the countertop 1, you see a apple 1, and a knife 1."),
        (["go to fridge 1"], "You arrive at fridge 1. The fridge 1 is closed."),
        (["go to fridge 1", "open fridge 1"], "You open the fridge 1. The fridge 1 is open. In it, you see a apple 2."),
        (["go to fridge 1", "open fridge 1", "close fridge 1"], "You close the fridge 1."),
        (
            ["go to fridge 1", "open fridge 1", "go to toaster 1", "go to fridge 1"],
            "You arrive at fridge 1. The fridge 1 is open. In it, you see a apple 2.",
        ),
        (["go to microwave 1", "open microwave 1", "examine microwave 1"],
         "The microwave 1 is open. In it, you see nothing."),
        (["go to fridge 1", "examine fridge 1"], "The fridge 1 is closed."),
        (["go to countertop 1", "examine countertop 1"], "On the countertop 1, you see a apple 1, and a knife 1."),
        (["inventory"], "You are not carrying anything."),
        (["go to countertop 1", "take knife 1 from countertop 1"], "You pick up the knife 1 from the countertop 1."),
        (["go to countertop 1", "take knife 1 from countertop 1", "inventory"], "You are carrying: a knife 1."),
        (
            ["go to countertop 1", "take knife 1 from countertop 1", "move knife 1 to countertop 1"],
            "You move the knife 1 to the countertop 1.",
        ),
        (["go to countertop 2", "use desklamp 1"], "You turn on the desklamp 1."),
        (["go to countertop 2", "use desklamp 1", "use desklamp 1"], "You turn on the desklamp 1."),
        (["go to countertop 2", "examine desklamp 1"], "Nothing happens."),
        (["go to countertop 2", "take pen 1 from countertop 2", "examine pen 1"],
         "There's nothing special about pen 1."),
        (
            ["go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1", "examine mug 1"],
            "This is a normal mug 1. In it, you see nothing.",
        ),
    ],
)  # fmt: skip
def test_sentences(play: Play, lines: list[str], said: str) -> None:
    assert play(*lines) == said


GRAB = ("go to countertop 1", "take apple 1 from countertop 1")


@pytest.mark.parametrize(
    ("lines", "said", "examined"),
    [
        (["go to sinkbasin 1", "clean apple 1 with sinkbasin 1"],
         "You clean the apple 1 using the sinkbasin 1.", "This is a clean apple 1."),
        (["go to microwave 1", "heat apple 1 with microwave 1"],
         "You heat the apple 1 using the microwave 1.", "This is a hot apple 1."),
        (["go to fridge 1", "cool apple 1 with fridge 1"],
         "You cool the apple 1 using the fridge 1.", "This is a cold apple 1."),
        (["go to sinkbasin 1", "clean apple 1 with sinkbasin 1", "go to microwave 1", "heat apple 1 with microwave 1"],
         "You heat the apple 1 using the microwave 1.", "This is a hot and clean apple 1."),
        (["go to sinkbasin 1", "clean apple 1 with sinkbasin 1", "go to fridge 1", "cool apple 1 with fridge 1"],
         "You cool the apple 1 using the fridge 1.", "This is a cool and clean apple 1."),
        (["go to microwave 1", "heat apple 1 with microwave 1", "go to fridge 1", "cool apple 1 with fridge 1"],
         "You cool the apple 1 using the fridge 1.", "This is a cold apple 1."),
        (["go to fridge 1", "cool apple 1 with fridge 1", "go to microwave 1", "heat apple 1 with microwave 1"],
         "You heat the apple 1 using the microwave 1.", "This is a hot apple 1."),
    ],
)  # fmt: skip
def test_treatments_need_no_open_door(play: Play, lines: list[str], said: str, examined: str) -> None:
    assert play(*GRAB, *lines) == said
    assert play("examine apple 1") == examined


def test_slicing_keeps_the_name_and_shows_when_examined(play: Play) -> None:
    play("go to countertop 1", "take knife 1 from countertop 1")
    assert play("slice apple 1 with knife 1") == "You sliced the apple 1 with the knife 1."
    play("move knife 1 to countertop 1", "take apple 1 from countertop 1")
    assert play("examine apple 1") == "This is a sliced apple 1."
    play("go to fridge 1", "cool apple 1 with fridge 1")
    assert play("examine apple 1") == "This is a cool sliced apple 1."
    play("go to sinkbasin 1", "clean apple 1 with sinkbasin 1")
    assert play("examine apple 1") == "This is a cool and clean sliced apple 1."
    play("go to microwave 1", "heat apple 1 with microwave 1")
    assert play("examine apple 1") == "This is a hot and clean sliced apple 1."


def test_help_is_verbatim(play: Play) -> None:
    said = play("help")
    assert said.startswith("Available commands:\n  look:                             look around")
    assert "\n  move (object) to (receptacle):  place an object in or on a receptacle\n" in said
    assert said.endswith("\n  slice (object) with (object):     slice an object using a sharp object\n")
    assert len(said.splitlines()) == 14


def test_everything_possible_in_the_middle_of_the_room(play: Play) -> None:
    assert play.possible == {f"go to {name}" for name in RECEPTACLES} | {"help", "inventory", "look"}


def elsewhere(name: str) -> set[str]:
    return {f"go to {other}" for other in RECEPTACLES if other != name} | {"help", "inventory", "look"}


def test_everything_possible_at_a_closed_door(play: Play) -> None:
    play("go to fridge 1")
    assert play.possible == elsewhere("fridge 1") | {"open fridge 1", "examine fridge 1"}


def test_everything_possible_with_an_apple_at_the_open_fridge(play: Play) -> None:
    play(*GRAB, "go to fridge 1", "open fridge 1")
    assert play.possible == elsewhere("fridge 1") | {
        "close fridge 1",
        "cool apple 1 with fridge 1",
        "examine apple 1",
        "examine fridge 1",
        "move apple 1 to fridge 1",
    }


def test_a_knife_reaches_through_a_closed_door(play: Play) -> None:
    """ALFWorld's rule asks only that the thing is at the place."""
    play("go to countertop 1", "take knife 1 from countertop 1", "go to fridge 1")
    assert play.possible == elsewhere("fridge 1") | {
        "examine fridge 1",
        "examine knife 1",
        "open fridge 1",
        "slice apple 2 with knife 1",
    }


@pytest.mark.parametrize(
    "line",
    [
        "take desklamp 1 from countertop 2",  # a lamp is not carried
        "take apple 2 from fridge 1",  # not there
        "open countertop 2",  # no door
        "close countertop 2",
        "go to countertop 2",  # here already
        "use pen 1",  # no switch
        "clean pen 1 with sinkbasin 1",
    ],
)
def test_impossible_but_understood(play: Play, line: str) -> None:
    play("go to countertop 2")
    before = play.state
    assert play(line) == "Nothing happens."
    assert play.state == before
    assert is_understood(play.world, line)


def test_two_things_do_not_fit_in_the_hands(play: Play) -> None:
    play(*GRAB)
    assert play("take knife 1 from countertop 1") == "Nothing happens."


def test_a_place_takes_only_what_belongs_there(play: Play) -> None:
    play(*GRAB, "go to toaster 1")
    assert play("move apple 1 to toaster 1") == "Nothing happens."


@pytest.mark.parametrize(
    "line", ["", "go to", "go to moon 1", "take apple 1", "take apple 9 from fridge 1", "put apple 1 in fridge 1", "(+"]
)
def test_not_understood(play: Play, line: str) -> None:
    assert play(line or " ") == "Nothing happens."
    assert not is_understood(play.world, line)


def test_goal_place() -> None:
    play = play_for("pick_and_place_simple", "apple", "countertop")
    assert play.solved  # apple 1 lies on one
    play = play_for("pick_and_place_simple", "apple", "sinkbasin")
    play(*GRAB, "go to sinkbasin 1")
    assert not play.solved
    play("move apple 1 to sinkbasin 1")
    assert play.solved


def test_goal_place_treated_is_lost_when_undone() -> None:
    play = play_for("pick_cool_then_place_in_recep", "apple", "countertop")
    assert not play.solved
    play(*GRAB, "go to fridge 1", "cool apple 1 with fridge 1", "go to countertop 2", "move apple 1 to countertop 2")
    assert play.solved
    play("take apple 1 from countertop 2", "go to microwave 1", "heat apple 1 with microwave 1")
    play("go to countertop 2", "move apple 1 to countertop 2")
    assert not play.solved


def test_goal_two_in_the_same_place() -> None:
    play = play_for("pick_two_obj_and_place", "apple", "countertop")
    play("go to fridge 1", "open fridge 1", "take apple 2 from fridge 1")
    play("go to countertop 2", "move apple 2 to countertop 2")
    assert not play.solved  # one on each
    play("take apple 2 from countertop 2", "go to countertop 1", "move apple 2 to countertop 1")
    assert play.solved


def test_goal_light_needs_lamp_hand_and_place() -> None:
    play = play_for("look_at_obj_in_light", "pen", lamp="desklamp")
    play("go to countertop 2", "use desklamp 1")
    assert not play.solved  # nothing in hand
    play("take pen 1 from countertop 2")
    assert play.solved
    play("go to fridge 1")
    assert not play.solved  # away from the lamp
    play("go to countertop 2")
    assert play.solved


def test_the_expert_does_not_waver_between_two_places() -> None:
    """One apple on each countertop: it must bring them together and not walk to and fro."""
    play = play_for("pick_two_obj_and_place", "apple", "countertop")
    play("go to countertop 1", "go to fridge 1", "open fridge 1", "take apple 2 from fridge 1")
    play("go to countertop 2", "move apple 2 to countertop 2")
    for _ in ("take", "go"):
        play(expert_command(play.world, play.state))
    assert not play.solved
    play(expert_command(play.world, play.state))
    assert play.solved


def test_the_expert_puts_down_what_is_in_the_way() -> None:
    play = play_for("pick_and_place_simple", "mug", "fridge")
    play("go to countertop 1", "take knife 1 from countertop 1", "go to toaster 1")
    assert expert_command(play.world, play.state) == "go to countertop 1"
    play("go to countertop 1")
    assert expert_command(play.world, play.state) == "move knife 1 to countertop 1"


def test_what_a_world_remembers_is_what_is_so() -> None:
    """Commands of situations that were met before are remembered; a world that has met nothing must list the same."""
    rng = random.Random(0)
    for index in range(6):
        world = scene("train", index).world
        state = world.initial()
        for _ in range(300):
            found = commands(world, state)
            assert list(found) == list(commands(replace(world), state))
            moving = [line for line in found if line.startswith(("take", "move", "open"))]
            line = rng.choice(moving if moving and rng.random() < 0.5 else list(found))
            state, _ = found[line].run(world, state)
