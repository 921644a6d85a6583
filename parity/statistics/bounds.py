"""Bounds of a figure without a closed form: by which method, and from how many units on each is believed.

In: a figure of weighted rows, on which of them the sides differ, what that can cost at worst, and which rows belong together.
Out: its bounds, and how they were had.

The rule: BCa speaks where at least `LEAST_DISCORDANT` units differ. Where fewer do it is too sure of itself (where none
do it says nothing), and the bound is the exact one: so many units may differ, and each costs what it can at worst.
Of groups there must be `GROUPS_TO_RESAMPLE`, and `LEAST_DISCORDANT` of them must carry what is unsure of the figure: a few
bad ones are else seldom drawn, or not there at all (`bench.groups`). Otherwise the bound bets on what each group adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from parity.kinds import Codes
from parity.statistics import betting, counted
from parity.statistics.counted import Interval
from parity.statistics.resampling import Array, Figure, Resampled, of_resamples, resampled
from parity.verdict import LEAST_GROUPS

LEAST_DISCORDANT = 20
GROUPS_TO_RESAMPLE = 200
"""Among fewer groups a bad one in fifty is missed in over 2 of 100 suites, and BCa then passes what it costs."""
ROUNDING = 1e-13
"""What a figure moves by less than this share of itself is no move."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """Bounds of a figure, over how many units, and how they were had."""

    interval: Interval
    units: int
    method: str
    at: Callable[[float], Interval] | None = None
    """The same bounds as if there were so many times these units, where they follow from counts."""


def bounds(
    figure: Figure, differs: NDArray[np.bool_], worst: float, groups: Codes | None, confidence: float
) -> Bounded:
    """Bounds of a paired figure. `differs`: rows on which the sides differ at all; `worst`: what a share of 1 of such rows
    can cost at most; `groups`: which rows belong together, None where every row stands alone.

    Infinite bounds where there are fewer groups than `LEAST_GROUPS`: not supported.
    """
    rows = len(differs)
    value = float(figure.of(np.ones((1, rows)))[0])
    units = rows if groups is None else int(groups.max()) + 1
    if groups is not None and units < LEAST_GROUPS:
        return Bounded(Interval(value, -math.inf, math.inf), units, f"not supported below {LEAST_GROUPS} groups")
    discordant = int(differs.sum()) if groups is None else len(np.unique(groups[differs]))
    few_groups = groups is not None and units < GROUPS_TO_RESAMPLE
    if discordant < LEAST_DISCORDANT and not few_groups:
        return _exact(partial(_at_worst, value, differs, worst, groups, confidence), units)
    found = resampled(figure, rows, groups)
    if groups is not None and not groups_speak(found):
        bets = partial(_by_bets, value, found, worst, confidence)
        return Bounded(bets(1.0), units, "betting on what each group adds", bets)
    interval = of_resamples(value, found, confidence)
    if interval.low == interval.high:  # no resample moved it: nothing is known of what would
        return _exact(partial(_at_worst, value, np.zeros_like(differs), worst, groups, confidence), units)
    return Bounded(interval, units, "BCa")


def _exact(at: Callable[[float], Interval], units: int) -> Bounded:
    return Bounded(at(1.0), units, "exact", at)


def _at_worst(
    value: float, differs: NDArray[np.bool_], worst: float, groups: Codes | None, confidence: float, times: float = 1.0
) -> Interval:
    """As many rows may differ as were seen, or up to the exact bound; each of the unseen costs the worst."""
    count, rows = int(differs.sum()), len(differs)
    if groups is None:
        found = counted.share(round(count * times), round(rows * times), confidence)
    else:
        sizes = np.bincount(groups).astype(np.float64)
        found = betting.share(np.bincount(groups, differs).astype(np.float64), sizes, confidence, times)
    reach = (found.high - found.value) * worst
    return Interval(value, value - reach, value + reach)


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


def _by_bets(value: float, found: Resampled, worst: float, confidence: float, times: float = 1.0) -> Interval:
    """Bounds at any number of groups, by bets on what each adds; infinite where the figure needs one of the groups."""
    added = shares_added(value, found, worst)
    if not np.isfinite(added).all():
        return Interval(value, -math.inf, math.inf)
    share = betting.difference(np.maximum(added, 0), np.maximum(-added, 0), found.sizes, confidence, times)
    return Interval(value, value + worst * share.low, value + worst * share.high)


def shares_added(value: float, found: Resampled, worst: float) -> Array:
    """What each group adds to the figure, as rows of its own that gain or lose the worst: by what its absence takes away
    (jackknife). Equal to what it adds for means, and for other figures as far as they are linear in their groups."""
    return np.asarray((value - found.left_out) * (found.sizes.sum() - found.sizes) / worst)
