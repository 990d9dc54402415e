"""Questions about a generated world: chains of one to four facts, forwards and backwards, and comparisons.

A question names only where its chain begins. Each fact of it stands in another document, no word of the answer is in
the question, and no document but the last gives the answer: so it takes as many lookups as it has hops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from turnwise_envs.dice import Dice
from turnwise_envs.scoring import mentions, normalise
from turnwise_envs.search.problem import Evidence, Lookup, Problem
from turnwise_envs.search.world import Fact, World, WorldSettings

#: Comparisons take four lookups; where four are allowed, this share of such questions are comparisons.
COMPARISONS = 0.5
#: How often a chain begins at an entity's other name, if it has one.
OTHER_NAME = 0.4
_COMMON_WORDS = frozenset(("of", "in", "on", "and", "to", "is", "was"))


class Hop(NamedTuple):
    """One fact, read from its subject to its object, or backwards."""

    fact: Fact
    back: bool

    @property
    def target(self) -> int | None:
        """The entity it leads to; None if it ends in a value."""
        return self.fact.subject if self.back else self.fact.object


def draw_question(world: World, settings: WorldSettings, dice: Dice) -> Problem:
    """A question with its answers, the evidence, and how an expert would find it."""
    hops = dice.between(min(settings.min_hops, settings.max_hops), settings.max_hops)
    compare = hops == 4 and dice.chance(COMPARISONS)
    for attempt in range(_PATIENCE):
        if attempt and attempt % _TRIES == 0:
            compare, hops = False, hops if compare else max(1, hops - 1)  # this world has no such question
        found = _comparison(world, dice) if compare else _chain_question(world, hops, dice)
        if found and _is_honest(found, world):
            return found
    raise ValueError("a world with these settings has no questions: it needs more entities or relations")


_TRIES = 200
_PATIENCE = 5 * _TRIES


def _chain_question(world: World, length: int, dice: Dice) -> Problem | None:
    start, mention = _begin(world, dice)
    hops = _walk(world, start, length, dice)
    if hops is None:
        return None
    said = mention
    for hop in hops[:-1]:
        said = _described(world, hop, said)
    last = hops[-1]
    template = last.fact.relation.back_question if last.back else last.fact.relation.question
    return Problem(
        question=world.worded(template, last.fact, **{"o" if last.back else "s": said}),
        answers=_answers(world, last),
        evidence=tuple(_evidence(world, hop) for hop in hops),
        plan=_lookups(world, hops, mention),
        kind="chain",
        hops=length,
    )


def _comparison(world: World, dice: Dice) -> Problem | None:
    """Which of two described entities comes first; neither is named."""
    branches: list[tuple[str, Hop, Fact, str]] = []
    relation = None
    for _ in range(2):
        start, mention = _begin(world, dice)
        hops = _walk(world, start, 1, dice, on=True)
        if hops is None or hops[0].target is None:
            return None
        dated = [fact for fact in world.facts_of(hops[0].target) if fact.relation.compare]
        if not dated or relation not in (None, dated[0].relation):
            return None
        relation = dated[0].relation
        branches.append((mention, hops[0], dated[0], _described(world, hops[0], mention)))
    assert relation is not None
    (_, _, one, a), (_, _, other, b) = branches
    if one.order == other.order:
        return None
    earlier = dice.chance(0.5)
    winner = one if (one.order < other.order) == earlier else other
    loser = other if winner is one else one
    question = relation.compare.format(first="earlier" if earlier else "later", a=a, b=b)
    if mentions(question, world.entities[loser.subject].names):
        return None
    return Problem(
        question=question,
        answers=world.entities[winner.subject].names,
        evidence=tuple(_evidence(world, hop) for _, to, dated, _ in branches for hop in (to, Hop(dated, False))),
        plan=tuple(
            lookup for mention, to, dated, _ in branches for lookup in _lookups(world, [to, Hop(dated, False)], mention)
        ),
        kind="comparison",
        hops=4,
    )


def _begin(world: World, dice: Dice) -> tuple[int, str]:
    """An entity to begin at, and the name by which the question calls it."""
    start = dice.below(len(world.entities))
    entity = world.entities[start]
    return start, entity.names[-1] if dice.chance(OTHER_NAME) else entity.name


def _walk(world: World, start: int, length: int, dice: Dice, on: bool = False) -> list[Hop] | None:
    """A random chain of facts, no two in one document; ``on``: it must not end in a value."""
    at, hops, read = start, list[Hop](), set[int]()
    visited = {start}
    for number in range(length):
        last = number == length - 1 and not on
        ways = [Hop(fact, False) for fact in world.facts_of(at)]
        ways += [Hop(fact, True) for fact in world.singular.get(at, ())]
        ways = [
            hop
            for hop in ways
            if hop.fact.subject not in read and (last if hop.target is None else hop.target not in visited)
        ]
        if not ways:
            return None
        hop = dice.pick(ways)
        hops.append(hop)
        read.add(hop.fact.subject)
        if hop.target is not None:
            at = hop.target
            visited.add(at)
    return hops


def _described(world: World, hop: Hop, said: str) -> str:
    template = hop.fact.relation.back_phrase if hop.back else hop.fact.relation.phrase
    return world.worded(template, hop.fact, **{"o" if hop.back else "s": said})


def _answers(world: World, hop: Hop) -> tuple[str, ...]:
    return world.entities[hop.fact.subject].names if hop.back else hop.fact.says


def _evidence(world: World, hop: Hop) -> Evidence:
    return Evidence(hop.fact.subject, world.words_needed(hop.fact))


def _lookups(world: World, hops: Sequence[Hop], mention: str) -> tuple[Lookup, ...]:
    """For each hop, what to search for, knowing only what the hops before have shown."""
    plan, name = [], mention
    for hop in hops:
        words = world.worded(hop.fact.relation.lookup, hop.fact)
        if hop.back:
            words = f"{world.entities[hop.fact.subject].sort} {words}"
        queries = (name,) if world.brief else (f"{name} {words}", name)
        plan.append(Lookup(queries, _evidence(world, hop)))
        if hop.target is not None:
            name = world.entities[hop.target].name
    return tuple(plan)


def _is_honest(problem: Problem, world: World) -> bool:
    """Several lookups are needed: no word of the answer is in the question, and no earlier document has it."""
    asked = set(normalise(problem.question).split()) - _COMMON_WORDS
    if any(asked & set(normalise(answer).split()) for answer in problem.answers):
        return False
    documents = [evidence.document for evidence in problem.evidence]
    if len(set(documents)) < len(documents):
        return False
    earlier = documents[:-1] if problem.kind == "chain" else []
    return not any(mentions(world.corpus[number].text, problem.answers) for number in earlier)
