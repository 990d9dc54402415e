"""Families of problems that a short program solves and a head rarely does.

A family draws numbers and gives a :class:`Problem`. ``value`` comes from code here that is not the colleague's
``program``, so that one checks the other (the tests run all of them).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache, lru_cache
from typing import NamedTuple

from turnwise_envs.dice import Dice


class Problem(NamedTuple):
    """``method`` is how a mathematician would explain it, ``program`` how a programmer would: it prints the answer."""

    family: str
    question: str
    value: Fraction
    method: str
    program: str
    difficulty: float


class _Draft(NamedTuple):
    question: str
    value: int | Fraction
    method: str
    program: str


def multiples(dice: Dice) -> _Draft:
    top, a, b = dice.between(2_000, 40_000), dice.between(3, 9), dice.between(10, 17)

    def upto(step: int) -> int:
        count = top // step
        return step * count * (count + 1) // 2

    return _Draft(
        f"What is the sum of all positive integers up to {top} that are divisible by {a} or by {b}?",
        upto(a) + upto(b) - upto(math.lcm(a, b)),
        "Add the multiples of each and subtract the multiples of their least common multiple, counted twice.",
        f"print(sum(n for n in range(1, {top + 1}) if n % {a} == 0 or n % {b} == 0))",
    )


def power(dice: Dice) -> _Draft:
    base, exponent, modulus = dice.between(3, 99), dice.between(10**4, 10**9), dice.between(1_000, 99_999)
    return _Draft(
        f"What is the remainder of {base}^{exponent} divided by {modulus}?",
        pow(base, exponent, modulus),
        "Square and multiply, and take the remainder after every step.",
        f"result, square, left = 1, {base}, {exponent}\nwhile left:\n    if left % 2:\n        result = result * square % {modulus}\n"
        f"    square, left = square * square % {modulus}, left // 2\nprint(result)",
    )


def lattice(dice: Dice) -> _Draft:
    square = dice.between(200, 9_000)
    side = math.isqrt(square)
    return _Draft(
        f"How many points (x, y) with integer coordinates satisfy x^2 + y^2 <= {square}?",
        sum(2 * math.isqrt(square - x * x) + 1 for x in range(-side, side + 1)),
        "For each x the possible y lie between minus and plus the root of what is left; count them.",
        f"r = range(-{side}, {side + 1})\nprint(sum(x * x + y * y <= {square} for x in r for y in r))",
    )


def primes(dice: Dice) -> _Draft:
    low, modulus = dice.between(100, 8_000), dice.pick((4, 6, 8, 10, 12))
    high = low + dice.between(400, 4_000)
    rest = dice.pick([r for r in range(1, modulus) if math.gcd(r, modulus) == 1])
    return _Draft(
        f"How many primes p with {low} <= p <= {high} leave the remainder {rest} when divided by {modulus}?",
        sum(p % modulus == rest for p in _primes(13_000) if low <= p <= high),
        "Sieve the interval and count the primes in the one residue class.",
        f"def prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))\n"
        f"print(sum(n % {modulus} == {rest} and prime(n) for n in range({low}, {high} + 1)))",
    )


def dice_sum(dice: Dice) -> _Draft:
    count, sides = dice.between(3, 5), dice.pick((4, 6, 8))
    least = dice.between(count * (sides + 1) // 2, count * sides - 2)
    ways = {0: 1}
    for _ in range(count):
        after: dict[int, int] = {}
        for total, number in ways.items():
            for face in range(1, sides + 1):
                after[total + face] = after.get(total + face, 0) + number
        ways = after
    favourable = sum(number for total, number in ways.items() if total >= least)
    return _Draft(
        f"{count} fair dice with {sides} sides each (numbered 1 to {sides}) are thrown. What is the probability that the "
        f"sum is at least {least}? Give a fraction.",
        Fraction(favourable, sides**count),
        f"Count the throws whose sum is large enough among all {sides}^{count}.",
        f"from fractions import Fraction\nfrom itertools import product\n"
        f"throws = list(product(range(1, {sides + 1}), repeat={count}))\n"
        f"print(Fraction(sum(sum(t) >= {least} for t in throws), len(throws)))",
    )


def recurrence(dice: Dice) -> _Draft:
    p, q, a, b = (dice.between(1, 9) for _ in range(4))
    n, modulus = dice.between(50, 5_000), dice.between(1_000, 9_999)
    older, newer = a, b
    for _ in range(n - 2):
        older, newer = newer, (p * newer + q * older) % modulus
    return _Draft(
        f"A sequence begins with a(1) = {a} and a(2) = {b} and goes on with a(n) = {p} a(n-1) + {q} a(n-2). What is the "
        f"remainder of a({n}) divided by {modulus}?",
        newer % modulus,
        "Iterate the recurrence, and keep remainders only.",
        f"terms = [{a}, {b}]\nwhile len(terms) < {n}:\n    terms.append({p} * terms[-1] + {q} * terms[-2])\n"
        f"print(terms[-1] % {modulus})",
    )


def roots(dice: Dice) -> _Draft:
    a, b, c, d = dice.between(2, 9), *(dice.between(-20, 20) for _ in range(3))
    sign = [f"{'-' if x < 0 else '+'} {abs(x)}" for x in (b, c, d)]
    return _Draft(
        f"What is the sum of the squares of the three complex roots of {a}x^3 {sign[0]}x^2 {sign[1]}x {sign[2]} = 0? "
        "Give a fraction.",
        Fraction(b * b - 2 * a * c, a * a),
        "With Vieta's formulas: the square of the sum of the roots minus twice the sum of their products in pairs.",
        f"from fractions import Fraction\ntotal, pairs = Fraction({-b}, {a}), Fraction({c}, {a})\nprint(total ** 2 - 2 * pairs)",
    )


def paths(dice: Dice) -> _Draft:
    wide, high = dice.between(5, 12), dice.between(5, 12)
    cells = [(x, y) for x in range(wide + 1) for y in range(high + 1)][1:-1]
    blocked = sorted(dice.shuffled(cells)[: dice.between(2, 6)])
    ways = {(0, 0): 1}
    for x in range(wide + 1):
        for y in range(high + 1):
            if (x, y) not in ways:
                before = ways.get((x - 1, y), 0) + ways.get((x, y - 1), 0)
                ways[x, y] = 0 if (x, y) in blocked else before
    listed = ", ".join(f"({x}, {y})" for x, y in blocked)
    return _Draft(
        f"How many paths lead from (0, 0) to ({wide}, {high}) in steps of one to the right or one up, if the points "
        f"{listed} must be avoided?",
        ways[wide, high],
        "The number of paths to a point is that to its left neighbour plus that to the one below; blocked points have none.",
        f"from functools import lru_cache\nblocked = {set(blocked)}\n@lru_cache(None)\ndef paths(x, y):\n"
        "    if x < 0 or y < 0 or (x, y) in blocked:\n        return 0\n"
        f"    return 1 if x == y == 0 else paths(x - 1, y) + paths(x, y - 1)\nprint(paths({wide}, {high}))",
    )


def savings(dice: Dice) -> _Draft:
    start, yearly = 100 * dice.between(5, 200), 10 * dice.between(5, 200)
    rate, years = dice.between(10, 79), dice.between(5, 30)
    growth = 1 + Fraction(rate, 1_000)
    exact = start * growth**years + yearly * sum(growth**k for k in range(years))
    return _Draft(
        f"An account holds {start} and earns {rate / 10} % interest at the end of every year; {yearly} is paid in right "
        f"after each interest payment. How much is in it after {years} years, in whole units (rounded down)?",
        math.floor(exact),
        "Year by year: multiply by one plus the rate, then add the payment. Work with exact fractions.",
        f"from fractions import Fraction\nmoney = Fraction({start})\nfor _ in range({years}):\n"
        f"    money = money * (1 + Fraction({rate}, 1000)) + {yearly}\nprint(money.numerator // money.denominator)",
    )


def coins(dice: Dice) -> _Draft:
    kinds = sorted({1, *dice.shuffled([2, 3, 5, 7, 10, 12, 20, 25])[: dice.between(3, 5)]})
    amount = dice.between(60, 250)
    ways = [1] + [0] * amount
    for kind in kinds:
        for total in range(kind, amount + 1):
            ways[total] += ways[total - kind]
    listed = ", ".join(map(str, kinds))
    return _Draft(
        f"In how many ways can {amount} be paid with coins of {listed}, if their order does not matter?",
        ways[amount],
        "Take one kind of coin after the other, and count the ways for all smaller amounts.",
        f"from functools import lru_cache\nkinds = {tuple(kinds)}\n@lru_cache(None)\ndef ways(amount, used):\n"
        "    if used == 0:\n        return int(amount == 0)\n"
        "    return sum(ways(amount - k, used - 1) for k in range(0, amount + 1, kinds[used - 1]))\n"
        f"print(ways({amount}, len(kinds)))",
    )


def collatz(dice: Dice) -> _Draft:
    low = dice.between(100, 3_000)
    high = low + dice.between(200, 900)

    @cache
    def steps(n: int) -> int:
        return 0 if n == 1 else 1 + steps(n // 2 if n % 2 == 0 else 3 * n + 1)

    return _Draft(
        f"From n, go to n/2 if n is even and to 3n + 1 if it is odd, until you reach 1. Which n with {low} <= n <= {high} "
        "takes the most steps? If there are several, give the smallest.",
        max(range(low, high + 1), key=lambda n: (steps(n), -n)),
        "Follow the rule from every n and keep the longest; there is no formula.",
        f"best, most = 0, -1\nfor start in range({low}, {high + 1}):\n    n, steps = start, 0\n    while n != 1:\n"
        "        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1\n"
        "    if steps > most:\n        best, most = start, steps\nprint(best)",
    )


def system(dice: Dice) -> _Draft:
    while True:
        (a, b, e), (c, d, f) = ([dice.between(-12, 12) for _ in range(3)] for _ in range(2))
        determinant = a * d - b * c
        if determinant and a and c:
            break

    def side(x: int, y: int) -> str:
        return f"{x}x {'-' if y < 0 else '+'} {abs(y)}y"

    x, y = Fraction(e * d - b * f, determinant), Fraction(a * f - e * c, determinant)
    return _Draft(
        f"{side(a, b)} = {e} and {side(c, d)} = {f}. What is x + 2y? Give a fraction.",
        x + 2 * y,
        "Eliminate x from the second equation, solve it for y, and put that into the first.",
        f"from fractions import Fraction\nfactor = Fraction({c}, {a})\n"
        f"y = ({f} - factor * {e}) / ({d} - factor * {b})\nx = ({e} - {b} * y) / Fraction({a})\nprint(x + 2 * y)",
    )


def digits(dice: Dice) -> _Draft:
    base, exponent = dice.between(2, 30), dice.between(40, 600)
    value, total = base**exponent, 0
    while value:
        value, digit = divmod(value, 10)
        total += digit
    return _Draft(
        f"What is the sum of the decimal digits of {base}^{exponent}?",
        total,
        "Write the power out, with exact integers, and add its digits.",
        f"print(sum(map(int, str({base} ** {exponent}))))",
    )


Family = Callable[[Dice], _Draft]
#: Each with its difficulty. The last three never occur in training.
SEEN: dict[Family, float] = {
    roots: 0.2, savings: 0.5, multiples: 0.3, dice_sum: 0.5, power: 0.6, recurrence: 0.7, lattice: 0.6, primes: 0.6,
    coins: 0.8, paths: 0.8,
}  # fmt: skip
UNSEEN: dict[Family, float] = {system: 0.3, digits: 0.6, collatz: 0.8}


@lru_cache(maxsize=1024)
def problem(split: str, index: int) -> Problem:
    """The problem of a task; families take turns."""
    families = UNSEEN if split == "valid_unseen" else SEEN
    family = list(families)[index % len(families)]
    draft = family(Dice("maths", split, index))
    return Problem(
        family.__name__, draft.question, Fraction(draft.value), draft.method, draft.program, families[family]
    )


@lru_cache(maxsize=1)
def _primes(top: int) -> tuple[int, ...]:
    sieve = bytearray([1]) * (top + 1)
    sieve[:2] = b"\0\0"
    for n in range(2, math.isqrt(top) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, top + 1, n)))
    return tuple(n for n in range(top + 1) if sieve[n])
