"""Tasks of each category: which functions are shown, what is asked, and which calls are right.

``valid`` shows and asks for functions that ``train`` never has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from turnwise_envs.dice import Dice
from turnwise_envs.tools.calls.library import CHAINS, TRAIN, UNSEEN, Chain, Function, Parameter, Word
from turnwise_envs.tools.calls.matching import Gold
from turnwise_envs.tools_api import Toolbox, clip
from turnwise_envs.types import JsonObject, ToolCall

#: In this order, over and over.
CATEGORIES = (
    "simple", "multiple", "parallel", "parallel_multiple", "multi_turn", "missing", "multiple", "parallel",
    "multi_turn", "irrelevance",
)  # fmt: skip


class Turn(NamedTuple):
    """A message of the user, the calls that answer it, and their results. No calls: none of the functions fits."""

    request: str
    gold: tuple[Gold, ...]
    results: tuple[JsonObject, ...]


@dataclass(frozen=True)
class Case:
    """``missing`` are words that ask for what the first request lacks, and ``supplied`` the user's reply to them."""

    category: str
    functions: tuple[Function, ...]
    turns: tuple[Turn, ...]
    missing: tuple[str, ...] = ()
    question: str = ""
    supplied: str = ""

    def problem(self, call: ToolCall) -> str | None:
        """What is wrong with the form of a call, in one line that teaches; None if it can be run."""
        shown = [one.name for one in self.functions]
        if call.name not in shown and call.parse_error is None:
            return f"There is no function {clip(call.name, 60)!r}. There are: {', '.join(shown)}."
        return _everything().problem(call)


@lru_cache(maxsize=1024)
def case(split: str, index: int) -> Case:
    """The case of a task."""
    dice, category = Dice("calls", split, index), CATEGORIES[index % len(CATEGORIES)]
    library = TRAIN if split == "train" else UNSEEN
    function = dice.pick(library)
    match category:
        case "simple":
            return Case(category, (function,), (_turn(_ask(dice, function)),))
        case "multiple":
            return Case(category, _among(dice, library, function), (_turn(_ask(dice, function)),))
        case "parallel":
            asked = _different(dice, function, dice.between(2, 3))
            return Case(category, _among(dice, library, function), (_turn(*asked),))
        case "parallel_multiple":
            chosen = dice.shuffled(library)[: dice.between(2, 3)]
            asked = [_ask(dice, one) for one in chosen]
            return Case(category, _among(dice, library, *chosen), (_turn(*asked),))
        case "multi_turn":
            return _multi_turn(dice, split, library, function)
        case "missing":
            return _missing(dice, library, function)
        case _:
            others = [one for one in library if one.domain != function.domain]
            shown = tuple(dice.shuffled(others)[: dice.between(1, 3)])
            return Case(category, shown, (Turn(_ask(dice, function).sentence, (), ()),))


class _Asked(NamedTuple):
    """One wish: a sentence and the gold call. ``words`` are the values by parameter."""

    function: Function
    words: dict[str, Word]

    @property
    def sentence(self) -> str:
        return f"{_words(self.function, self.words)}."

    @property
    def gold(self) -> Gold:
        allowed: dict[str, list[Any]] = {}
        for parameter in self.function.parameters:
            word = self.words.get(parameter.name)
            if word is not None:
                allowed[parameter.name] = [word.value, *word.also]
            else:
                allowed[parameter.name] = [parameter.default, ""]
        return Gold(self.function.name, allowed)


def _ask(dice: Dice, function: Function) -> _Asked:
    words: dict[str, Word] = {}
    for parameter in function.parameters:
        if not parameter.optional or dice.chance(0.5):
            taken = {word.value for word in words.values() if isinstance(word.value, str)}
            words[parameter.name] = dice.pick(
                [word for word in parameter.words if word.value != parameter.default and str(word.value) not in taken]
            )
    return _Asked(function, words)


def _words(function: Function, words: dict[str, Word]) -> str:
    said = "".join(one.phrase.format(words[one.name].said) for one in function.parameters if one.name in words)
    return f"{function.opening}{said}"


def _turn(*asked: _Asked) -> Turn:
    first, *rest = (one.sentence for one in asked)
    request = " ".join([first, *(f"Also, {sentence[0].lower()}{sentence[1:]}" for sentence in rest)])
    return Turn(request, tuple(one.gold for one in asked), tuple({"status": "ok"} for _ in asked))


def _different(dice: Dice, function: Function, count: int) -> list[_Asked]:
    """Wishes for one function, no two alike."""
    asked: list[_Asked] = []
    while len(asked) < count:
        one = _ask(dice, function)
        if all(one.words != other.words for other in asked):
            asked.append(one)
    return asked


def _among(dice: Dice, library: tuple[Function, ...], *wanted: Function) -> tuple[Function, ...]:
    """The wanted functions and some others, in any order."""
    others = [one for one in dice.shuffled(library) if one not in wanted][: dice.between(1, 3)]
    return tuple(dice.shuffled([*wanted, *others]))


def _multi_turn(dice: Dice, split: str, library: tuple[Function, ...], function: Function) -> Case:
    """Two turns, of which the second needs the result of the first, or takes the first up again with one change."""
    if dice.chance(0.5):
        chain = dice.pick(CHAINS["train" if split == "train" else "valid"])
        return _chain(dice, library, chain)
    asked = _ask(dice, function)
    changed = dice.pick([one for one in function.parameters if not one.optional and len(one.words) > 1])
    taken = {str(word.value) for word in asked.words.values()}
    word = dice.pick([word for word in changed.words if str(word.value) not in taken])
    again = _Asked(function, {**asked.words, changed.name: word})
    change = Turn(f"Now the same again, but{changed.phrase.format(word.said)}.", (again.gold,), ({"status": "ok"},))
    return Case("multi_turn", _among(dice, library, function), (_turn(asked), change))


def _chain(dice: Dice, library: tuple[Function, ...], chain: Chain) -> Case:
    asked, things = _ask(dice, chain.finds), chain.things(dice)
    best = min(things, key=lambda thing: int(thing[chain.by]))
    first = _turn(asked)._replace(results=({f"{chain.thing}s": things},))
    take = Gold(chain.takes.name, {chain.thing: [best[chain.thing]]})
    turns = (first, Turn(chain.asked, (take,), ({"status": "ok"},)))
    return Case("multi_turn", _among(dice, library, chain.finds, chain.takes), turns)


def _missing(dice: Dice, library: tuple[Function, ...], function: Function) -> Case:
    asked = _ask(dice, function)
    lacking: Parameter = dice.pick([one for one in function.parameters if not one.optional])
    rest = {name: word for name, word in asked.words.items() if name != lacking.name}
    turn = _turn(asked)._replace(request=f"{_words(function, rest)}.")
    supplied = lacking.phrase.format(asked.words[lacking.name].said).strip()
    return Case(
        "missing",
        _among(dice, library, function),
        (turn,),
        (lacking.name, *lacking.asks),
        f"Which {lacking.name}, please?",
        f"Sorry, I forgot: {supplied}.",
    )


@lru_cache(maxsize=1)
def _everything() -> Toolbox:
    """All functions, since compiling their schemas is slow."""
    chains = [one for split in CHAINS.values() for chain in split for one in (chain.finds, chain.takes)]
    return Toolbox([function.spec for function in (*TRAIN, *UNSEEN, *chains)])
