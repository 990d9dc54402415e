"""Comparison rules, by hand-made results; the static look at statements; and what conditions and gold SQL must hold."""

from __future__ import annotations

import pytest

from turnwise_envs.sql.compare import is_ordered, same
from turnwise_envs.sql.statement import refusal, tokens

A, B, C = ("a", 1), ("b", 2), ("c", 3)
FLIPPED = [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    ("gold", "given", "ordered", "turnwise", "spider", "bird"),
    [
        ([A, B], [A, B], True, True, True, True),
        ([A, B], [B, A], False, True, True, True),
        ([A, B], [B, A], True, False, False, True),
        ([A, A, B], [A, B], False, False, False, True),  # BIRD: sets
        ([A, A, B], [A, B, B], False, False, False, True),
        ([A, B], FLIPPED, False, False, True, False),  # Spider: any order of columns
        ([A, B], FLIPPED[::-1], True, False, False, False),
        ([A, B], [A, C], False, False, False, False),
        ([(0.1 + 0.2,)], [(0.3,)], False, True, False, False),  # only ours knows that floats are floats
        ([("2021", 4)], [(2021, 4)], False, True, False, False),
        ([("007",)], [(7,)], False, False, False, False),
        ([(2.0,)], [(2,)], False, True, True, True),
        ([(None, 1)], [(None, 1)], False, True, True, True),
        ([], [], False, True, True, True),
        ([], [A], False, False, False, False),
        ([(1, 1, 2)], [(2, 1, 1)], False, False, True, False),
        ([(1, 2), (2, 1)], [(1, 1), (2, 2)], False, False, False, False),  # equal columns, other rows
    ],
)
def test_rules(gold: list, given: list, ordered: bool, turnwise: bool, spider: bool, bird: bool) -> None:
    found = [same(rule, gold, given, ordered=ordered) for rule in ("turnwise", "spider", "bird")]
    assert found == [turnwise, spider, bird]


def test_spiders_rule_with_many_equal_columns_ends() -> None:
    gold = [tuple(range(12))] * 3 + [tuple(range(12))[::-1]]
    given = [tuple(range(12))] * 3 + [(1, *range(12)[1:])]
    assert not same("spider", gold, given, ordered=False)
    assert same("spider", [(1,) * 12], [(1,) * 12], ordered=False)


def test_ordered() -> None:
    assert is_ordered("select a from t ORDER   by a")
    assert not is_ordered("select a from t")


def test_tokens() -> None:
    read = [token.text for token in tokens("SELECT a.\"B b\", 'it''s' -- x\nFROM [t 1] /* , */ WHERE x>=1.5e3")]
    assert read == ["select", "a", ".", "b b", ",", "it''s", "from", "t 1", "where", "x", ">", "=", "1.5e3"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "WITH a AS (SELECT 1 AS x) SELECT a.x, a.x, a.x FROM a JOIN a AS b ON a.x = b.x",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r, r AS s",
        "WITH "
        + ", ".join(f"a{n} AS (SELECT * FROM {f'a{n - 1}' if n else 't'})" for n in range(30))
        + " SELECT * FROM a29",
        "SELECT CAST(x AS INT) FROM t WINDOW w AS (PARTITION BY x)",
    ],
)
def test_honest_statements_pass(sql: str) -> None:
    assert refusal(sql) is None


def _fan(depth: int, name: str = "c{}", last: str = "c{}") -> str:
    parts = [f"{name.format(0)} AS (SELECT 1 AS x)"]
    parts += [
        f"{name.format(n)} AS NOT MATERIALIZED (SELECT 1 FROM {last.format(n - 1)} p JOIN {last.format(n - 1)} q)"
        for n in range(1, depth)
    ]
    return f"WITH {', '.join(parts)} SELECT 1 FROM {last.format(depth - 1)}"


@pytest.mark.parametrize(
    "sql",
    [
        _fan(12),
        _fan(12, '"c{}"', "[C{}]"),
        _fan(12, "c{} (x)", "'c{}'"),
        _fan(12).replace("FROM", "FROM/**/"),
        _fan(12).replace("JOIN", ","),
        "x" * 20_001,
        "WITH a AS (SELECT 1), A AS (SELECT 2) SELECT * FROM a",
    ],
)
def test_bombs_are_refused_before_sqlite_sees_them(sql: str) -> None:
    assert refusal(sql) is not None
