"""When two results are the same: our rule, and those that the Spider and BIRD benchmarks score by.

``turnwise``  the same rows the same number of times, columns in order; rows in order only if the gold query orders them.
              Numbers are equal to nine significant digits (sums of floats depend on the order of the rows), whether they
              came as integers, floats or digits in text.
``spider``    test-suite evaluation (Zhong et al., 2020, ``result_eq``): as above, but values must be exactly equal and
              columns may be permuted; the order counts if the gold SQL says ORDER BY. DISTINCT is kept (its
              ``--keep_distinct``).
``bird``      the sets of rows are equal (Li et al., 2023): neither order nor repetition counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import permutations, product
from typing import Literal

from turnwise_envs.sql.functions import Value
from turnwise_envs.sql.sandbox import Row

Rule = Literal["turnwise", "spider", "bird"]
#: Column permutations that Spider's rule tries; results that leave more open have many equal columns.
_MOST_PERMUTATIONS = 5_000


def same(rule: Rule, gold: Sequence[Row], given: Sequence[Row], *, ordered: bool) -> bool:
    """Whether ``given`` is the result ``gold`` under the rule."""
    return _RULES[rule](gold, given, ordered)


def is_ordered(sql: str) -> bool:
    """Spider's test for a gold query whose order counts."""
    return "order by" in " ".join(sql.lower().split())


def normal(row: Row) -> tuple[Hashable, ...]:
    """The row with values that are equal exactly when our rule takes them to be."""
    return tuple([_normal(value) for value in row])


def _normal(value: Value) -> Hashable:
    if isinstance(value, str):
        if not value[:1].isdecimal() and value[:1] != "-":
            return value
        try:
            number = float(value)
        except ValueError:
            return value
        return _normal(number) if value in (str(number), str(int(number)) if number.is_integer() else None) else value
    if isinstance(value, float):
        number = float(f"{value:.9g}")
        return int(number) if number.is_integer() else number
    return value


def _turnwise(gold: Sequence[Row], given: Sequence[Row], ordered: bool) -> bool:
    if len(gold) != len(given):
        return False
    left, right = map(normal, gold), map(normal, given)
    return list(left) == list(right) if ordered else Counter(left) == Counter(right)


def _bird(gold: Sequence[Row], given: Sequence[Row], ordered: bool) -> bool:
    return set(gold) == set(given)


def _spider(gold: Sequence[Row], given: Sequence[Row], ordered: bool) -> bool:
    if not gold and not given:
        return True
    if len(gold) != len(given) or len(gold[0]) != len(given[0]):
        return False
    width = len(gold[0])
    if ordered and list(gold) == list(given):
        return True
    # Gold column i can only be one of the given columns with the same values, each as often.
    columns = [Counter(row[i] for row in given) for i in range(width)]
    choices = [
        [j for j in range(width) if columns[j] == wanted]
        for wanted in (Counter(row[i] for row in gold) for i in range(width))
    ]
    if not all(choices):
        return False
    tried = permutations(range(width)) if all(len(choice) == width for choice in choices) else product(*choices)
    wanted_bag = Counter(gold)
    for number, order in enumerate(tried):
        if number == _MOST_PERMUTATIONS:
            return False
        if len(set(order)) < width:
            continue
        permuted = [tuple([row[j] for j in order]) for row in given]
        if list(gold) == permuted if ordered else wanted_bag == Counter(permuted):
            return True
    return False


_RULES: dict[Rule, Callable[[Sequence[Row], Sequence[Row], bool], bool]] = {
    "turnwise": _turnwise,
    "spider": _spider,
    "bird": _bird,
}
