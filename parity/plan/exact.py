"""The chance that a limit passes where rows stand alone, by enumeration of the exact distributions.

In: a limit, rows, and the share of answers that an equal model flips. Out: the chance that it passes: binomial flips, binomial
gains among them, each judged by the bounds that the judge has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from scipy.stats import binom, norm

from parity.limit import Limit
from parity.plan import outlook
from parity.statistics import counted

RIGHT = 0.8
"""The share of unflipped rows that both sides get right: what a relative margin is worth depends on it."""
NEGLIGIBLE = 1e-10


def can_pass(limit: Limit, flips: float) -> bool:
    """Whether enough rows would ever pass a model that flips so many answers."""
    least = outlook.least_alike(limit)
    return least is None or flips < 1 - least


Passed = Callable[[int, int, int], bool]
"""Of n rows d differ, g of them gained: does the limit pass?"""


def passes(limit: Limit) -> Passed:
    """The decision of one limit as a function of counts; the same bounds as the judge's."""
    least = outlook.least_alike(limit)
    if least is not None:
        return cache(lambda d, g, n: counted.share(n - d, n, limit.confidence).low >= least)
    z = float(norm.ppf(limit.confidence))
    if limit.kind == "relative_margin":
        return cache(lambda d, g, n: counted.ratio_score(round(RIGHT * (n - d)), g, d - g, limit.threshold) >= z)
    return cache(lambda d, g, n: counted.tango_score(g, d - g, n, -limit.bound) >= z)


def chance(passed: Passed, rows: int, flips: float) -> float:
    """The probability of passing where each row flips with probability `flips` and as many flips gain as lose."""
    total = 0.0
    for d in range(rows + 1):
        weight = float(binom.pmf(d, rows, flips))
        if weight < NEGLIGIBLE:
            if d > rows * flips:
                break
            continue
        total += weight * float(binom.sf(fewest_gains(passed, d, rows) - 1, d, 0.5))
    return min(total, 1.0)


def fewest_gains(passed: Passed, d: int, rows: int) -> int:
    """The fewest gains among `d` flips that pass; d + 1 where none do. More gains never hurt."""
    low, high = 0, d + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passed(d, middle, rows) else (middle + 1, high)
    return low
