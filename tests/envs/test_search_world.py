"""Generated worlds: drawn from names alone, and questions that take several lookups."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from turnwise_envs.dice import Dice
from turnwise_envs.scoring import exact_match, mentions, normalise
from turnwise_envs.search import Search, search
from turnwise_envs.search.generate import draw_world
from turnwise_envs.search.questions import draw_question
from turnwise_envs.search.tables import RELATIONS
from turnwise_envs.search.world import Entity, Fact, World, WorldSettings

BY_NAME = {relation.name: relation for relation in RELATIONS}
SAMPLE = [("train", index) for index in range(0, 10_000, 67)] + [("valid", index) for index in range(0, 1_000, 13)]


def hand_made() -> World:
    """Ann was taught by Bob, who lives in Sel; Rex wrote the only novel, which is set in Sel."""
    ann, bob = Entity("person", "poet", "Ann", "the Owl"), Entity("person", "judge", "Bob")
    sel, rex = Entity("place", "city", "Sel"), Entity("person", "actor", "Rex")
    tale = Entity("work", "novel", "The Tale")
    facts = [
        Fact(0, BY_NAME["teacher"], ("Bob",), 1),
        Fact(1, BY_NAME["home"], ("Sel",), 2),
        Fact(4, BY_NAME["maker"], ("Rex",), 3),
        Fact(4, BY_NAME["setting"], ("Sel",), 2),
    ]
    return World([ann, bob, sel, rex, tale], facts, brief=False, dice=Dice("hand made"))


def test_all_questions_of_a_world_made_by_hand() -> None:
    world = hand_made()
    one = {draw_question(world, WorldSettings(max_hops=1), Dice(number)) for number in range(300)}
    assert {(problem.question, problem.answers) for problem in one} == {
        ("Who was the teacher of Ann?", ("Bob",)),
        ("Who was the teacher of the Owl?", ("Bob",)),
        ("Where does Bob live?", ("Sel",)),
        ("Who wrote The Tale?", ("Rex",)),
        ("Where is The Tale set?", ("Sel",)),
        ("What is the only novel that Rex wrote?", ("The Tale",)),
    }
    two = {draw_question(world, WorldSettings(min_hops=2, max_hops=2), Dice(number)) for number in range(300)}
    # Where the novel by Rex is set stands in the document that also says who wrote it: one lookup, so it is not asked.
    assert {(problem.question, problem.answers) for problem in two} == {
        ("Where does the teacher of Ann live?", ("Sel",)),
        ("Where does the teacher of the Owl live?", ("Sel",)),
    }
    (problem,) = [problem for problem in two if "Ann" in problem.question]
    assert [world.corpus[piece.document].title for piece in problem.evidence] == ["Ann", "Bob"]
    assert [lookup.queries for lookup in problem.plan] == [("Ann pupil taught", "Ann"), ("Bob lives", "Bob")]


def test_comparisons_name_neither_of_the_two() -> None:
    years = (("Sel", 1900), ("Nor", 1850))
    places = [Entity("place", "city", name) for name, _ in years]
    people = [Entity("person", "poet", name) for name in ("Ann", "Bob")]
    facts = [Fact(n, BY_NAME["charter"], (str(year),), order=year) for n, (_, year) in enumerate(years)]
    facts += [Fact(2, BY_NAME["home"], ("Sel",), 0), Fact(3, BY_NAME["home"], ("Nor",), 1)]
    world = World([*places, *people], facts, brief=False, dice=Dice("charters"))
    found = {draw_question(world, WorldSettings(min_hops=4), Dice(number)) for number in range(60)}
    asked = {(problem.question, problem.answers) for problem in found if problem.kind == "comparison"}
    a, b = "the place where Ann lives", "the place where Bob lives"
    assert asked == {
        (f"Which received its charter {first}, {one} or {other}?", (answer,))
        for first, answer in (("earlier", "Nor"), ("later", "Sel"))
        for one, other in ((a, b), (b, a))
    }


def test_worlds_are_drawn_from_their_names() -> None:
    settings = WorldSettings()
    texts = [[doc.text for doc in draw_world(settings, *name).corpus] for name in [("train", 0)] * 2 + [("train", 1)]]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 180


def test_each_name_means_one_thing() -> None:
    for number in range(3):
        names = [
            normalise(name) for entity in draw_world(WorldSettings(), "valid", number).entities for name in entity.names
        ]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["", "easy"])
def test_questions_take_their_lookups(name: str) -> None:
    tasks = search(name).tasks
    for split, index in SAMPLE:
        problem, corpus = tasks.problem(split, index), tasks.library(split, index).corpus
        assert 1 <= problem.hops == len(problem.evidence) == len(problem.plan) <= 4
        assert len({piece.document for piece in problem.evidence}) == problem.hops
        for answer in problem.answers:
            shared = set(normalise(answer).split()) & set(normalise(problem.question).split())
            assert not shared - {"of", "in", "on", "and", "to"}, problem
        shown = [corpus[piece.document].opening(piece.words).removesuffix(" …") for piece in problem.evidence]
        if problem.kind == "chain":
            assert [mentions(text, problem.answers) for text in shown] == [False] * (problem.hops - 1) + [True]
        before = " ".join(problem.question.split())
        for lookup, text in zip(problem.plan, shown, strict=True):
            # What the expert searches for has been read before: the name is in the question, or in earlier evidence.
            assert mentions(before, [lookup.queries[-1]]), problem
            before += f" {text}"


def test_the_question_alone_does_not_do() -> None:
    tasks = Search.tasks
    problems = {at: tasks.problem(*at) for at in SAMPLE}
    assert {problem.hops for problem in problems.values()} == {1, 2, 3, 4}
    assert {problem.kind for problem in problems.values()} == {"chain", "comparison"}
    commonest = Counter(problem.answers[0] for problem in problems.values()).most_common(1)[0][1]
    assert commonest / len(problems) < 0.04
    several = {at: problem for at, problem in problems.items() if problem.hops > 1}
    at_once = 0
    for at, problem in several.items():
        shown = set(tasks.library(*at).search(problem.question, 3))
        at_once += shown >= {piece.document for piece in problem.evidence}
    assert at_once / len(several) < 0.05


def test_what_one_world_taught_is_wrong_in_the_next() -> None:
    """Looking a question of one world up in another finds other people, or other answers."""
    tasks = search("easy").tasks
    right = 0
    for index in range(0, 400, 4):
        problem = tasks.problem("train", index)
        if problem.hops == 1:
            there = tasks.library("train", index + 4).corpus
            number = there.find(problem.plan[0].queries[0])
            right += number is not None and any(
                exact_match(word, problem.answers) for word in there[number].text.replace(".", "").split()
            )
    assert right < 20


def test_years_are_compared_as_they_are_written() -> None:
    world = draw_world(WorldSettings(), "train", 0)
    dated = [f for n in range(len(world.entities)) for f in world.facts_of(n) if f.relation.name == "birthday"]
    written = sorted((fact.order, fact.says[2]) for fact in dated)
    assert all(one <= other for (_, one), (_, other) in pairwise(written))
    day, month, year = dated[0].says[0].split()
    assert dated[0].says[1] == f"{month} {day}, {year}"


def test_a_world_without_questions_is_refused() -> None:
    lonely = World([Entity("place", "city", "Sel")], [], brief=True, dice=Dice(0))
    with pytest.raises(ValueError, match="needs more entities or relations"):
        draw_question(lonely, WorldSettings(max_hops=1), Dice(0))
