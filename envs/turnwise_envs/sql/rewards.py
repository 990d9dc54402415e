"""Reward tables: what a submission is worth, after the papers that trained on such rewards.

``outcome``  1 for a right answer, else 0.
``seq2sql``  Zhong et al., 2017 (arXiv 1709.00103): -2 if the query does not run, -1 if its result is wrong, +1 if right.
``reex``     ReEx-SQL (arXiv 2505.12768): format + execution + match + exploration. The paper's terms; its values were not to
             be had, so these are ours and experimental: format 1 or -1, runs 1 or -1, right 3 or 0, and 0.1 for each
             different intermediate query that ran, up to three.
``sparks``   Sparks of Tabular Reasoning (arXiv 2505.00016): a weighted sum of execution match, string match and F1 over
             clauses. Its fourth term, a language model's judgement, is left out; the weights were not to be had and are
             equal, so that 1 is the most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from turnwise_envs.errors import TurnwiseError

Table = Literal["outcome", "seq2sql", "reex", "sparks"]
MOST_EXPLORED = 3


@dataclass(frozen=True)
class Score:
    """What is known of an episode at its end. ``submitted`` is None when nothing was."""

    submitted: str | None
    gold: str
    executable: bool
    solved: bool
    explored: int


def reward(table: Table, score: Score) -> float:
    """What the score is worth under the table. Raises MissingSqlglot for ``sparks`` without sqlglot."""
    if table == "outcome":
        return float(score.solved)
    if table == "seq2sql":
        return 1.0 if score.solved else -1.0 if score.executable else -2.0
    if table == "reex":
        well_formed = 1.0 if score.submitted is not None else -1.0
        runs = 1.0 if score.executable else -1.0
        return well_formed + runs + 3.0 * score.solved + 0.1 * min(score.explored, MOST_EXPLORED)
    given = score.submitted or ""
    return (score.solved + string_match(score.gold, given) + clause_f1(score.gold, given)) / 3


def string_match(gold: str, given: str) -> float:
    """1.0 if the statements are the same but for case, spaces and a final semicolon."""
    return float(_plain(gold) == _plain(given))


def _plain(sql: str) -> str:
    return " ".join(sql.lower().rstrip("; \n\t").split())


def clause_f1(gold: str, given: str) -> float:
    """F1 of the parts of clauses: selected expressions, tables and joins, conditions, groups, orders, limits.

    0.0 where ``given`` cannot be parsed. Raises MissingSqlglot without sqlglot.
    """
    wanted, found = _clauses(gold), _clauses(given)
    common = len(wanted & found)
    return 2 * common / (len(wanted) + len(found)) if common else 0.0


class MissingSqlglot(TurnwiseError):
    """sqlglot is not installed."""


def _clauses(sql: str) -> set[str]:
    """``select: count(*)``, ``where: a = 1`` .. of all SELECTs in the statement, names without their tables."""
    try:
        import sqlglot
        from sqlglot import exp
    except ImportError as error:
        raise MissingSqlglot("the reward table 'sparks' needs sqlglot: pip install 'turnwise[sql]'") from error
    try:
        tree = sqlglot.parse_one(sql, read="sqlite")
        found: set[str] = set()
        for column in tree.find_all(exp.Column):
            column.set("table", None)
        for node in tree.find_all(exp.Select, exp.Update, exp.Delete, exp.Insert):
            for clause, value in node.args.items():
                found.update(f"{clause}: {part.sql('sqlite').lower()}" for part in _parts(value))
        return found
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return set()


def _parts(value: object) -> list[Any]:
    from sqlglot import exp

    if isinstance(value, list):
        return [part for each in value for part in _parts(each)]
    if isinstance(value, exp.Where | exp.Having):
        return list(value.this.flatten()) if isinstance(value.this, exp.And) else [value.this]
    if isinstance(value, exp.Group | exp.Order):
        return list(value.expressions)
    return [value] if isinstance(value, exp.Expression) else []
