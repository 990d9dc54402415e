"""What is known about Gymnasium's own small worlds: their rules in words, names of their actions, values in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

#: Outcomes of an action in a state of a tabular world: (probability, next state, reward, end).
Table = dict[int, dict[int, list[tuple[float, int, float, bool]]]]

_TAXI_PLACES = ("R (red)", "G (green)", "Y (yellow)", "B (blue)")


@dataclass(frozen=True)
class Known:
    """``about``: the rules. ``values``: an observation in words. ``end_is``: what an end of itself means."""

    about: str
    actions: tuple[str, ...]
    values: Callable[[Any], str] | None = None
    end_is: Literal["solved", "failed", "by reward"] = "by reward"


def _taxi(state: Any) -> str:
    rest, destination = divmod(int(state), 4)
    rest, passenger = divmod(rest, 5)
    row, column = divmod(rest, 5)
    place = "in the taxi" if passenger == 4 else f"at {_TAXI_PLACES[passenger]}"
    return (
        f"taxi in row {row}, column {column}; passenger {place}; destination {_TAXI_PLACES[destination]} "
        "(R is row 0, column 0; G row 0, column 4; Y row 4, column 0; B row 4, column 3)"
    )


def _blackjack(hand: Any) -> str:
    total, dealer, ace = (int(one) for one in hand)
    return f"your sum {total}{', with a usable ace' if ace else ''}; the dealer shows {'an ace' if dealer == 1 else dealer}"


def _cliff(state: Any) -> str:
    row, column = divmod(int(state), 12)
    return f"you are in row {row}, column {column} (start: row 3, column 0; goal: row 3, column 11; cliff between them)"


_FROZEN_LAKE = Known(
    "Cross a frozen lake from the start S to the goal G over frozen fields F. Whoever steps on a hole H falls in. "
    "The field in colour is yours. The ice may be slippery: then you may slide to a side of where you wanted to go.",
    ("left", "down", "right", "up"),
)
_TAXI = Known(
    "Drive a taxi in a small town with four places, R, G, Y and B: pick the passenger up and drop them off at the "
    "destination. You cannot pass the walls |. A move costs 1, a wrong pick-up or drop-off 10, and the right drop-off "
    "pays 20. The field in colour is the taxi: yellow when empty, green with the passenger; the passenger waits where the "
    "letter is blue, the destination is magenta.",
    ("south", "north", "east", "west", "pickup", "dropoff"),
    _taxi,
)
_CLIFF = Known(
    "Walk from the start, bottom left, to the goal T, bottom right. Between them is a cliff, C: whoever steps on it pays "
    "100 and starts again. Every other step costs 1. You are at x.",
    ("up", "right", "down", "left"),
    _cliff,
    "solved",
)
_BLACKJACK = Known(
    "Blackjack against a dealer: get closer to 21 than the dealer without going over. Face cards count 10, an ace 1 or "
    "11. The dealer draws up to 17.",
    ("stick", "hit"),
    _blackjack,
)
_CART_POLE = Known(
    "Keep the pole on the cart upright. You see the cart's position and velocity, the pole's angle (radians) and angular "
    "velocity. It ends when the pole leans over 12 degrees or the cart is further than 2.4 from the middle.",
    ("push left", "push right"),
    end_is="failed",
)
_MOUNTAIN_CAR = Known(
    "Get the car up the right hill (position 0.5); its engine is too weak to go straight up. You see position and "
    "velocity. Every step costs 1.",
    ("push left", "rest", "push right"),
    end_is="solved",
)

KNOWN: dict[str, Known] = {
    "FrozenLake": _FROZEN_LAKE,
    "FrozenLake8x8": _FROZEN_LAKE,
    "Taxi": _TAXI,
    "CliffWalking": _CLIFF,
    "CliffWalkingSlippery": _CLIFF,
    "Blackjack": _BLACKJACK,
    "CartPole": _CART_POLE,
    "MountainCar": _MOUNTAIN_CAR,
}


def known(env_id: str) -> Known | None:
    """By the id without its version (and without the module that it may begin with)."""
    return KNOWN.get(env_id.rpartition(":")[2].rpartition("-v")[0])


def table_of(world: Any) -> Table | None:
    """The transition table ``P`` of a tabular world whose state is ``s``; None for any other."""
    table = getattr(world, "P", None)
    return table if isinstance(table, dict) and hasattr(world, "s") else None


class BestPolicy:
    """The best action in every state, by value iteration over the table, each turn discounted by ``DISCOUNT``."""

    DISCOUNT = 0.999

    def __init__(self, table: Table) -> None:
        self._table = table
        self._values = dict.fromkeys(table, 0.0)
        change = 1.0
        while change > 1e-7:
            change = 0.0
            for state in table:
                best = max(self._worth(state, action) for action in table[state])
                change = max(change, abs(best - self._values[state]))
                self._values[state] = best

    def __call__(self, state: int) -> int:
        actions = self._table[state]
        return max(actions, key=lambda action: (round(self._worth(state, action), 6), -action))

    def _worth(self, state: int, action: int) -> float:
        return sum(
            float(chance) * (float(reward) + (0.0 if end else self.DISCOUNT * self._values[int(then)]))
            for chance, then, reward, end in self._table[state][action]
        )


_kept: dict[str, BestPolicy] = {}


def best_policy(world: str, table: Table) -> BestPolicy:
    """The policy of the world with this name and table, computed once (of the last worlds that were asked for)."""
    if world not in _kept:
        if len(_kept) >= 64:
            _kept.clear()
        _kept[world] = BestPolicy(table)
    return _kept[world]
