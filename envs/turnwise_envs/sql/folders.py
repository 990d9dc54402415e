"""Spider and BIRD as their authors publish them: a folder with questions in JSON and databases in SQLite files.

Spider: ``train_spider.json``, ``train_others.json``, ``dev.json``, ``test.json``; ``database/DB/DB.sqlite`` (for ``test``,
``test_database`` where there is one). Further ``.sqlite`` files beside it, as its test suites have them, are more
databases with the same schema, and an answer is scored on all of them.

BIRD: ``SPLIT.json`` and ``SPLIT_databases/DB/DB.sqlite`` for ``train``, ``dev`` and ``test``, in the folder itself or in one
called ``SPLIT`` or ``SPLIT_...``; what ``database_description/*.csv`` says of columns is shown with them, and a question's
``evidence`` is its hint.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from turnwise_envs.errors import UnknownEnvironment
from turnwise_envs.sql.library import Key, Library, Problem, difficulty
from turnwise_envs.sql.sandbox import Limits, Sandbox, connect_file

Benchmark = Literal["spider", "bird"]

#: Real databases are large and their gold queries slow: more of everything than generated ones need.
LIMITS = Limits(vm_steps=200_000_000, value_length=1_000_000, seconds=60.0)
#: The clock of databases that come without one.
TODAY = "2024-01-01 00:00:00"

_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "spider": {"train": ("train_spider.json", "train_others.json"), "dev": ("dev.json",), "test": ("test.json",)},
    "bird": {"train": ("train.json",), "dev": ("dev.json",), "test": ("test.json",)},
}
_GOLD = {"spider": "query", "bird": "SQL"}
_DIFFICULTY = {"simple": 0.15, "moderate": 0.4, "challenging": 0.7}
#: Databases of a test suite that an answer is scored on, at most.
_MOST_INSTANCES = 20
_LONGEST_NOTE = 200


class Folder(Library):
    """The problems of one such folder. Raises UnknownEnvironment if it does not look like one."""

    def __init__(self, benchmark: Benchmark, root: Path) -> None:
        self.benchmark = benchmark
        self._problems: dict[str, list[Problem]] = {}
        self._files: dict[tuple[str, str], list[Path]] = {}
        for split, names in _FILES[benchmark].items():
            found = [path for name in names for path in _bases(root, split, name)]
            if found:
                self._problems[split] = [
                    self._read(split, path, number, entry)
                    for path in found
                    for number, entry in enumerate(_entries(path))
                ]
        if not self._problems:
            wanted = ", ".join(name for names in _FILES[benchmark].values() for name in names)
            raise UnknownEnvironment(f"{root} is no folder of {benchmark}: it has none of {wanted}")

    @property
    def sizes(self) -> dict[str, int]:
        """Number of problems a split."""
        return {split: len(problems) for split, problems in self._problems.items()}

    def problem(self, split: str, index: int) -> Problem:
        return self._problems[split][index]

    def database(self, key: Key) -> Sandbox:
        name, split, number = key
        return _opened(self._files[name, split][number])

    def notes(self, key: Key, table: str) -> tuple[tuple[str, str], ...]:
        name, split, _ = key
        return _described(self._files[name, split][0].parent / "database_description", table.lower())

    def _read(self, split: str, path: Path, number: int, entry: Any) -> Problem:
        gold_field = _GOLD[self.benchmark]
        try:
            name, question, gold = (str(entry[each]) for each in ("db_id", "question", gold_field))
        except (KeyError, TypeError) as error:
            raise UnknownEnvironment(
                f"{path}: entry {number} needs db_id, question and {gold_field}, and lacks {error}"
            ) from error
        files = self._instances(path.parent, split, name)
        graded = _DIFFICULTY.get(str(entry.get("difficulty")))
        return Problem(
            question,
            gold,
            tuple((name, split, instance) for instance in range(len(files))),
            self.benchmark,
            round(difficulty(gold), 3) if graded is None else graded,
            hint=str(entry.get("evidence") or ""),
        )

    def _instances(self, base: Path, split: str, name: str) -> list[Path]:
        """The database's file, and its siblings with other contents."""
        if (name, split) not in self._files:
            for folder in (f"{split}_databases", f"{split}_database", "databases", "database"):
                first = base / folder / name / f"{name}.sqlite"
                if first.is_file() and Path(name).name == name:
                    others = sorted(path for path in first.parent.glob("*.sqlite") if path != first)
                    self._files[name, split] = [first, *others[: _MOST_INSTANCES - 1]]
                    break
            else:
                raise UnknownEnvironment(f"database {name!r} of split {split!r} is missing below {base}")
        return self._files[name, split]


def _bases(root: Path, split: str, name: str) -> Iterator[Path]:
    """The first file called ``name`` in the places where it can be."""
    places = [root, root / split, *sorted(root.glob(f"{split}_*"))]
    yield from [place / name for place in places if (place / name).is_file()][:1]


def _entries(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownEnvironment(f"{path} cannot be read: {error}") from error
    if not isinstance(found, list) or not found:
        raise UnknownEnvironment(f"{path} must be a JSON list of questions, and not empty")
    return found


@lru_cache(maxsize=64)
def _opened(path: Path) -> Sandbox:
    return Sandbox(connect_file(path), today=TODAY, limits=LIMITS)


@lru_cache(maxsize=1024)
def _described(folder: Path, table: str) -> tuple[tuple[str, str], ...]:
    """What a CSV file of BIRD says of a table's columns."""
    path = next((path for path in sorted(folder.glob("*.csv")) if path.stem.lower() == table), None)
    if path is None:
        return ()
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = list(csv.DictReader(file))
    notes = []
    for row in rows:
        said = [(row.get(field) or "").strip() for field in ("column_description", "value_description")]
        note = " ".join("; ".join(filter(None, said)).split())[:_LONGEST_NOTE]
        if note:
            notes.append(((row.get("original_column_name") or "").strip().lower(), note))
    return tuple(notes)
