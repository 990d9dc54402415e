"""Questions from files: our own JSON lines, FlashRAG's (Search-R1), HotpotQA's and its relatives'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from turnwise_envs.search.corpus import Corpus, CorpusError, read_corpus, read_json, read_lines
from turnwise_envs.search.library import Library
from turnwise_envs.search.problem import Evidence, Lookup, Problem
from turnwise_envs.search.retrievers import RetrieverKind
from turnwise_envs.search.tasks import SearchTasks
from turnwise_envs.types import EnvSpec

#: The split of questions that name none.
DEFAULT_SPLIT = "train"
_ANSWERS = ("answers", "golden_answers", "answer")


class Question(NamedTuple):
    """A question, before its corpus is read. ``evidence``: titles or ids, each with the number of a sentence or None."""

    text: str
    answers: tuple[str, ...]
    evidence: tuple[tuple[str, int | None], ...]
    kind: str


class FileTasks(SearchTasks):
    """Questions by split over a corpus, which is read and indexed when the first of them is asked."""

    def __init__(
        self,
        spec: EnvSpec,
        questions: Mapping[str, Sequence[Question]],
        corpus: str,
        kind: RetrieverKind,
        model: str | None,
    ) -> None:
        super().__init__(spec)
        self._questions = questions
        self._library = lru_cache(maxsize=1)(lambda: Library(read_corpus(corpus), kind, model))

    def problem(self, split: str, index: int) -> Problem:
        """Evidence that the corpus does not have is left out; the expert looks for each piece by its title."""
        question = self._questions[split][index]
        evidence = tuple(_evidence(self._library().corpus, question))
        titles = [self._library().corpus[piece.document].title for piece in evidence]
        return Problem(
            question=question.text,
            answers=question.answers,
            evidence=evidence,
            plan=tuple(Lookup((question.text, title), piece) for title, piece in zip(titles, evidence, strict=True)),
            kind=question.kind,
            hops=max(1, len({piece.document for piece in evidence})),
        )

    def library(self, split: str, index: int) -> Library:
        return self._library()


def read_questions(path: str) -> dict[str, list[Question]]:
    """Questions by split, in the file's order.

    A line of a ``.jsonl`` file, or an entry of a ``.json`` list, has a ``question``; its ``answers``,
    ``golden_answers`` (lists) or ``answer``; and may have a ``split`` (else it is in ``train``), a ``type``, and evidence:
    ``evidence`` (titles or ids of documents) or ``supporting_facts`` (pairs of a title and a sentence's number).

    Raises CorpusError.
    """
    where = Path(path)
    rows = enumerate(read_json(where), start=1) if where.suffix == ".json" else read_lines(where)
    found: dict[str, list[Question]] = {}
    for number, row in rows:
        split = row.get("split", DEFAULT_SPLIT)
        if not isinstance(split, str) or not split:
            raise CorpusError(f"{where.name}, question {number}: expected a name as split, not {split!r}")
        found.setdefault(split, []).append(_question(row, f"{where.name}, question {number}"))
    if not found:
        raise CorpusError(f"{path} has no questions")
    return found


def _question(row: dict[str, Any], where: str) -> Question:
    given = next((row[key] for key in _ANSWERS if key in row), None)
    answers = [given] if isinstance(given, str) else given
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        raise CorpusError(f'{where}: expected a "question"')
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise CorpusError(f'{where}: expected "answers" (a list of texts) or "answer"')
    evidence: list[tuple[str, int | None]] = []
    for piece in row.get("supporting_facts", row.get("evidence", [])):
        match piece:
            case str(name):
                evidence.append((name, None))
            case [str(title), int(sentence)]:
                evidence.append((title, sentence))
            case _:
                raise CorpusError(f"{where}: expected titles, or pairs of a title and a sentence's number, as evidence")
    return Question(row["question"].strip(), tuple(answers), tuple(evidence), str(row.get("type", "question")))


def _evidence(corpus: Corpus, question: Question) -> Iterator[Evidence]:
    for name, sentence in question.evidence:
        number = corpus.find(name)
        if number is not None:
            document = corpus[number]
            yield Evidence(number, len(document.words) if sentence is None else document.reach(sentence))
