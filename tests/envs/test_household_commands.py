"""What can be done is listed by shortcuts; the rules one by one must give the same list, in the same order of kinds."""

import random

import pytest

from turnwise_envs.household.expert import expert_command
from turnwise_envs.household.rules import RULES, commands
from turnwise_envs.household.tasks import scene_of


@pytest.mark.parametrize("index", range(12))
def test_the_shortcuts_give_what_the_rules_say(index: int) -> None:
    world = scene_of("train", index).world
    state, rng = world.initial(), random.Random(index)
    for turn in range(60):
        plain = {rule.command(world, each).text for rule in RULES for each in rule.applies(world, state)}
        found = commands(world, state)
        assert set(found) == plain
        assert all(found[line].text == line for line in found)
        line = expert_command(world, state) if turn % 3 else rng.choice(sorted(found))
        assert line is not None
        state, _ = found[line].run(world, state)
