"""Documents, and reading them from files: JSON lines (Search-R1), HotpotQA's questions, or a folder of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from turnwise_envs.errors import TurnwiseError

#: Length of the passages that a folder's files are cut into, in words, as in the usual Wikipedia dumps.
PASSAGE_WORDS = 100
_TEXT_SUFFIXES = {".txt", ".md", ".rst"}


class CorpusError(TurnwiseError):
    """A corpus or question file cannot be read. The text says where and what was expected."""


@dataclass(frozen=True)
class Document:
    """A titled text. What a search shows of it is counted in words from its beginning."""

    id: str
    title: str
    sentences: tuple[str, ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(" ".join(self.sentences).split())

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def opening(self, words: int) -> str:
        """The first so many words, with an ellipsis where something is left out."""
        return self.text if words >= len(self.words) else f"{' '.join(self.words[:words])} …"

    def reach(self, sentence: int) -> int:
        """How many words one must have read to know the sentence of this number; the whole text if it has no such."""
        return len(" ".join(self.sentences[: sentence + 1]).split())


class Corpus:
    """Documents in a fixed order, by position, or by title or id without regard to case."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = tuple(documents)
        self._by_name: dict[str, int] = {}
        for name in ("title", "id"):
            for number, document in enumerate(self._documents):
                self._by_name.setdefault(_plain(getattr(document, name)), number)

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, number: int) -> Document:
        return self._documents[number]

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents)

    def find(self, name: str) -> int | None:
        """The number of the (first) document with this title, or else with this id."""
        return self._by_name.get(_plain(name))


def read_corpus(path: str) -> Corpus:
    """Documents of a file or folder.

    - A ``.jsonl`` file has a document a line: ``{"id", "contents"}``, where the first line of the contents is the title
      in quotes (Search-R1), or ``{"id"?, "title", "text"}``, the text a string or a list of sentences.
    - A ``.json`` file is HotpotQA's: questions with a ``context`` of ``[title, [sentence, ...]]``, each title taken once.
    - A folder's ``.txt``, ``.md`` and ``.rst`` files are cut into passages of 100 words, titled by file name.

    Raises CorpusError.
    """
    where = Path(path)
    if where.is_dir():
        documents = list(_from_folder(where))
    elif where.suffix == ".json":
        documents = list(_from_hotpot(where))
    else:
        documents = [_document(row, f"{where.name}, line {n}", n) for n, row in read_lines(where)]
    if not documents:
        raise CorpusError(f"{path} has no documents")
    return Corpus(documents)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with their line numbers from 1. Raises CorpusError."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise CorpusError(
                            f"{path.name}, line {number}: expected a JSON object, not {line.strip()[:40]}"
                        )
                    yield number, row
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise CorpusError(f"{path.name}, line {number}: not JSON: {error}") from error


def read_json(path: Path) -> list[dict[str, Any]]:
    """A file that holds one JSON list of objects. Raises CorpusError."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CorpusError(f"{path.name}: expected a JSON list of objects")
    return rows


def _document(row: dict[str, Any], where: str, number: int) -> Document:
    if isinstance(row.get("contents"), str):
        title, _, text = row["contents"].partition("\n")
        return Document(str(row.get("id", number)), title.strip().strip('"'), (text or title,))
    text = row.get("text", row.get("sentences"))
    sentences = tuple(text) if isinstance(text, list) else (text,)
    if not isinstance(row.get("title"), str) or not all(isinstance(sentence, str) for sentence in sentences):
        raise CorpusError(f'{where}: expected "contents", or "title" and "text" (a string or a list of sentences)')
    return Document(str(row.get("id", number)), row["title"], sentences)


def _from_hotpot(path: Path) -> Iterator[Document]:
    titles = set()
    for number, row in enumerate(read_json(path)):
        for entry in row.get("context", []):
            match entry:
                case [str(title), [*sentences]] if all(isinstance(sentence, str) for sentence in sentences):
                    if title not in titles:
                        titles.add(title)
                        yield Document(title, title, tuple(sentences))
                case _:
                    raise CorpusError(
                        f"{path.name}, question {number}: expected context [[title, [sentence, ...]], ...]"
                    )


def _from_folder(folder: Path) -> Iterator[Document]:
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _TEXT_SUFFIXES):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            words = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise CorpusError(f"{path} cannot be read: {error}") from error
        for part, begin in enumerate(range(0, len(words), PASSAGE_WORDS), start=1):
            title = name if len(words) <= PASSAGE_WORDS else f"{name} ({part})"
            yield Document(title, title, (" ".join(words[begin : begin + PASSAGE_WORDS]),))


def _plain(name: str) -> str:
    return " ".join(name.split()).lower()
