"""Where problems and databases come from: a generated collection, or a folder of Spider or BIRD (:mod:`.folders`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

from turnwise_envs.dice import Dice
from turnwise_envs.sql import questions, windows
from turnwise_envs.sql.compare import is_ordered, normal
from turnwise_envs.sql.domains import DOMAINS, SEEN, UNSEEN
from turnwise_envs.sql.generate import TODAY, build
from turnwise_envs.sql.questions import Ask, Draft, NothingFits
from turnwise_envs.sql.sandbox import Outcome, Sandbox
from turnwise_envs.sql.statement import tokens

#: A database by name, pool and number, or by name and file.
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Problem:
    """A question, its gold SQL, and the databases that an answer is scored on; the policy sees the first of them.

    ``writes`` is the table that the gold statement changes, None for a query. ``hint`` is knowledge that belongs to the
    question (BIRD's evidence). ``difficulty`` is from 0 to 1.
    """

    question: str
    gold: str
    databases: tuple[Key, ...]
    family: str
    difficulty: float
    writes: str | None = None
    hint: str = ""

    @property
    def ordered(self) -> bool:
        return is_ordered(self.gold) and self.writes is None


class Library(ABC):
    """Problems by split and index, and the databases that they are about."""

    @abstractmethod
    def problem(self, split: str, index: int) -> Problem:
        """The problem at ``index`` of a split."""

    @abstractmethod
    def database(self, key: Key) -> Sandbox:
        """The database, read-only and shared by everybody in this process."""

    def about(self, key: Key) -> str:
        """What the database is, in a sentence; may be empty."""
        return ""

    def notes(self, key: Key, table: str) -> tuple[tuple[str, str], ...]:
        """What is known of the table's columns beyond the schema: pairs of a column's name in lower case and a remark."""
        return ()


#: Split, domains, pool of databases, databases in it, size of the split.
SPLITS = (
    ("train", SEEN, "train", 6, 5000),
    ("valid", SEEN, "valid", 3, 500),
    ("valid_unseen", UNSEEN, "unseen", 4, 500),
)
#: Databases that an answer is scored on.
INSTANCES = 3

FAMILIES = (
    questions.count,
    questions.names,
    questions.aggregate,
    questions.top,
    questions.different,
    questions.percentage,
    questions.join_count,
    questions.join_list,
    questions.group_count,
    questions.group_join,
    questions.having,
    questions.most,
    questions.per_year,
    questions.childless,
    questions.above_average,
    questions.above_peers,
    questions.both,
    questions.chain,
    questions.only,
    questions.role_count,
    windows.best_of_each,
    windows.running_total,
    windows.change,
    windows.latest,
    windows.share,
    windows.raise_numbers,
    windows.remove,
    windows.add,
)


class Generated(Library):
    """The databases and questions that Turnwise makes itself."""

    def problem(self, split: str, index: int) -> Problem:
        return _generated(split, index)

    def database(self, key: Key) -> Sandbox:
        return _built(key)

    def about(self, key: Key) -> str:
        return DOMAINS[key[0]].about


@lru_cache(maxsize=64)
def _built(key: Key) -> Sandbox:
    name, pool, number = key
    return Sandbox(build(DOMAINS[name], pool, number), today=TODAY)


@lru_cache(maxsize=8192)
def _generated(split: str, index: int) -> Problem:
    domains, pool, count = next((domains, pool, count) for name, domains, pool, count, _ in SPLITS if name == split)
    domain = domains[index % len(domains)]
    shown = index // len(domains) % count
    keys = tuple((domain.name, pool, (shown + offset) % count) for offset in range(INSTANCES))
    attempt = 0
    while True:
        dice = Dice("sql", split, index, attempt)
        attempt += 1
        try:
            draft = dice.pick(FAMILIES)(Ask(domain, dice))
        except NothingFits:
            continue
        if _tells_right_from_wrong(draft, keys):
            return Problem(
                draft.question, draft.sql, keys, draft.family, round(difficulty(draft.sql), 3), writes=draft.writes
            )


def _tells_right_from_wrong(draft: Draft, keys: tuple[Key, ...]) -> bool:
    """The gold has a result to speak of on each database, at little cost, and not the same one on all."""
    found = [trial(_built(key), draft.sql, draft.writes) for key in keys]
    if draft.writes is not None:
        return all(outcome.ok and outcome.changed for outcome in found)
    return all(map(_is_telling, found)) and len({tuple(map(normal, outcome.rows)) for outcome in found}) > 1


def _is_telling(outcome: Outcome) -> bool:
    if not outcome.ok or not 1 <= len(outcome.rows) <= 100:
        return False
    return outcome.rows[0][-1] not in (None, 0, 100.0) or len(outcome.rows) > 1


def trial(database: Sandbox, sql: str, writes: str | None) -> Outcome:
    """Run a statement where it does no harm: one that writes in a copy."""
    if writes is None:
        return database.run(sql)
    copy = database.copy()
    try:
        return copy.run(sql)
    finally:
        copy.close()


#: What makes a statement harder to write, by how much.
_WEIGHTS = {
    "join": 0.12,
    "group": 0.1,
    "having": 0.1,
    "order": 0.05,
    "limit": 0.03,
    "distinct": 0.04,
    "over": 0.25,
    "exists": 0.08,
    "in": 0.05,
    "and": 0.04,
    "where": 0.04,
    "with": 0.1,
    "strftime": 0.05,
    "update": 0.1,
    "delete": 0.05,
    "insert": 0.2,
}


def difficulty(sql: str) -> float:
    """From 0 to 1, by what the gold statement consists of: joins, groups, subqueries, windows."""
    words = [token.text for token in tokens(sql) if token.plain]
    nested = max(0, words.count("select") - 1)
    return min(1.0, 0.05 + 0.15 * nested + sum(_WEIGHTS.get(word, 0.0) for word in words))


def level(value: float) -> str:
    """``easy``, ``medium``, ``hard`` or ``extra``, as Spider names them."""
    return "easy" if value < 0.2 else "medium" if value < 0.35 else "hard" if value < 0.55 else "extra"
