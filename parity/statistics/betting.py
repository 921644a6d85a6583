"""Exact bounds where rows come in groups: of a share, a paired difference or a ratio over rows of the same stream.

In: for each group what it adds to a contrast, and its size. Out: one-sided bounds that hold at any number of groups,
whatever the rows of a group have in common. Source: Waudby-Smith & Ramdas 2023, "Estimating means of bounded random
variables by betting": under the hypothesis a wealth made of fair bets grows past 1 / tail with a probability of at
most `tail` (Ville, Markov). The stakes are fixed beforehand, so the order of groups does not matter.

Law: with G groups of one size, none of which differs, the bound on the share that may is 1 - tail^(1/G), which is what
binomial counts give, or at most 4 % above it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parity.statistics.counted import Interval

Array = NDArray[np.float64]
STAKES = ((1.0, 0.9), (0.5, 0.04), (0.25, 0.03), (0.1, 0.02), (0.02, 0.01))
"""Shares of the largest stake that cannot ruin, and the part of the purse on each. Rare flips are best met by the whole
stake; the others are for groups that flip throughout, which would ruin it."""
STEPS = 60


class Proof(NamedTuple):
    """What rejects: the log of the wealth, over so many times the groups."""

    log_wealth: float
    times: float


def share(counts: Array, sizes: Array, confidence: float, times: float = 1.0) -> Interval:
    """Bounds of the share of rows that count, over groups with `counts` of `sizes` rows each.

    `times`: as if there were so many times these groups, for what more of them would decide.
    """
    proof = Proof(-math.log(1 - confidence), times)
    low = _least(lambda t: counts - t * sizes, lambda t: t, sizes, (0.0, 1.0), proof)
    high = 1 - _least(lambda t: (sizes - counts) - t * sizes, lambda t: t, sizes, (0.0, 1.0), proof)
    return Interval(float(counts.sum() / sizes.sum()), low, high)


def difference(gained: Array, lost: Array, sizes: Array, confidence: float, times: float = 1.0) -> Interval:
    """Bounds of (gained - lost) / rows, over groups."""
    net, proof = gained - lost, Proof(-math.log(1 - confidence), times)
    low = _least(lambda t: net - t * sizes, lambda t: 1 + t, sizes, (-1.0, 1.0), proof)
    high = -_least(lambda t: -net - t * sizes, lambda t: 1 + t, sizes, (-1.0, 1.0), proof)
    return Interval(float(net.sum() / sizes.sum()), low, high)


def proves_share(counts: Array, sizes: Array, confidence: float, least: float) -> bool:
    """Whether the lower bound of the share is no less than `least`: the same decision, without looking for the bound."""
    return _wealth(counts - least * sizes, least, sizes) >= -math.log(1 - confidence)


def proves_difference(gained: Array, lost: Array, sizes: Array, confidence: float, least: float) -> bool:
    """Whether the lower bound of the difference is no less than `least`."""
    return _wealth(gained - lost - least * sizes, 1 + least, sizes) >= -math.log(1 - confidence)


def ratio(candidate: Array, reference: Array, sizes: Array, confidence: float, times: float = 1.0) -> Interval:
    """Bounds of right answers of the candidate over those of the reference, over groups; NaN where that has none."""
    if not reference.sum():
        return Interval(math.nan, math.nan, math.nan)
    most, proof = float(sizes.sum()), Proof(-math.log(1 - confidence), times)
    low = _least(lambda t: candidate - t * reference, lambda t: t, sizes, (0.0, most), proof)
    inverse = _least(lambda t: reference - t * candidate, lambda t: t, sizes, (0.0, most), proof)
    return Interval(float(candidate.sum() / reference.sum()), low, math.inf if inverse == 0 else 1 / inverse)


def _least(
    contrast: Callable[[float], Array],
    reach: Callable[[float], float],
    sizes: Array,
    span: tuple[float, float],
    proof: Proof,
) -> float:
    """The smallest parameter that is not rejected from below.

    `contrast(t)`: what each group adds where the parameter is t, with mean 0 under that hypothesis; `reach(t)`: by how
    much a row of it can be below 0.
    """
    low, high = span
    if _wealth(contrast(low), reach(low), sizes, proof.times) < proof.log_wealth:
        return low
    for _ in range(STEPS):
        middle = (low + high) / 2
        rejected = _wealth(contrast(middle), reach(middle), sizes, proof.times) >= proof.log_wealth
        low, high = (middle, high) if rejected else (low, middle)
    return low


def _wealth(contrast: Array, reach: float, sizes: Array, times: float = 1.0) -> float:
    """Log of the wealth that bets against the hypothesis reach, over so many times these groups: the whole purse, spread over
    the stakes."""
    returns = contrast / sizes.max()
    if reach <= 0:
        return math.inf if (returns > 0).any() else 0.0
    with np.errstate(divide="ignore"):
        logs = [times * float(np.log1p(np.maximum(part * returns / reach, -1.0)).sum()) for part, _ in STAKES]
    purses = [math.log(purse) for _, purse in STAKES]
    return float(np.logaddexp.reduce(np.add(logs, purses)))
