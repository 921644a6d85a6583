"""Intervals for figures without a closed form: BCa over resamples of rows or of groups, by weights.

In: a figure as a function of weighted rows, and which rows belong together. Out: an `Interval` of two one-sided bounds;
where it is to be believed, `bounds` says.
Source: Efron 1987, "Better bootstrap confidence intervals" (BCa). The seed is fixed: the same rows give the same
bounds. Resamples are counts, never copies of rows, and of at most `MOST_UNITS` units: more rows are pooled at random
into blocks, which are as independent as they are, so that the cost does not grow with the suite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from parity.kinds import FEW_KINDS, Codes, kinds_of
from parity.statistics.counted import Interval

Array = NDArray[np.float64]
RESAMPLES = 4_000
MOST_UNITS = 1_000
SEED = 20_261_125
CELLS = 500_000
"""Numbers held at once while resampling: 4 MB."""
FEW_COLUMNS = 32
"""Units with more sums than this are not looked through for kinds."""
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
class Counts:
    """A figure of counts: row i adds 1 to each of `cells[i]` of `columns` counts, -1 for none; wide, and never spelled out
    row by row. `figure` as in `Sums`."""

    cells: Codes
    columns: int
    figure: Callable[[Array], Array]

    def of(self, weights: Array) -> Array:
        """The figure for weights [resamples, rows]."""
        there = self.cells >= 0
        counted = [
            np.bincount(self.cells[there], np.broadcast_to(one[:, None], self.cells.shape)[there], self.columns)
            for one in weights
        ]
        return self.figure(np.array(counted))


@dataclass(frozen=True, slots=True)
class Weighted:
    """A figure that needs every row in its place, such as an area under a curve: `of(weights [resamples, rows])`.

    `pooled`: from the unit of each row, the same as a function of weights of units, where that has a shorter way.
    """

    of: Callable[[Array], Array]
    pooled: Callable[[Codes], Callable[[Array], Array]] | None = None


Figure = Sums | Counts | Weighted


@dataclass(frozen=True, slots=True)
class Resampled:
    """A figure in each resample, and with each unit (or block of units) left out; how many rows these are."""

    drawn: Array
    left_out: Array
    sizes: Array


def bca(figure: Figure, rows: int, groups: Codes | None, confidence: float, resamples: int = RESAMPLES) -> Interval:
    """Bias-corrected and accelerated bounds; infinite where the figure is undefined in more than a few resamples."""
    value = float(figure.of(np.ones((1, rows)))[0])
    return of_resamples(value, resampled(figure, rows, groups, resamples), confidence)


def of_resamples(value: float, found: Resampled, confidence: float) -> Interval:
    """BCa bounds from what resamples gave."""
    defined = found.drawn[np.isfinite(found.drawn)]
    if not math.isfinite(value) or len(defined) < (1 - MOST_UNDEFINED) * len(found.drawn):
        return Interval(value, -math.inf, math.inf)
    low, high = bca_quantiles(value, defined, found.left_out[np.isfinite(found.left_out)], confidence)
    return Interval(value, *np.quantile(defined, [low, high]).tolist())


def resampled(figure: Figure, rows: int, groups: Codes | None, resamples: int = RESAMPLES) -> Resampled:
    """The figure in resamples of rows, or of groups, and without each of them."""
    if isinstance(figure, Sums) and figure.table.shape[1] <= FEW_COLUMNS:
        kinds, kind = _kinds_of_units(figure, groups)
        if len(kinds) <= FEW_KINDS:
            counts = np.bincount(kind)
            drawn = np.random.default_rng(SEED).multinomial(len(kind), counts / len(kind), resamples)
            without = figure.figure(counts @ kinds - kinds)
            sizes = np.ones(rows) if groups is None else np.bincount(groups).astype(np.float64)
            return Resampled(figure.figure(drawn @ kinds), without[kind], sizes)
    unit = _units(rows, groups)
    sizes = np.bincount(unit).astype(np.float64)
    count = len(sizes)
    if isinstance(figure, Weighted):
        of_units = figure.pooled(unit) if figure.pooled else _by_row(figure, unit)
        wide = count if figure.pooled else max(count, rows)
        found = np.concatenate([of_units(weights) for weights in _draws(count, wide, resamples)])
        return Resampled(found, np.concatenate([of_units(weights) for weights in _all_but_one(count, wide)]), sizes)
    added = summed(figure, unit)
    wide = max(added.shape)
    found = np.concatenate([figure.figure(weights @ added) for weights in _draws(count, wide, resamples)])
    whole = added.sum(axis=0)
    without = np.concatenate([figure.figure(whole - added[piece]) for piece in _pieces(count, wide)])
    return Resampled(found, without, sizes)


def _kinds_of_units(figure: Sums, groups: Codes | None) -> tuple[Array, Codes]:
    """What units add, each kind once, and of which kind each unit is."""
    if groups is not None:
        return kinds_of(summed(figure, groups))
    there = np.bincount(figure.kind, minlength=len(figure.table)) > 0
    return figure.table[there], (np.cumsum(there) - 1)[figure.kind]


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


def _by_row(figure: Weighted, unit: Codes) -> Callable[[Array], Array]:
    """The figure as a function of weights of units, [resamples, units], spread over their rows."""
    return lambda weights: figure.of(weights[:, unit])


def summed(figure: Sums | Counts, unit: Codes) -> Array:
    """What each unit adds, [units, columns]."""
    units = int(unit.max()) + 1
    if isinstance(figure, Counts):
        return _counted(unit, figure.cells, units, figure.columns)
    return np.stack(
        [np.bincount(unit, column[figure.kind], minlength=units) for column in figure.table.T], axis=1
    ).astype(np.float64)


def _counted(unit: Codes, cells: Codes, units: int, columns: int) -> Array:
    """How many cells of each column the rows of each unit fill."""
    found = np.zeros(units * columns)
    for cell in cells.T:
        there = cell >= 0
        np.add.at(found, unit[there] * columns + cell[there], 1.0)
    return found.reshape(units, columns)


def _draws(units: int, wide: int, resamples: int) -> Iterator[Array]:
    """Weights of resamples, a piece at a time: how often each unit was drawn. `wide`: numbers that each resample takes."""
    rng = np.random.default_rng(SEED)
    for piece in _pieces(resamples, wide):
        many = len(piece)
        drawn = rng.integers(0, units, (many, units)) + np.arange(many)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=many * units).reshape(many, units).astype(np.float64)


def _all_but_one(units: int, wide: int) -> Iterator[Array]:
    """Weights that leave out each unit in turn, a piece at a time."""
    for out in _pieces(units, wide):
        weights = np.ones((len(out), units))
        weights[np.arange(len(out)), out] = 0
        yield weights


def _pieces(count: int, wide: int) -> Iterator[Codes]:
    """0 to `count` - 1 in pieces of which each fills `CELLS`."""
    size = max(1, CELLS // wide)
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
