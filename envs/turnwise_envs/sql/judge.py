"""Score a submission by executing it beside the gold statement, on every database of the problem."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from turnwise_envs.sql.compare import Rule, same
from turnwise_envs.sql.library import Key, Library, Problem
from turnwise_envs.sql.sandbox import Outcome, Sandbox


@dataclass(frozen=True)
class Verdict:
    """``executable`` on the database that the policy has seen; ``correct`` on how many of ``databases``."""

    shown: Outcome
    correct: int
    databases: int

    @property
    def executable(self) -> bool:
        return self.shown.ok

    @property
    def solved(self) -> bool:
        return self.correct == self.databases


def judge(library: Library, problem: Problem, sql: str, rule: Rule, instances: int) -> Verdict:
    """Run ``sql`` on the first ``instances`` databases of the problem. Stops at the first one where it is wrong."""
    first, *others = problem.databases[:instances]
    right, shown = _is_right(library, problem, first, sql, rule)
    correct = int(right)
    for key in others:
        right = right and _is_right(library, problem, key, sql, rule)[0]
        correct += right
    return Verdict(shown, correct, 1 + len(others))


def _is_right(library: Library, problem: Problem, key: Key, sql: str, rule: Rule) -> tuple[bool, Outcome]:
    database = library.database(key)
    if problem.writes is not None:
        outcome, contents = _written(database, sql)
        wanted = _written(database, problem.gold)[1]
        right = outcome.ok and all(
            (contents.get(table) or _untouched(database, table)) == (wanted.get(table) or _untouched(database, table))
            for table in contents.keys() | wanted.keys()
        )
        return right, outcome
    outcome = database.run(sql)
    gold = gold_outcome(library, problem, key)
    right = outcome.ok and gold.ok and same(rule, gold.rows, outcome.rows, ordered=problem.ordered)
    return right and (not gold.rows or len(gold.columns) == len(outcome.columns)), outcome


@lru_cache(maxsize=1024)
def gold_outcome(library: Library, problem: Problem, key: Key) -> Outcome:
    """What the gold query gives on one database."""
    return library.database(key).run(problem.gold)


@lru_cache(maxsize=512)
def _written(database: Sandbox, sql: str) -> tuple[Outcome, dict[str, str]]:
    """The outcome of a statement on a copy, and what it leaves in the tables that it wrote to."""
    copy = database.copy()
    try:
        outcome = copy.run(sql)
        return outcome, {table: fingerprint(copy, table) for table in copy.written}
    finally:
        copy.close()


@lru_cache(maxsize=512)
def _untouched(database: Sandbox, table: str) -> str:
    return fingerprint(database, table)


def fingerprint(database: Sandbox, table: str) -> str:
    """Equal for equal rows in equal order; tables with a primary key are in its order."""
    return hashlib.sha256(repr(database.contents(table)).encode(errors="replace")).hexdigest()
