"""Intervals for figures without a closed form: BCa over resamples of rows or of groups, by weights.

In: a figure as a function of weighted rows, and which rows belong together. Out: an `Interval` of two one-sided bounds.
Source: Efron 1987, "Better bootstrap confidence intervals" (BCa). The seed is fixed: the same rows give the same
bounds. Resamples are counts, never copies of rows, and of at most `MOST_UNITS` units: more rows are pooled at random
into blocks, which are as independent as they are, so that the cost does not grow with the suite.

The rule: BCa speaks where at least `LEAST_DISCORDANT` units differ. Where fewer do it is too sure of itself (where none
do it says nothing), and the bound is the exact one: so many units may differ, and each costs what it can at worst.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from parity import betting, statistics
from parity.statistics import Interval

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
RESAMPLES = 4_000
MOST_UNITS = 2_000
FEW_KINDS = 200
"""Where units are of so few kinds, a resample is drawn as so many of each: at any number of rows, without pooling."""
LEAST_DISCORDANT = 20
LEAST_GROUPS = 20
SEED = 20_261_125
CELLS = 4_000_000
"""Numbers held at once while resampling: 32 MB."""
MOST_UNDEFINED = 0.01
"""The share of resamples in which the figure may be undefined (a class that was not drawn) before it is not believed."""


@dataclass(frozen=True, slots=True)
class Sums:
    """A figure of sums: a row of kind k adds `table[k]`, and `figure` maps sums [..., columns] to values [...]."""

    kind: Codes
    table: Array
    figure: Callable[[Array], Array]

    def of(self, weights: Array) -> Array:
        """The figure for weights [resamples, rows]."""
        return self.figure(weights @ self.table[self.kind])


@dataclass(frozen=True, slots=True)
class Weighted:
    """A figure that needs every row in its place, such as an area under a curve: `of(weights [resamples, rows])`."""

    of: Callable[[Array], Array]


Figure = Sums | Weighted


@dataclass(frozen=True, slots=True)
class Bounded:
    """Bounds of a figure, over how many units, and how they were had."""

    interval: Interval
    units: int
    method: str


def bounds(
    figure: Figure, differs: NDArray[np.bool_], worst: float, groups: Codes | None, confidence: float
) -> Bounded:
    """Bounds of a paired figure. `differs`: rows on which the sides differ at all; `worst`: what a share of 1 of such rows
    can cost at most; `groups`: which rows belong together, None where every row stands alone.

    NaN bounds where there are fewer groups than `LEAST_GROUPS`: not supported.
    """
    rows = len(differs)
    value = float(figure.of(np.ones((1, rows)))[0])
    units = rows if groups is None else int(groups.max()) + 1
    if groups is not None and units < LEAST_GROUPS:
        return Bounded(Interval(value, -math.inf, math.inf), units, f"not supported below {LEAST_GROUPS} groups")
    discordant = int(differs.sum()) if groups is None else len(np.unique(groups[differs]))
    found = bca(figure, rows, groups, confidence) if discordant >= LEAST_DISCORDANT else None
    if found is None or found.low == found.high:  # no resample moved it: nothing is known of what would
        return Bounded(_at_worst(value, differs & (found is None), worst, groups, confidence), units, "exact")
    return Bounded(found, units, "BCa")


def _at_worst(
    value: float, differs: NDArray[np.bool_], worst: float, groups: Codes | None, confidence: float
) -> Interval:
    """As many rows may differ as were seen, or up to the exact bound; each of the unseen costs the worst."""
    count, rows = int(differs.sum()), len(differs)
    if groups is None:
        found = statistics.share(count, rows, confidence)
    else:
        sizes = np.bincount(groups).astype(np.float64)
        found = betting.share(np.bincount(groups, differs).astype(np.float64), sizes, confidence)
    reach = (found.high - count / rows) * worst
    return Interval(value, value - reach, value + reach)


def bca(figure: Figure, rows: int, groups: Codes | None, confidence: float, resamples: int = RESAMPLES) -> Interval:
    """Bias-corrected and accelerated bounds; infinite where the figure is undefined in more than a few resamples."""
    value = float(figure.of(np.ones((1, rows)))[0])
    drawn, left_out = _resampled(figure, rows, groups, resamples)
    defined = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or len(defined) < (1 - MOST_UNDEFINED) * len(drawn):
        return Interval(value, -math.inf, math.inf)
    low, high = bca_quantiles(value, defined, left_out[np.isfinite(left_out)], confidence)
    return Interval(value, *np.quantile(defined, [low, high]).tolist())


def _resampled(figure: Figure, rows: int, groups: Codes | None, resamples: int) -> tuple[Array, Array]:
    """The figure in each resample, and with each unit left out in turn."""
    if isinstance(figure, Sums):
        kinds, counts = _kinds_of_units(figure, groups)
        if len(kinds) <= FEW_KINDS:
            units = int(counts.sum())
            drawn = np.random.default_rng(SEED).multinomial(units, counts / units, resamples)
            without = figure.figure(counts @ kinds - kinds)
            return figure.figure(drawn @ kinds), np.repeat(without, counts)
    unit = _units(rows, groups)
    count, of_units = int(unit.max()) + 1, _by_unit(figure, unit)
    return np.concatenate([of_units(weights) for weights in _draws(count, rows, resamples)]), _left_out(
        of_units, count, rows
    )


def _kinds_of_units(figure: Sums, groups: Codes | None) -> tuple[Array, Codes]:
    """What units add, each kind once, and how many units are of it."""
    if groups is None:
        counts = np.bincount(figure.kind, minlength=len(figure.table))
        return figure.table[counts > 0], counts[counts > 0]
    kinds, counts = np.unique(_summed(figure, groups), axis=0, return_counts=True)
    return kinds, counts


def bca_quantiles(value: float, drawn: Array, left_out: Array, confidence: float) -> tuple[float, float]:
    """Which quantiles of the resampled values are the two one-sided bounds."""
    below = (float((drawn < value).mean()) + float((drawn <= value).mean())) / 2
    bias = float(norm.ppf(min(max(below, 1 / len(drawn)), 1 - 1 / len(drawn))))
    influence = left_out.mean() - left_out
    spread = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0

    def quantile(z: float) -> float:
        return float(norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))))

    z = float(norm.ppf(confidence))
    return quantile(-z), quantile(z)


def _units(rows: int, groups: Codes | None) -> Codes:
    """The unit of each row: its group, or itself; where there are too many, at random one of `MOST_UNITS` blocks."""
    unit = np.arange(rows) if groups is None else groups
    count = rows if groups is None else int(groups.max()) + 1
    if count <= MOST_UNITS:
        return unit
    block = np.random.default_rng(SEED).permutation(count) % MOST_UNITS
    return np.asarray(block[unit])


def _by_unit(figure: Figure, unit: Codes) -> Callable[[Array], Array]:
    """The figure as a function of weights of units, [resamples, units]."""
    if isinstance(figure, Weighted):
        return lambda weights: figure.of(weights[:, unit])
    summed = _summed(figure, unit)
    return lambda weights: figure.figure(weights @ summed)


def _summed(figure: Sums, unit: Codes) -> Array:
    """What each unit adds, [units, columns]."""
    summed = np.zeros((int(unit.max()) + 1, figure.table.shape[1]))
    pairs, counts = np.unique(unit * len(figure.table) + figure.kind, return_counts=True)
    np.add.at(summed, pairs // len(figure.table), figure.table[pairs % len(figure.table)] * counts[:, None])
    return summed


def _draws(units: int, rows: int, resamples: int) -> Iterator[Array]:
    """Weights of resamples, a piece at a time: how often each unit was drawn."""
    rng = np.random.default_rng(SEED)
    piece = max(1, min(resamples, CELLS // max(units, rows)))
    for start in range(0, resamples, piece):
        many = min(piece, resamples - start)
        drawn = rng.integers(0, units, (many, units)) + np.arange(many)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=many * units).reshape(many, units).astype(np.float64)


def _left_out(of_units: Callable[[Array], Array], units: int, rows: int) -> Array:
    """The figure with each unit left out in turn."""
    piece = max(1, CELLS // max(units, rows))
    found = []
    for start in range(0, units, piece):
        out = np.arange(start, min(start + piece, units))
        weights = np.ones((len(out), units))
        weights[np.arange(len(out)), out] = 0
        found.append(of_units(weights))
    return np.concatenate(found)
