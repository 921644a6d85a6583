"""Rates and figures with their bounds, whatever the unit: rows where they stand alone, else groups.

In: the judged rows. Out: an `Estimate`: the bounds at the suite's size, or at another size at the same rates, so that what
more rows would decide can be asked. Shares and paired right answers of single rows have closed forms (`statistics`), those
of groups exact bounds (`betting`), however many of them differ; all other figures those of `bounds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.statistics import betting, counted
from parity.statistics.bounds import Bounded, bounds
from parity.statistics.counted import Interval
from parity.statistics.resampling import Figure
from parity.verdict import LEAST_GROUPS, Measured, Sense, Status, decide

Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]
Estimate = Callable[[int], Bounded]
"""Bounds as if so many rows had been seen at the rates of those that were."""


def share(flags: Flags, groups: Codes | None, confidence: float) -> Estimate:
    """The share of rows that hold."""
    n, count = len(flags), int(flags.sum())
    if groups is None:
        return lambda rows: Bounded(
            counted.share(round(count * rows / n), rows, confidence), rows, "exact, Clopper-Pearson"
        )
    held, sizes = _counts(groups, flags), _counts(groups, np.ones(n))

    def exact(times: float) -> Interval:
        return betting.share(held, sizes, confidence, times)

    return _of_groups(exact, groups)


def difference(reference: Flags, candidate: Flags, groups: Codes | None, confidence: float) -> Estimate:
    """Share of the candidate's rows that hold less the reference's, paired."""
    gained, lost, n = candidate & ~reference, reference & ~candidate, len(reference)
    if groups is None:
        more, less = int(gained.sum()), int(lost.sum())
        return lambda rows: Bounded(
            counted.paired_difference(round(more * rows / n), round(less * rows / n), rows, confidence),
            rows,
            "score, Tango",
        )
    won, gone, sizes = (_counts(groups, part) for part in (gained, lost, np.ones(n)))

    def exact(times: float) -> Interval:
        return betting.difference(won, gone, sizes, confidence, times)

    return _of_groups(exact, groups)


def ratio(reference: Flags, candidate: Flags, groups: Codes | None, confidence: float) -> Estimate:
    """Rows of the candidate that hold over those of the reference, paired."""
    n, both = len(reference), int((reference & candidate).sum())
    if groups is None:
        more, less = int((candidate & ~reference).sum()), int((reference & ~candidate).sum())

        def scored(rows: int) -> Bounded:
            held, won, lost = (round(k * rows / n) for k in (both, more, less))
            return Bounded(counted.paired_ratio(held, won, lost, confidence), rows, "score, Nam and Blackwelder")

        return scored
    ours, theirs, sizes = (_counts(groups, part) for part in (candidate, reference, np.ones(n)))

    def exact(times: float) -> Interval:
        return betting.ratio(ours, theirs, sizes, confidence, times)

    return _of_groups(exact, groups)


def absolute(signed: Estimate) -> Estimate:
    """How far from 0, either way: at most the farther bound, at least the nearer one; bounds that are not supported stay open."""

    def found(rows: int) -> Bounded:
        one = signed(rows)
        low, high = one.interval.low, one.interval.high
        if not math.isfinite(low + high):
            return Bounded(Interval(abs(one.interval.value), -math.inf, math.inf), one.units, one.method)
        nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        return Bounded(Interval(abs(one.interval.value), nearest, max(abs(low), abs(high))), one.units, one.method)

    return found


def within(span: tuple[float, float], found: Estimate) -> Estimate:
    """The same bounds, cut to what the figure can be; bounds that are not supported stay open."""

    def cut(rows: int) -> Bounded:
        one = found(rows)
        low, high = one.interval.low, one.interval.high
        if math.isfinite(low + high):
            low, high = max(low, span[0]), min(high, span[1])
        return Bounded(Interval(one.interval.value, low, high), one.units, one.method)

    return cut


def figure_of(figure: Figure, differs: Flags, worst: float, groups: Codes | None, confidence: float) -> Estimate:
    """Any other figure: BCa, or the exact bound where too few rows differ or groups are too few."""
    found = bounds(figure, differs, worst, groups, confidence)
    exact = found.at
    if exact is None:
        return lambda rows: _narrowed(found, rows / len(differs))
    return lambda rows: (
        found if rows == len(differs) else Bounded(exact(rows / len(differs)), found.units, found.method)
    )


def _counts(groups: Codes, flags: NDArray[Any]) -> NDArray[np.float64]:
    """How many rows of each group hold."""
    return np.bincount(groups, flags).astype(np.float64)


def _of_groups(exact: Callable[[float], Interval], groups: Codes) -> Estimate:
    """Exact bounds over groups; nothing where there are too few of them."""
    n, count = len(groups), int(groups.max()) + 1
    if count < LEAST_GROUPS:
        open_ended = Interval(exact(1.0).value, -math.inf, math.inf)
        return lambda rows: Bounded(open_ended, count, f"not supported below {LEAST_GROUPS} groups")
    return lambda rows: Bounded(exact(rows / n), count, "exact over groups, betting")


def _narrowed(found: Bounded, times: float) -> Bounded:
    """The bounds that so many times the rows would give: as near again as the root of their number says."""
    value, low, high = found.interval.value, found.interval.low, found.interval.high
    near = 1 / math.sqrt(times)
    return Bounded(
        Interval(value, value - (value - low) * near, value + (high - value) * near), found.units, found.method
    )


def measured(estimate: Estimate, n: int, groups: Codes | None, sense: Sense, limit: float, **more: Any) -> Measured:
    """The measurement at `n` rows, and, where it does not decide, the rows that would."""
    count = None if groups is None else int(groups.max()) + 1

    def at(rows: int) -> Measured:
        found = estimate(rows)
        interval = found.interval
        return Measured(interval.value, interval.low, interval.high, rows, groups=count, method=found.method, **more)

    here = at(n)
    if decide(here, sense, limit) is not Status.INCONCLUSIVE or not math.isfinite(here.low + here.high):
        return here
    needed = counted.rows_needed(n, lambda rows: decide(at(rows), sense, limit) is not Status.INCONCLUSIVE)
    return Measured(here.value, here.low, here.high, n, needed, count, here.method, **more)
