"""Suites of grouped rows whose truth is known, for `bench.groups`: what groups add to a figure, and how the loss lies in them.

In: a figure, a setting, and how many suites of how many groups. Out: sums by group, [suites, groups, columns]; the sizes of
groups; how many groups differ. A setting gives the rate at which a group's answers turn for the worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

Array = np.ndarray
ROWS, PREVALENCE, CLASSES, SYMBOLS = 25, 0.4, 3, 20
"""Rows of a group where all are of one size; share of positives; labelled classes; symbols of a label."""
LONGEST = 0.95
"""Groups longer than this share of all are the bad ones in `longest`."""


@dataclass(frozen=True, slots=True)
class Suites:
    sums: Array
    sizes: Array
    differing: Array


@dataclass(frozen=True, slots=True)
class Figure:
    """`rows(rng, sizes, rates)` gives sums by group and rows that differ; `of` the candidate's quality less the reference's.

    `worst`: what a whole group can cost, over its share of the rows. `resampled`: not a difference of shares, whose bounds are
    exact.
    """

    name: str
    rows: Callable[[np.random.Generator, Array, Array], tuple[Array, Array]]
    of: Callable[[Array], Array]
    worst: float
    resampled: bool = True


def draw(figure: Figure, setting: str, unequal: bool, shape: tuple[int, int], rng: np.random.Generator) -> Suites:
    """Suites of one setting; unequal groups are lognormal in size, the middle half of them of 10 to 33 rows."""
    sizes = np.full(shape, ROWS)
    if unequal:
        sizes = np.clip(np.round(rng.lognormal(np.log(18), 0.9, shape)), 2, 400).astype(int)
    sums, differ = figure.rows(rng, sizes, SETTINGS[setting](rng, sizes))
    return Suites(sums, sizes, (differ > 0).sum(axis=1))


@cache
def truth(figure: Figure, setting: str, unequal: bool) -> float:
    """The figure over two million groups of one setting."""
    rng = np.random.default_rng(0)
    parts = [draw(figure, setting, unequal, (100, 2000), rng).sums.sum(axis=(0, 1)) for _ in range(10)]
    return float(figure.of(np.sum(parts, axis=0)[None])[0])


def right_answers(rng: np.random.Generator, sizes: Array, rates: Array) -> tuple[Array, Array]:
    lost = rng.binomial(sizes, 0.9 * rates)
    gained = rng.binomial(sizes - lost, 0.03 * rates)
    return np.stack([gained - lost, sizes], axis=-1).astype(float), gained + lost


def f1_counts(rng: np.random.Generator, sizes: Array, rates: Array) -> tuple[Array, Array]:
    """Groups differ in how many positives they have."""
    there = rng.binomial(sizes, rng.beta(8, 12, sizes.shape))
    hits, alarms = rng.binomial(there, 0.9), rng.binomial(sizes - there, 0.05)
    lost, found = rng.binomial(hits, rates), rng.binomial(there - hits, 0.3 * rates)
    quiet, false = rng.binomial(alarms, 0.3 * rates), rng.binomial(sizes - there - alarms, 0.3 * rates)
    good, wrong = hits - lost + found, alarms - quiet + false
    sums = np.stack([there, hits + alarms, hits, good + wrong, good], axis=-1)
    return sums.astype(float), lost + found + quiet + false


def f1(sums: Array) -> Array:
    there, told, right, said, good = np.moveaxis(sums, -1, 0)
    return 2 * good / np.maximum(there + said, 1e-9) - 2 * right / np.maximum(there + told, 1e-9)


def class_counts(rng: np.random.Generator, sizes: Array, rates: Array) -> tuple[Array, Array]:
    """Groups differ in their mixture of classes; a wrong answer is the next class."""
    mixture = rng.dirichlet(np.full(CLASSES, 5.0), sizes.shape)
    labels = rng.multinomial(sizes, mixture)
    hits = rng.binomial(labels, 0.9)
    lost, gained = rng.binomial(hits, rates[..., None]), rng.binomial(labels - hits, 0.2 * rates[..., None])
    good = hits - lost + gained
    told, said = (right + np.roll(labels - right, 1, axis=-1) for right in (hits, good))
    return np.concatenate([labels, told, hits, said, good], axis=-1).astype(float), (lost + gained).sum(axis=-1)


def macro_f1(sums: Array) -> Array:
    labels, told, right, said, good = np.split(sums, 5, axis=-1)
    return (2 * good / np.maximum(labels + said, 1e-9) - 2 * right / np.maximum(labels + told, 1e-9)).mean(axis=-1)


def absolute_errors(rng: np.random.Generator, sizes: Array, rates: Array) -> tuple[Array, Array]:
    """Errors of rows are exponential; the candidate's are larger by a part that depends on the group. All rows differ."""
    extra = rng.gamma(sizes * rates) + rng.normal(0, 0.1, sizes.shape) * np.sqrt(sizes)
    return np.stack([extra, sizes], axis=-1).astype(float), sizes


def edits(rng: np.random.Generator, sizes: Array, rates: Array) -> tuple[Array, Array]:
    length = rng.poisson(SYMBOLS * sizes)
    wrong = rng.binomial(length, 0.08)
    more, fewer = rng.binomial(length - wrong, 0.5 * rates), rng.binomial(wrong, 0.3 * rates)
    return np.stack([length, more - fewer], axis=-1).astype(float), np.minimum(sizes, more + fewer)


def few_bad(share: float, rate: float, others: float) -> Callable[[np.random.Generator, Array], Array]:
    """A share of the groups is bad, and loses at one rate; the others at another."""
    return lambda rng, sizes: np.where(rng.random(sizes.shape) < share, rate, others)


def clustered(mean: float, correlation: float) -> Callable[[np.random.Generator, Array], Array]:
    """Rates are beta-distributed: `correlation` is that of two rows of one group."""
    scale = 1 / correlation - 1
    return lambda rng, sizes: rng.beta(mean * scale, (1 - mean) * scale, sizes.shape)


def longest(rng: np.random.Generator, sizes: Array) -> Array:
    """Long groups are bad, and where all are of one size as many of any."""
    if sizes.min() == sizes.max():
        return few_bad(1 - LONGEST, 0.4, 0.03)(rng, sizes)
    return np.where(sizes >= np.exp(np.log(18) + 0.9 * 1.6449), 0.4, 0.03)


SETTINGS: Mapping[str, Callable[[np.random.Generator, Array], Array]] = {
    "clustered, 0.05": clustered(0.05, 0.05),
    "clustered, 0.2": clustered(0.05, 0.2),
    "one in 20 loses 40 %": few_bad(0.05, 0.4, 0.005),
    "one in 20 loses 40 %, others 5 %": few_bad(0.05, 0.4, 0.05),
    "one in 50 loses 90 %, others 5 %": few_bad(0.02, 0.9, 0.05),
    "one in 10 loses 80 %, others 5 %": few_bad(0.1, 0.8, 0.05),
    "the longest lose 40 %": longest,
    "all alike": lambda rng, sizes: np.full(sizes.shape, 0.1),
}
FIGURES = (
    Figure("correct", right_answers, lambda sums: sums[..., 0] / sums[..., 1], 1.0, resampled=False),
    Figure("f1", f1_counts, f1, 2 / PREVALENCE),
    Figure("macro_f1", class_counts, macro_f1, 3.0),
    Figure("mean_error", absolute_errors, lambda sums: -sums[..., 0] / sums[..., 1], 8.0),
    Figure("character_errors", edits, lambda sums: -sums[..., 1] / sums[..., 0], 1.5),
)
