"""The rules: which commands exist, when each applies, what it changes and what it says.

``RULES`` is the whole game. ``commands(world, state)`` lists what can be done now, exactly as ALFWorld's
``admissible_commands``; whatever is not in it does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from turnwise_envs.household import text
from turnwise_envs.household.tables import HOLDS, KNIVES, LAMPS, SLICEABLE, TREATMENTS, Treatment
from turnwise_envs.household.world import NOWHERE, Kind, State, World

Arguments = tuple[int, ...]

#: Situations that a world remembers: what a group's members meet, and no more, since many worlds are kept.
_SITUATIONS = 64


@dataclass(frozen=True, eq=False)
class Rule:
    """One kind of command.

    ``template`` has one ``{}`` for each of ``kinds``. ``applies`` yields the arguments the command can have now,
    ``effect`` gives the state after it (none: nothing changes), ``says`` the sentence about that state. ``hands`` says
    that it can apply only with full hands, or only with empty ones.
    """

    template: str
    kinds: tuple[Kind, ...]
    applies: Callable[[World, State], Iterable[Arguments]]
    says: Callable[..., str]
    effect: Callable[..., State] | None = None
    hands: Literal["full", "empty"] | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(self.template.replace("{}", "(.+)"))

    def command(self, world: World, arguments: Arguments) -> Command:
        """This rule with its arguments filled in."""
        names = [world.names[kind][number] for kind, number in zip(self.kinds, arguments, strict=True)]
        return Command(self.template.format(*names), self, arguments)


@dataclass(frozen=True, slots=True)
class Command:
    """A rule with its arguments filled in: ``take mug 1 from desk 2``."""

    text: str
    rule: Rule
    arguments: Arguments

    def run(self, world: World, state: State) -> tuple[State, str]:
        """The state after the command, and what is said."""
        rule = self.rule
        after = state if rule.effect is None else rule.effect(world, state, *self.arguments)
        return after, rule.says(world, after, *self.arguments)


def commands(world: World, state: State) -> dict[str, Command]:
    """Everything that can be done in ``state``, by its text."""
    found = (world.standing or _spell_standing(world)).copy()
    if state.at != NOWHERE:
        del found[_GO.template.format(world.receptacles[state.at])]
    # No rule looks at more than the place, its door, what lies there and what is in the hand.
    here = () if state.at == NOWHERE else tuple(world.contents(state, state.at))
    situation = (state.at, state.held, state.opened >> state.at & 1 if state.at != NOWHERE else 0, here)
    special = world.special.get(situation)
    if special is None:
        if len(world.special) >= _SITUATIONS:
            world.special.clear()
        special = world.special[situation] = _special(world, state)
    for command in special:
        found[command.text] = command
    return found


def _special(world: World, state: State) -> list[Command]:
    """What can be done in ``state`` beyond going elsewhere and what is always possible."""
    rules = _WITH_EMPTY_HANDS if state.held == NOWHERE else _WITH_FULL_HANDS
    return [rule.command(world, arguments) for rule in rules for arguments in rule.applies(world, state)]


def _spell_standing(world: World) -> dict[str, Command]:
    """Going to each receptacle, and what is always possible: most commands are the same in every state."""
    going = [_GO.command(world, (r,)) for r in range(len(world.receptacles))]
    standing = [*going, *(rule.command(world, ()) for rule in _ALWAYS)]
    # In the order of their texts, which makes sorting a state's commands quick.
    world.standing.update({command.text: command for command in sorted(standing, key=lambda command: command.text)})
    return world.standing


def is_understood(world: World, line: str) -> bool:
    """Whether ``line`` is a command about things that exist in this world, possible now or not."""
    for rule in RULES:
        match = rule.pattern.fullmatch(line)
        if match and all(name in world.numbers[kind] for kind, name in zip(rule.kinds, match.groups(), strict=True)):
            return True
    return False


# When a command applies.


def _always(world: World, state: State) -> list[Arguments]:
    return [()]


def _elsewhere(world: World, state: State) -> list[Arguments]:
    return [(r,) for r in range(len(world.receptacles)) if r != state.at]


def _here(world: World, state: State) -> list[Arguments]:
    return [] if state.at == NOWHERE else [(state.at,)]


def _shut_here(world: World, state: State) -> list[Arguments]:
    return [(r,) for (r,) in _here(world, state) if world.is_shut(state, r)]


def _open_here(world: World, state: State) -> list[Arguments]:
    return [(r,) for (r,) in _here(world, state) if state.opened >> r & 1]


def _in_hand(world: World, state: State) -> list[Arguments]:
    """As in ALFWorld, what merely lies in sight cannot be examined (its rule for that can never apply)."""
    return [] if state.held == NOWHERE else [(state.held,)]


def _takeable(world: World, state: State) -> list[Arguments]:
    if state.at == NOWHERE or state.held != NOWHERE or world.is_shut(state, state.at):
        return []
    return [(o, state.at) for o in world.contents(state, state.at) if world.carriable >> o & 1]


def _placeable(world: World, state: State) -> list[Arguments]:
    if state.at == NOWHERE or state.held == NOWHERE or world.is_shut(state, state.at):
        return []
    fits = world.object_types[state.held] in HOLDS[world.receptacle_types[state.at]]
    return [(state.held, state.at)] if fits else []


def _lamps_here(world: World, state: State) -> list[Arguments]:
    if state.at == NOWHERE:
        return []
    return [(o,) for o in world.contents(state, state.at) if world.object_types[o] in LAMPS]


def _sliceable(world: World, state: State) -> list[Arguments]:
    """As in ALFWorld, a closed door does not protect what is behind it from a knife."""
    if state.at == NOWHERE or state.held == NOWHERE or world.object_types[state.held] not in KNIVES:
        return []
    near = world.contents(state, state.at)
    return [(o, state.held) for o in near if world.object_types[o] in SLICEABLE]


def _treatable(treatment: Treatment) -> Callable[[World, State], list[Arguments]]:
    """With the object in hand, at the appliance; as in ALFWorld its door does not matter."""

    def applies(world: World, state: State) -> list[Arguments]:
        if state.at == NOWHERE or state.held == NOWHERE:
            return []
        if world.receptacle_types[state.at] != treatment.station:
            return []
        return [(state.held, state.at)] if world.object_types[state.held] in treatment.objects else []

    return applies


# What a command changes.


def _go(world: World, state: State, r: int) -> State:
    seen = state.seen if world.is_shut(state, r) else state.seen | 1 << r
    return state._replace(at=r, seen=seen)


def _open(world: World, state: State, r: int) -> State:
    return state._replace(opened=state.opened | 1 << r, seen=state.seen | 1 << r)


def _close(world: World, state: State, r: int) -> State:
    return state._replace(opened=state.opened & ~(1 << r))


def _take(world: World, state: State, o: int, r: int) -> State:
    return state._replace(held=o, where=_put(state.where, o, NOWHERE))


def _move(world: World, state: State, o: int, r: int) -> State:
    return state._replace(held=NOWHERE, where=_put(state.where, o, r))


def _put(where: tuple[int, ...], o: int, r: int) -> tuple[int, ...]:
    return (*where[:o], r, *where[o + 1 :])


def _use(world: World, state: State, o: int) -> State:
    """ALFWorld's switch: whatever was used once counts as on."""
    return state._replace(toggled=state.toggled | 1 << o)


