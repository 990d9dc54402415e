"""Draws a world from a name (split and number) and settings. Names are shared between worlds, facts are not:
what a policy remembers of one world is worthless in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from turnwise_envs.dates import MONTHS
from turnwise_envs.dice import Dice
from turnwise_envs.search.tables import (
    ADJECTIVES,
    FIRST_NAMES,
    KINDS,
    LAST_NAMES,
    NICKNAMES,
    NOUNS,
    ORGANISATION_NAMES,
    PLACE_NAMES,
    RELATIONS,
    RIVERS,
    SORTS,
    Kind,
    Relation,
)
from turnwise_envs.search.world import Entity, Fact, World, WorldSettings

#: Share of people, works and organisations that have a second name.
ALIASES = 0.5
#: Relations that are not true of everybody: what is not in the documents cannot be asked.
COVERAGE = 0.85
YEARS = (1801, 1990)
#: The names at the front of the tables are short; a brief world uses only these.
BRIEF_FIRST_NAMES = 24
BRIEF_PLACES = 20


def draw_world(settings: WorldSettings, split: str, number: int) -> World:
    """World ``number`` of ``split``."""
    dice = Dice("search", split, number, settings.model_dump_json())
    sizes = (settings.people, settings.works, settings.places, settings.organisations)
    entities: list[Entity] = []
    for kind, size in zip(KINDS, sizes, strict=True):
        if not size:
            continue
        names, sorts = _NAMES[kind](dice, settings.brief), tuple(SORTS[kind])
        for _ in range(size):
            sort = dice.pick(sorts)
            name, alias = next(names)
            entities.append(Entity(kind, sort, name, alias if not settings.brief and dice.chance(ALIASES) else None))
    return World(entities, list(_facts(entities, settings, dice)), settings.brief, dice)


def _facts(entities: Sequence[Entity], settings: WorldSettings, dice: Dice) -> Iterator[Fact]:
    for relation in RELATIONS:
        if settings.relations is not None and relation.name not in settings.relations:
            continue
        subjects = [number for number, entity in enumerate(entities) if entity.kind == relation.subject]
        if relation.name == "spouse":
            yield from _couples(relation, subjects, entities, dice)
            continue
        objects = [number for number, entity in enumerate(entities) if entity.kind == relation.object]
        for subject in subjects:
            if not settings.brief and not dice.chance(COVERAGE):
                continue
            if not relation.leads_on:
                says, order = _VALUES[relation.object](dice)
                yield Fact(subject, relation, says, order=order)
            elif others := [number for number in objects if number != subject]:
                other = dice.pick(others)
                yield Fact(subject, relation, entities[other].names, other)


def _couples(relation: Relation, people: Sequence[int], entities: Sequence[Entity], dice: Dice) -> Iterator[Fact]:
    """Marriage goes both ways, and about half of the people are married."""
    order = dice.shuffled(people)
    for one, other in zip(order[: len(order) // 2 : 2], order[1 : len(order) // 2 : 2], strict=False):
        yield Fact(one, relation, entities[other].names, other)
        yield Fact(other, relation, entities[one].names, one)


Names = Iterator[tuple[str, str]]


def _people(dice: Dice, brief: bool) -> Names:
    """A few family names a world, so that people are easily mistaken for each other."""
    if brief:
        return ((name, name) for name in dice.shuffled(FIRST_NAMES[:BRIEF_FIRST_NAMES]))
    families = dice.shuffled(LAST_NAMES)[:12]
    names = dice.shuffled([f"{first} {last}" for first in FIRST_NAMES for last in families])
    nicknames = dice.shuffled([f"{adjective} {animal}" for adjective in ADJECTIVES for animal in NICKNAMES])
    return zip(names, (f"the {nickname}" for nickname in nicknames), strict=False)


def _works(dice: Dice, brief: bool) -> Names:
    """Titles and their translations, all different."""
    titles = dice.shuffled([f"The {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS])
    others = dice.shuffled([f"{noun} of {other}" for noun in NOUNS for other in NOUNS if noun != other])
    return zip(titles, others, strict=False)


def _places(dice: Dice, brief: bool) -> Names:
    names = PLACE_NAMES[:BRIEF_PLACES] if brief else PLACE_NAMES
    return ((name, f"{name} Regis") for name in dice.shuffled(names))


def _organisations(dice: Dice, brief: bool) -> Names:
    """Two words and their initials with a number, since initials alone would be shared."""
    pairs = [(one, other) for one in ADJECTIVES for other in ORGANISATION_NAMES]
    return (
        (f"{one} {other}", f"{one[0]}{other[0]}{number}")
        for number, (one, other) in enumerate(dice.shuffled(pairs), 10)
    )


_NAMES: dict[Kind, Callable[[Dice, bool], Names]] = {
    "person": _people,
    "work": _works,
    "place": _places,
    "organisation": _organisations,
}


def _date(dice: Dice) -> tuple[tuple[str, ...], int]:
    year, month, day = dice.between(*YEARS), dice.between(1, 12), dice.between(1, 28)
    name = MONTHS[month - 1]
    says = (f"{day} {name} {year}", f"{name} {day}, {year}", f"{year}-{month:02d}-{day:02d}")
    return says, year * 10_000 + month * 100 + day


def _year(dice: Dice) -> tuple[tuple[str, ...], int]:
    year = dice.between(*YEARS)
    return (str(year),), year


def _river(dice: Dice) -> tuple[tuple[str, ...], int]:
    return (dice.pick(RIVERS),), 0


_VALUES: dict[str, Callable[[Dice], tuple[tuple[str, ...], int]]] = {"date": _date, "year": _year, "river": _river}
