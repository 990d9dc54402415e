"""What the generated worlds are made of: names, and the relations between people, works, places and organisations.

Everything else of the generator is rules over these tables. No name here is that of a real thing on purpose: what a
policy learned elsewhere must not help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["person", "work", "place", "organisation"]
KINDS: tuple[Kind, ...] = ("person", "work", "place", "organisation")

#: What the object of a relation can be besides an entity.
Value = Literal["date", "year", "river"]


@dataclass(frozen=True)
class Relation:
    """Something that each ``subject`` has exactly one of. ``{s}`` and ``{o}`` stand for the two ends.

    ``{verb}``, ``{made}``, ``{maker}`` and ``{sort}`` are words of the subject's sort (a novel is written, by an
    author). ``brief`` is the fact in as few words as possible. ``phrase`` names the object by the subject, ``question``
    asks for it; ``back_phrase`` and ``back_question`` go the other way, for subjects that are the only one of their
    object. ``compare`` asks which of two subjects comes first; ``lookup`` is what one would search for.
    """

    name: str
    subject: Kind
    object: Kind | Value
    says: tuple[str, ...]
    brief: str
    question: str
    lookup: str
    phrase: str = ""
    back_phrase: str = ""
    back_question: str = ""
    compare: str = ""

    @property
    def leads_on(self) -> bool:
        """Whether its object is an entity."""
        return self.object in KINDS


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "teacher", "person", "person", ("{s} was a pupil of {o}.", "It was {o} who taught {s}."), "{s} teacher {o}",
        "Who was the teacher of {s}?", "pupil taught", "the teacher of {s}",
    ),
    Relation(
        "home", "person", "place", ("{s} lives in {o}.", "{s} has a house in {o}."), "{s} home {o}",
        "Where does {s} live?", "lives", "the place where {s} lives",
    ),
    Relation(
        "birthplace", "person", "place", ("{s} was born in {o}.", "{s} is a native of {o}."), "{s} native of {o}",
        "Where was {s} born?", "born native", "the birthplace of {s}",
    ),
    Relation(
        "spouse", "person", "person", ("{s} is married to {o}.", "{s} and {o} are a married couple."), "{s} spouse {o}",
        "Who is married to {s}?", "married", "the spouse of {s}",
    ),
    Relation(
        "employer", "person", "organisation", ("{s} works for {o}.", "{s} is employed by {o}."), "{s} works for {o}",
        "Which organisation does {s} work for?", "works employed", "the employer of {s}",
    ),
    Relation(
        "birthday", "person", "date", ("{s} was born on {o}.", "The birth of {s} fell on {o}."), "{s} born {o}",
        "On what date was {s} born?", "born", compare="Who was born {first}, {a} or {b}?",
    ),
    Relation(
        "maker", "work", "person", ("{s} was {made} by {o}.", "{o} {verb} {s}."), "{s} {maker} {o}",
        "Who {verb} {s}?", "{verb} {made}", "the {maker} of {s}",
        "the only {sort} that {o} {verb}", "What is the only {sort} that {o} {verb}?",
    ),
    Relation(
        "setting", "work", "place", ("{s} is set in {o}.", "{s} takes place in {o}."), "{s} set in {o}",
        "Where is {s} set?", "set place", "the place where {s} is set",
    ),
    Relation(
        "dedication", "work", "person", ("{s} is dedicated to {o}.", "{s} bears a dedication to {o}."),
        "{s} dedicated to {o}", "To whom is {s} dedicated?", "dedicated", "the person to whom {s} is dedicated",
    ),
    Relation(
        "model", "work", "work", ("{s} is based on {o}.", "{s} takes its story from {o}."), "{s} based on {o}",
        "Which work is {s} based on?", "based story", "the work that {s} is based on",
    ),
    Relation(
        "appearance", "work", "year", ("{s} came out in {o}.", "{s} first appeared in {o}."), "{s} came out {o}",
        "In which year did {s} come out?", "came out appeared", compare="Which came out {first}, {a} or {b}?",
    ),
    Relation(
        "mayor", "place", "person", ("The mayor of {s} is {o}.", "{s} elected {o} as its mayor."), "{s} mayor {o}",
        "Who is the mayor of {s}?", "mayor", "the mayor of {s}",
        "the place whose mayor is {o}", "Of which place is {o} the mayor?",
    ),
    Relation(
        "twin", "place", "place", ("{s} is twinned with {o}.", "The twin town of {s} is {o}."), "{s} twin {o}",
        "Which place is {s} twinned with?", "twin", "the twin town of {s}",
    ),
    Relation(
        "river", "place", "river", ("{s} lies on the {o}.", "The {o} flows through {s}."), "{s} river {o}",
        "Which river does {s} lie on?", "lies flows river",
    ),
    Relation(
        "charter", "place", "year", ("{s} received its charter in {o}.", "The charter of {s} dates from {o}."),
        "{s} charter {o}", "In which year did {s} receive its charter?", "charter",
        compare="Which received its charter {first}, {a} or {b}?",
    ),
    Relation(
        "founder", "organisation", "person", ("{s} was founded by {o}.", "{o} founded {s}."), "{s} founder {o}",
        "Who founded {s}?", "founded", "the founder of {s}",
        "the organisation that {o} founded", "Which organisation did {o} found?",
    ),
    Relation(
        "head", "organisation", "person", ("{s} is headed by {o}.", "At the head of {s} is {o}."), "{s} head {o}",
        "Who is the head of {s}?", "head", "the head of {s}",
    ),
    Relation(
        "seat", "organisation", "place", ("{s} has its seat in {o}.", "The offices of {s} are in {o}."), "{s} seat {o}",
        "Where does {s} have its seat?", "seat offices", "the place where {s} has its seat",
    ),
    Relation(
        "foundation", "organisation", "year", ("{s} was established in {o}.", "{s} opened its doors in {o}."),
        "{s} established {o}", "In which year was {s} established?", "established opened",
        compare="Which was established {first}, {a} or {b}?",
    ),
)  # fmt: skip

#: Sorts of each kind, with the words that relations take from them.
SORTS: dict[Kind, dict[str, dict[str, str]]] = {
    "person": {
        sort: {} for sort in ("poet", "painter", "engineer", "botanist", "actor", "cellist", "chemist", "judge")
    },
    "work": {
        "novel": {"verb": "wrote", "made": "written", "maker": "author"},
        "film": {"verb": "directed", "made": "directed", "maker": "director"},
        "opera": {"verb": "composed", "made": "composed", "maker": "composer"},
        "mural": {"verb": "painted", "made": "painted", "maker": "painter"},
    },
    "place": {sort: {} for sort in ("city", "port", "market town", "mining town", "spa")},
    "organisation": {sort: {} for sort in ("academy", "publisher", "orchestra", "shipping line", "brewery", "museum")},
}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words("""
    Ada Bo Cy Dora Eli Fay Gus Hal Ida Jon Kim Leo Mia Ned Ola Pam Quin Ray Sue Tom Uma Vic Wes Zoe
    Alba Boris Clara Dario Edith Felix Greta Henrik Irena Jasper Katya Lorenz Marta Nils Odette Pavel Rosa Stefan
    Thea Ulrich Vera Wanda Xenia Yusuf
