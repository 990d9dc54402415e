"""A generated world: people, works, places and organisations, what is true of them, and the documents that say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from turnwise_envs.dice import Dice
from turnwise_envs.search.corpus import Corpus, Document
from turnwise_envs.search.tables import SORTS, Kind, Relation


class WorldSettings(BaseModel):
    """How large and how hard a world is.

    ``brief``: short names, no aliases, a document is a list of catchwords. ``relations``: only these (None: all).
    ``questions_per_world``: so many tasks in a row share a world, and with it one index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: int = Field(default=80, ge=4, le=400)
    works: int = Field(default=50, ge=0, le=400)
    places: int = Field(default=30, ge=2, le=50)
    organisations: int = Field(default=20, ge=0, le=100)
    max_hops: int = Field(default=4, ge=1, le=4)
    min_hops: int = Field(default=1, ge=1, le=4)
    relations: tuple[str, ...] | None = None
    brief: bool = False
    questions_per_world: int = Field(default=250, ge=1)


@dataclass(frozen=True)
class Entity:
    """Something with a document of its own. ``alias`` is another name that its document gives."""

    kind: Kind
    sort: str
    name: str
    alias: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, self.alias) if self.alias else (self.name,)


@dataclass(frozen=True)
class Fact:
    """``subject`` (an entity's number) stands in ``relation`` to the entity ``object``, or to a value.

    ``says`` are all right ways to write the object, the usual one first; ``order`` compares dates and years.
    """

    subject: int
    relation: Relation
    says: tuple[str, ...]
    object: int | None = None
    order: int = 0


class World:
    """Entities and facts; each fact stands in one sentence of its subject's document, which has the same number."""

    def __init__(self, entities: Sequence[Entity], facts: Sequence[Fact], brief: bool, dice: Dice) -> None:
        self.entities = tuple(entities)
        self.brief = brief
        self._facts: list[list[Fact]] = [[] for _ in entities]
        for fact in facts:
            self._facts[fact.subject].append(fact)
        self._words_needed: dict[tuple[int, str], int] = {}
        self.corpus = Corpus([self._document(number, dice) for number in range(len(entities))])

    def facts_of(self, entity: int) -> Sequence[Fact]:
        """What this entity's document says."""
        return self._facts[entity]

    def words_needed(self, fact: Fact) -> int:
        """How many words of its document one must have read to know ``fact``."""
        return self._words_needed[fact.subject, fact.relation.name]

    @cached_property
    def singular(self) -> Mapping[int, Sequence[Fact]]:
        """By object: the facts that can be asked backwards, since no other subject of that sort is in that relation.

        A brief world asks forwards only: its questions name what there is a document about.
        """
        sharing: dict[tuple[int, str, str], list[Fact]] = {}
        for facts in self._facts:
            for fact in facts:
                if fact.object is not None and fact.relation.back_phrase and not self.brief:
                    sort = self.entities[fact.subject].sort if "{sort}" in fact.relation.back_phrase else ""
                    sharing.setdefault((fact.object, fact.relation.name, sort), []).append(fact)
        found: dict[int, list[Fact]] = {}
        for (entity, _, _), alike in sharing.items():
            if len(alike) == 1:
                found.setdefault(entity, []).append(alike[0])
        return found

    def worded(self, template: str, fact: Fact, **ends: str) -> str:
        """A template of the fact's relation, with the words of the subject's sort; ``s`` and ``o`` default to names."""
        subject = self.entities[fact.subject]
        words = SORTS[subject.kind][subject.sort]
        return template.format(**{"s": subject.name, "o": fact.says[0], "sort": subject.sort, **words, **ends})

    def _document(self, number: int, dice: Dice) -> Document:
        entity, facts = self.entities[number], dice.shuffled(self._facts[number])
        if self.brief:
            sentences = [f"{self.worded(fact.relation.brief, fact)}." for fact in facts]
        else:
            article = "an" if entity.sort[0] in "aeiou" else "a"
            known = f", also known as {entity.alias}," if entity.alias else ""
            sentences = [f"{entity.name}{known} is {article} {entity.sort}."]
            sentences += [self.worded(dice.pick(fact.relation.says), fact) for fact in facts]
        document = Document(f"d{number}", entity.name, tuple(sentences))
        for position, fact in enumerate(facts, start=len(sentences) - len(facts)):
            self._words_needed[number, fact.relation.name] = document.reach(position)
        return document
