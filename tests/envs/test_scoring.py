"""Exact match and F1, against values worked out by hand from SQuAD's definition."""

from __future__ import annotations

import pytest

from turnwise_envs.scoring import exact_match, f1, mentions, normalise


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The  Old Mill.", "old mill"),
        ("A. B. Smith-Jones", "b smithjones"),  # punctuation goes first, so "A." is then an article
        ("an\nanthem, the THEATRE", "anthem theatre"),
        ("The", ""),
        ("Zürich’s", "zürich’s"),  # only ASCII punctuation, as in the script
    ],
)
def test_normalisation(answer: str, plain: str) -> None:
    assert normalise(answer) == plain


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "score"),
    [
        ("The Old Mill", ["old mill"], 1.0, 1.0),
        ("the mill", ["old mill"], 0.0, 2 / 3),  # 1 common of 1 and 2: 2 * 1 / 3
        ("a b b c", ["b b d"], 0.0, 2 / 3),  # words b, b, c and b, b, d: 2 * 2 / 6
        ("mill", ["tower", "the mill"], 1.0, 1.0),
        ("old mill", ["mill", "old tower house"], 0.0, 2 / 3),
        ("tower", ["mill"], 0.0, 0.0),
        ("", ["mill"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("mill", [], 0.0, 0.0),
    ],
)
def test_the_best_over_gold_answers(prediction: str, answers: list[str], em: float, score: float) -> None:
    assert exact_match(prediction, answers) == em
    assert f1(prediction, answers) == pytest.approx(score, abs=1e-12)


def test_mentions_whole_words() -> None:
    assert mentions("It stands in the Old-Town, near Mill.", ["mill"])
    assert not mentions("The millstone turns.", ["mill"])
    assert not mentions("The a.", ["the"])
    assert not mentions("mill", [])
