"""Intervals for what was counted, and how many rows would decide. Pure functions of counts.

Every interval is a pair of one-sided bounds, each at the given confidence: the lower one decides PASS, the upper
one FAIL. Sources: Clopper & Pearson 1934 (exact binomial), Tango 1998 (score test for paired proportions), Nam
& Blackwelder 2002 (the same for their ratio), order statistics for a median (Conover, Practical Nonparametric Statistics, 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import beta, binom, norm

MOST_ROWS = 10_000_000
EDGE = 1e-12
"""How near to the edge of a parameter's range a bound is looked for."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its one-sided lower and upper confidence bounds."""

    value: float
    low: float
    high: float


def share(count: int, n: int, confidence: float) -> Interval:
    """Clopper-Pearson bounds of a share: exact, never anti-conservative."""
    tail = 1 - confidence
    low = float(beta.ppf(tail, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(confidence, count + 1, n - count)) if count < n else 1.0
    return Interval(count / n, low, high)


def paired_difference(gained: int, lost: int, n: int, confidence: float) -> Interval:
    """Tango's score bounds of (gained - lost) / n: rows the candidate alone, and the reference alone, got right."""
    z = float(norm.ppf(confidence))
    return Interval((gained - lost) / n, _tango_bound(gained, lost, n, z), -_tango_bound(lost, gained, n, z))


def _tango_bound(gained: int, lost: int, n: int, z: float) -> float:
    """The smallest difference that the score test at `z` does not reject from below."""
    if lost == n:
        return -1.0
    value = (gained - lost) / n
    top = min(value, 1 - EDGE)
    if tango_score(gained, lost, n, -1 + EDGE) <= z:
        return -1.0
    return float(brentq(lambda d: tango_score(gained, lost, n, d) - z, -1 + EDGE, top - EDGE, xtol=EDGE))


def tango_score(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's statistic for the hypothesis that the true difference is `difference`; standard normal under it."""
    a = 2.0 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if gained - lost == n * difference else math.copysign(math.inf, gained - lost - n * difference)
    return (gained - lost - n * difference) / math.sqrt(variance)


def paired_ratio(both: int, gained: int, lost: int, confidence: float) -> Interval:
    """Score bounds of (both + gained) / (both + lost): the candidate's right answers over the reference's, row by row.

    Rows that both got wrong say nothing about a ratio. NaN where the reference got none right.
    """
    if both + lost == 0:
        return Interval(math.nan, math.nan, math.nan)
    z = float(norm.ppf(confidence))
    value = (both + gained) / (both + lost)

    def bound(wanted: float, low: float, high: float) -> float:
        return float(brentq(lambda r: ratio_score(both, gained, lost, r) - wanted, low, high, xtol=EDGE))

    low = bound(z, EDGE, value) if value > 0 and ratio_score(both, gained, lost, EDGE) > z else 0.0
    most = 2 * max(value, 1.0)
    while ratio_score(both, gained, lost, most) > -z:
        most *= 2
        if most > MOST_ROWS:
            return Interval(value, low, math.inf)
    return Interval(value, low, bound(-z, max(value, EDGE), most))


def ratio_score(both: int, gained: int, lost: int, ratio: float) -> float:
    """The score statistic for the hypothesis that the true ratio is `ratio`; standard normal under it.

    The contrast is what the rows sum to with 1 for a row that the candidate, and -ratio for one that the reference got
    right. Its variance is taken where the likelihood is largest under the hypothesis, which is a quadratic's root.
    """
    rows, k = both + gained + lost, 1 + ratio
    slope = k * (ratio - 1) * (both + lost) - (gained + lost)
    root = math.sqrt(max(slope * slope + 4 * k * lost * (ratio - 1) * rows, 0.0))
    variance = rows * (ratio - 1) + (root - slope) / 2
    contrast = both + gained - ratio * (both + lost)
    if variance <= EDGE * rows:
        return 0.0 if abs(contrast) <= EDGE * rows else math.copysign(math.inf, contrast)
    return contrast / math.sqrt(variance)


def median(values: Sequence[float], confidence: float) -> Interval:
    """The median with distribution-free bounds from order statistics; NaN throughout where a value is NaN or there is none."""
    if not values or any(math.isnan(value) for value in values):
        return Interval(math.nan, math.nan, math.nan)
    ordered = sorted(values)
    n = len(ordered)
    middle = ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2
    below = int(binom.ppf(1 - confidence, n, 0.5)) - 1
    if below < 0:
        return Interval(middle, -math.inf, math.inf)
    return Interval(middle, ordered[below], ordered[n - 1 - below])


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, step down (Holm 1979): each may be compared with the same level."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def rows_needed(n: int, decided: Callable[[int], bool]) -> int | None:
    """The fewest rows, at the rates seen in `n`, with which `decided(rows)` is true; None where no number is enough.

    Doubles until decided, then bisects: to the row below 400 rows, within half a percent above, where `decided` stays
    true once it is, as for intervals that shrink. Law: `decided(rows_needed(n, decided))`.
    """
    high = n
    while not decided(high):
        high *= 2
        if high > MOST_ROWS:
            return None
    low = max(high // 2, 1)
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
