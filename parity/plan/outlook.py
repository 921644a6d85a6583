"""What an equal model's chances are where rows are not all alike: in slices, and in groups.

In: the sizes of slices or of groups, and the share of answers that an equal model flips. Out: the chance that a limit
passes. Slices by enumeration (binomial); groups by seeded draws, judged by the bounds of `estimate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from parity.limit import Limit
from parity.statistics import betting, counted
from parity.verdict import LEAST_GROUPS

DRAWS, SLICE_DRAWS = 200, 40
HOPELESS = 0.5
SEED = 20_261_125


def of_slices(limit: Limit, columns: Sequence[Sequence[int]], flips: float) -> float:
    """At least this is the chance that every slice passes. `columns`: the sizes of each column's slices, which share no
    row; slices of two columns do, so that their misses are added up."""
    return max(0.0, 1 - sum(1 - prod(_of_slice(limit, size, flips) for size in sizes) for sizes in columns))


def most_of_slice(limit: Limit, size: int) -> int | None:
    """The most answers that may differ in a slice of so many rows; None where not even none may."""

    @cache
    def passed(differ: int) -> bool:
        return counted.share(size - differ, size, limit.confidence).low >= limit.bound

    if not passed(0):
        return None
    return next((d - 1 for d in range(size + 1) if not passed(d)), size)


@cache
def _of_slice(limit: Limit, size: int, flips: float) -> float:
    most = most_of_slice(limit, size)
    return 0.0 if most is None else float(binom.cdf(most, size, flips))


def of_grouped_slices(limit: Limit, slices: Sequence[NDArray[np.float64]], flips: float, times: float = 1.0) -> float:
    """At least this is the chance that every slice passes by its groups; misses are added up. 0 as soon as it is below
    `HOPELESS`."""
    left = 1.0
    for sizes in sorted(slices, key=len):
        left -= 1 - of_groups(limit, sizes, flips, times, SLICE_DRAWS)
        if left < HOPELESS:
            return 0.0
    return left


def least_alike(limit: Limit) -> float | None:
    """The share of rows that must stay alike, of limits on such a share: as answered, or on their side of the rule."""
    if limit.metric == "route_flips":
        return 1 - limit.bound
    return limit.bound if limit.metric in ("agreement", "worst_slice") else None


def of_groups(limit: Limit, sizes: NDArray[np.float64], flips: float, times: float = 1.0, draws: int = DRAWS) -> float:
    """The chance that a limit passes where a model flips answers of all groups alike, as many for the better as not.

    `times`: with so many times these groups.
    """
    if len(sizes) * times < LEAST_GROUPS:
        return 0.0
    sizes = np.resize(sizes, max(1, round(len(sizes) * times)))
    rng = np.random.default_rng(SEED)
    differ = rng.binomial(sizes.astype(np.int64), flips, (draws, len(sizes)))
    gained = rng.binomial(differ, 0.5)
    return float(np.mean([_passes(limit, sizes, d.astype(float), g) for d, g in zip(differ, gained, strict=True)]))


def _passes(limit: Limit, sizes: NDArray[np.float64], differ: NDArray[np.float64], gained: NDArray[np.int64]) -> bool:
    least = least_alike(limit)
    if least is not None:
        return betting.proves_share(sizes - differ, sizes, limit.confidence, least)
    return betting.proves_difference(gained.astype(float), differ - gained, sizes, limit.confidence, -limit.bound)
