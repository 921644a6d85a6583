"""Intervals for figures without a closed form: BCa over resamples of rows or of groups, by weights.

In: a figure as a function of weighted rows, and which rows belong together. Out: an `Interval` of two one-sided bounds.
Source: Efron 1987, "Better bootstrap confidence intervals" (BCa). The seed is fixed: the same rows give the same
bounds. Resamples are counts, never copies of rows, and of at most `MOST_UNITS` units: more rows are pooled at random
into blocks, which are as independent as they are, so that the cost does not grow with the suite.

The rule: BCa speaks where at least `LEAST_DISCORDANT` units differ. Where fewer do it is too sure of itself (where none
do it says nothing), and the bound is the exact one: so many units may differ, and each costs what it can at worst.
Of groups there must be `GROUPS_TO_RESAMPLE`, and `LEAST_DISCORDANT` of them must carry what is unsure of the figure: few bad
groups are else not drawn, or not there at all. Where that fails, the bound bets on what each group adds (`betting`).
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
MOST_UNITS = 1_000
FEW_KINDS = 200
"""Where units are of so few kinds, a resample is drawn as so many of each: at any number of rows, without pooling."""
LEAST_DISCORDANT = 20
LEAST_GROUPS = 20
GROUPS_TO_RESAMPLE = 200
"""Among fewer groups a bad one in fifty is missed in over 2 of 100 suites, and BCa then passes what it costs (docs/bench.md)."""
ROUNDING = 1e-13
"""What a figure moves by less than this share of itself is no move."""
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
    few_groups = groups is not None and units < GROUPS_TO_RESAMPLE
    if discordant < LEAST_DISCORDANT and not few_groups:
        return Bounded(_at_worst(value, differs, worst, groups, confidence), units, "exact")
    found = _resampled(figure, rows, groups, RESAMPLES)
    if groups is not None and not groups_speak(found):
        return Bounded(_by_bets(value, found, worst, confidence), units, "betting on what each group adds")
    interval = of_resamples(value, found, confidence)
    if interval.low == interval.high:  # no resample moved it: nothing is known of what would
        return Bounded(_at_worst(value, np.zeros_like(differs), worst, groups, confidence), units, "exact")
    return Bounded(interval, units, "BCa")


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
    return of_resamples(value, _resampled(figure, rows, groups, resamples), confidence)


def of_resamples(value: float, found: Resampled, confidence: float) -> Interval:
    """BCa bounds from what resamples gave."""
    defined = found.drawn[np.isfinite(found.drawn)]
    if not math.isfinite(value) or len(defined) < (1 - MOST_UNDEFINED) * len(found.drawn):
        return Interval(value, -math.inf, math.inf)
    low, high = bca_quantiles(value, defined, found.left_out[np.isfinite(found.left_out)], confidence)
    return Interval(value, *np.quantile(defined, [low, high]).tolist())


def groups_speak(found: Resampled) -> bool:
    """Whether BCa is to be believed: there are groups enough, unequal ones counted as so many equal ones as weigh alike, and
    enough of them carry the figure."""
    equal = found.sizes.sum() ** 2 / (found.sizes**2).sum()
    return bool(equal >= GROUPS_TO_RESAMPLE and carriers(found.left_out) >= LEAST_DISCORDANT)


def carriers(left_out: Array) -> float:
    """How many units carry what is unsure of a figure, by its values without each of them: k where k of very many add
    alike and the others nothing, a third of all where what they add is normally distributed, 0 where none moves it."""
    if not np.ptp(left_out) > ROUNDING * np.abs(left_out).max():
        return 0.0
    moved = (left_out - left_out.mean()) ** 2
    moved /= moved.max()
    return float(moved.sum() ** 2 / (moved**2).sum())


def _by_bets(value: float, found: Resampled, worst: float, confidence: float) -> Interval:
    """Bounds at any number of groups, by bets on what each adds; infinite where the figure needs one of the groups."""
    added = shares_added(value, found, worst)
    if not np.isfinite(added).all():
        return Interval(value, -math.inf, math.inf)
    share = betting.difference(np.maximum(added, 0), np.maximum(-added, 0), found.sizes, confidence)
    return Interval(value, value + worst * share.low, value + worst * share.high)


def shares_added(value: float, found: Resampled, worst: float) -> Array:
    """What each group adds to the figure, as rows of its own that gain or lose the worst: by what its absence takes away
    (jackknife). Equal to what it adds for means, and for other figures as far as they are linear in their groups."""
    return np.asarray((value - found.left_out) * (found.sizes.sum() - found.sizes) / worst)


def _resampled(figure: Figure, rows: int, groups: Codes | None, resamples: int) -> Resampled:
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
    there, kind = np.unique(figure.kind, return_inverse=True)
    return figure.table[there], kind


def kinds_of(table: Array) -> tuple[Array, Codes]:
    """The different rows of a table, and which of them each row is: column by column, so that only numbers are sorted."""
    kind = np.zeros(len(table), np.int64)
    for column in table.T:
        _, value = np.unique(column, return_inverse=True)
        _, kind = np.unique(kind * (int(value.max(initial=0)) + 1) + value, return_inverse=True)
    _, first = np.unique(kind, return_index=True)
    return table[first], kind


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