def _slice(world: World, state: State, o: int, knife: int) -> State:
    return state._replace(sliced=state.sliced | 1 << o)


def _treat(treatment: Treatment) -> Callable[[World, State, int, int], State]:
    def effect(world: World, state: State, o: int, r: int) -> State:
        changes: dict[str, Any] = {treatment.sets: getattr(state, treatment.sets) | 1 << o}
        if treatment.clears:
            changes[treatment.clears] = getattr(state, treatment.clears) & ~(1 << o)
        return state._replace(**changes)

    return effect


# What a command says.


def _sentence(template: str) -> Callable[..., str]:
    """A sentence about an object and something else: ``{0}`` and ``{1}``."""

    def says(world: World, state: State, o: int, other: int) -> str:
        return template.format(world.objects[o], world.receptacles[other])

    return says


RULES: tuple[Rule, ...] = (
    Rule(
        "go to {}",
        ("receptacle",),
        _elsewhere,
        lambda world, state, r: f"You arrive at {world.receptacles[r]}. {text.view(world, state, r)}",
        _go,
    ),
    Rule(
        "open {}",
        ("receptacle",),
        _shut_here,
        lambda world, state, r: f"You open the {world.receptacles[r]}. {text.view(world, state, r)}",
        _open,
    ),
    Rule(
        "close {}",
        ("receptacle",),
        _open_here,
        lambda world, state, r: f"You close the {world.receptacles[r]}.",
        _close,
    ),
    Rule(
        "take {} from {}",
        ("object", "receptacle"),
        _takeable,
        _sentence("You pick up the {} from the {}."),
        _take,
        "empty",
    ),
    Rule("move {} to {}", ("object", "receptacle"), _placeable, _sentence("You move the {} to the {}."), _move, "full"),
    *(
        Rule(
            f"{treatment.verb} {{}} with {{}}",
            ("object", "receptacle"),
            _treatable(treatment),
            _sentence(f"You {treatment.verb} the {{}} using the {{}}."),
            _treat(treatment),
            "full",
        )
        for treatment in TREATMENTS.values()
    ),
    Rule(
        "use {}",
        ("object",),
        _lamps_here,
        lambda world, state, o: f"You turn on the {world.objects[o]}.",
        _use,
    ),
    Rule(
        "slice {} with {}",
        ("object", "object"),
        _sliceable,
        lambda world, state, o, knife: f"You sliced the {world.objects[o]} with the {world.objects[knife]}.",
        _slice,
        "full",
    ),
    Rule("examine {}", ("receptacle",), _here, text.view),
    Rule("examine {}", ("object",), _in_hand, text.examine_object, hands="full"),
    Rule("inventory", (), _always, text.inventory),
    Rule("look", (), _always, text.look),
    Rule("help", (), _always, lambda world, state: text.HELP),
)

_GO, *_others = RULES
_ALWAYS = [rule for rule in _others if rule.applies is _always]
_WITH_EMPTY_HANDS = [rule for rule in _others if rule.hands != "full" and rule not in _ALWAYS]
_WITH_FULL_HANDS = [rule for rule in _others if rule.hands != "empty" and rule not in _ALWAYS]