""")
LAST_NAMES = _words("""
    Abbot Bellamy Carrow Dunmore Ekberg Fallow Garrick Hollin Iversen Jorrit Kessel Lanyon Marlow Norrby Osmond Pellew
    Quillan Ravel Sandor Tarrant Ullman Varga Wexley Yarrow Zeller Ashdown Brandt Corvin Delacourt Eastlake
""")
PLACE_NAMES = _words("""
    Alm Bray Cole Dunn Esk Ford Glen Hove Ilk Jura Kell Lunn Mora Nore Orm Pitt Rye Sark Tarn Ust
    Arvenmouth Belcastro Cornhaven Drummel Eldersfield Fennick Gravelines Harrowgard Istelburg Jansby Kirrin Lindholm
    Marrowby Northam Ostrevant Pellworth Quernmore Rostow Silverton Tolland Umberleigh Varnholt Westray Yarmoor Zandt
    Ambleford Brigston Calderon Dovrefell Ettrick
""")
RIVERS = _words("""
    Aller Bure Calder Dart Ems Fal Glane Hull Isar Jade Kent Lahn Mole Naab Ouse Piave Ribble Saale Tavy Usk Vils Wye
    Yare Zusam Avon Brenta Cam Drava Exe Frome
""")
ADJECTIVES = _words("""
    Silver Hollow Crimson Quiet Golden Broken Distant Winter Hidden Burning Gentle Narrow Salt Amber Velvet Northern
    Paper Iron Restless Second Pale Wild Sleeping Copper
""")
NOUNS = _words("""
    Door River Garden Lantern Orchard Mirror Harbour Crown Letter Forest Bridge Clock Island Shadow Feather Tower
    Meadow Key Sparrow Violin Storm Map Candle Anchor
""")
NICKNAMES = _words("""
    Heron Badger Otter Falcon Lynx Marten Wren Raven Stoat Adder Pike Swift Crane Hare Moth Viper
""")
ORGANISATION_NAMES = _words("""
    Meridian Halcyon Beacon Cobalt Juniper Argent Summit Pioneer Atlas Keystone Lodestar Heritage Crescent Union
    Concord Sterling Laurel Granite Compass Horizon Phoenix Regent Castle Trident
""")
