"""What the cases of both desks have in common: which requests come together, who needs a human, who is an impostor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from turnwise_envs.dice import Dice
from turnwise_envs.tools.desk.database import Database
from turnwise_envs.tools.desk.scenario import Call, Request, Scenario, call

W = TypeVar("W")
#: Adds what a request needs to a world that is being made.
Kind = Callable[[W], Request]


def refused(opening: str, facts: Mapping[str, str], rule: str, *reads: Call, about: str, plea: str) -> Request:
    """A request that ``rule`` forbids, after the calls that show it."""
    return Request(
        opening,
        facts,
        (*reads, call("refuse", rule=rule)),
        about=about,
        tells="I am sorry, but our rules do not allow that, so I cannot do it.",
        plea=plea,
    )


def for_a_human(dice: Dice, topics: Mapping[str, str]) -> Request:
    """A request that no tool is for; ``topics`` are what humans are there for, with what customers say of it."""
    topic, opening = dice.pick(list(topics.items()))
    return Request(opening, {}, (call("transfer_to_human", topic=topic),))


def drawn(kinds: Sequence[Kind[W]], human: Kind[W], dice: Dice, split: str, index: int) -> tuple[Kind[W], ...]:
    """One kind, or two: in ``train`` two that lie one or two apart in ``kinds``, in ``valid`` three or four.

    One in twelve customers needs a human.
    """
    if index % 12 == 10:
        return (human,)
    first = dice.below(len(kinds))
    if not dice.chance(0.5):
        return (kinds[first],)
    step = dice.between(1, 2) if split == "train" else dice.between(3, 4)
    return kinds[first], kinds[(first + step) % len(kinds)]


def is_impostor(index: int) -> bool:
    """One in twelve customers cannot identify themselves."""
    return index % 12 == 11


def concluded(
    index: int,
    kinds: Sequence[str],
    requests: Sequence[Request],
    db: Database,
    identity: Mapping[str, str],
    look: Call,
    rule: str,
) -> Scenario:
    """The case of a task: ``look`` is the call that shows who the customer is, ``rule`` forbids to serve an impostor."""
    first, *more = requests
    if is_impostor(index):
        plea = "But it is me! Can you not just do it?"
        first = refused(first.opening, first.facts, rule, look, about=first.about, plea=plea)
        return Scenario(db, identity, (first,), ("impostor",))
    if kinds == ["human"]:
        return Scenario(db, {}, (first,), tuple(kinds))
    return Scenario(db, identity, (replace(first, plan=(look, *first.plan)), *more), tuple(kinds))
