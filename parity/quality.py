"""Metrics of the task: how good each side is by the labels, and how near the candidate is to the reference.

In: the judged rows. Out: a figure of weighted rows, for `bounds`. One function for each metric, by the suite's
`task` alone; adding one is one function and its line in `QUALITIES` or `DISTANCES`. Whatever scikit-learn, scipy or jiwer
have is theirs (the tests hold these figures, which must take weights, against them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from compile.errors import ConfigError
from parity import detection
from parity.kinds import kinds_of
from parity.limit import MOST_KL, Limit, Metric
from parity.rows import Rows
from parity.statistics import counted
from parity.statistics.resampling import Counts, Figure, Sums, Weighted

Array = NDArray[Any]
Flags = NDArray[np.bool_]
TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True, slots=True)
class Quality:
    """A metric of both sides. `figure` gives [..., 2]: the reference's value and the candidate's.

    `differs`: rows on which the sides can differ in it. `worst`: what one share of such rows can cost at most. `errors`:
    the metric counts what is wrong, so that less is better.
    """

    figure: Figure
    differs: Flags
    worst: float
    errors: bool = False


@dataclass(frozen=True, slots=True)
class Distance:
    """A metric of the pair: `figure` gives its value. `differs` and `worst` as in `Quality`."""

    figure: Figure
    differs: Flags
    worst: float


def macro_f1(rows: Rows, limit: Limit) -> Quality:
    """The mean over labelled classes of F1 (scikit-learn's `f1_score(average="macro")` over those classes)."""
    labels, told, said = whole(rows.labels), whole(rows.reference), whole(rows.candidate)
    classes, label = np.unique(labels, return_inverse=True)
    sides = [_place(side, classes) for side in (told, said)]
    hits = [np.where(side == label, label, -1) for side in sides]
    columns = (label, sides[0], label, sides[1], hits[0], hits[1])
    block = np.repeat([0, 1, 2, 3], [2, 2, 1, 1]) * len(classes)
    cells = np.stack([np.where(c >= 0, c + at, -1) for c, at in zip(columns, block, strict=True)], axis=1)

    def figure(counts: Array) -> Array:
        told, said, right, good = np.split(counts, 4, axis=-1)
        sides = [2 * hits / np.maximum(found, TINY) for hits, found in ((right, told), (good, said))]
        return np.stack([side.mean(axis=-1) for side in sides], axis=-1)

    counts = Counts(cells, 4 * len(classes), figure)
    told_of = [np.bincount(side[side >= 0], minlength=len(classes)) for side in sides]
    worst = max(_worst_of_f1(np.bincount(label) + of, len(labels)) for of in told_of)
    return Quality(counts, told != said, worst / len(classes))


def _worst_of_f1(named: Array, rows: int) -> float:
    """What the classes' F1 can lose or win together, for a share of 1 of rows that change. `named`: how often each class is
    labelled and answered, of either side, S. F1 is 2 hits / S: k hits lost leave 2 (hits - k) / (S - k), which is at most
    2 k / S less, and k false answers more leave 2 hits / (S + k), at most k / S less; the two befall different classes."""
    first, *others = np.sort(named)[:2].tolist()
    return float(rows * (2 / first + sum(1 / other for other in others)))


def _place(values: Array, classes: Array) -> NDArray[np.int64]:
    """Which of the classes each value is, -1 for none."""
    place = np.minimum(np.searchsorted(classes, values), len(classes) - 1)
    return np.where(classes[place] == values, place, -1)


def f1(rows: Rows, limit: Limit) -> Quality:
    """F1 of the positive class at the task's threshold; of frames where rows are the frames of a stream."""
    positive = whole(rows.labels) > 0
    told, said = rows.reference >= rows.task.threshold, rows.candidate >= rows.task.threshold
    table = np.stack([positive, told, said, positive & told, positive & said], axis=1)

    def figure(sums: Array) -> Array:
        there, told, said, right, good = np.moveaxis(sums, -1, 0)
        return np.stack(
            [2 * right / np.maximum(there + told, TINY), 2 * good / np.maximum(there + said, TINY)], axis=-1
        )

    named = min(int(positive.sum() + side.sum()) for side in (told, said))
    return Quality(by_kind(table, figure), told != said, 2 * len(positive) / max(named, 1))


def auc(rows: Rows, limit: Limit) -> Quality:
    """Area under the receiver operating characteristic: how often a positive row scores above a negative one."""
    positive = whole(rows.labels) > 0
    sides = (rows.reference, rows.candidate)
    rarer = min(float(positive.mean()), 1 - float(positive.mean()))
    moved = rankdata(rows.reference) != rankdata(rows.candidate)

    def of(weights: Array) -> Array:
        return np.stack([area_under_curve(side, positive)(weights) for side in sides], axis=-1)

    def pooled(unit: NDArray[np.int64]) -> Callable[[Array], Array]:
        curves = [area_of_units(side, positive, unit) for side in sides]
        return lambda weights: np.stack([curve(weights) for curve in curves], axis=-1)

    return Quality(Weighted(of, pooled), moved, 1 / max(rarer, TINY))


def area_under_curve(scores: Array, positive: Flags) -> Callable[[Array], Array]:
    """The area for weights [resamples, rows]; equal scores count one half. NaN where one side has no weight."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) != 0]))
    of_sorted = positive[order]

    def area(weights: Array) -> Array:
        there = weights[:, order]
        high = np.add.reduceat(there * of_sorted, starts, axis=1)
        low = np.add.reduceat(there * ~of_sorted, starts, axis=1)
        below = np.cumsum(low, axis=1) - low / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((high * below).sum(axis=1) / (high.sum(axis=1) * low.sum(axis=1)))

    return area


def area_of_units(scores: Array, positive: Flags, unit: NDArray[np.int64]) -> Callable[[Array], Array]:
    """The same area for weights of units: how often each unit's positives beat each unit's negatives says all of it."""
    wins = wins_of_units(scores, positive, unit)
    count = len(wins)
    there, others = (np.bincount(unit[side], minlength=count).astype(float) for side in (positive, ~positive))

    def area(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(((weights @ wins) * weights).sum(axis=1) / ((weights @ there) * (weights @ others)))

    return area


def wins_of_units(scores: Array, positive: Flags, unit: NDArray[np.int64]) -> Array:
    """[units, units]: pairs in which a positive row of one unit scores above a negative row of the other; ties are halves."""
    order = np.argsort(scores, kind="stable")
    edges = [0, *np.flatnonzero(np.diff(scores[order])) + 1, len(order)]
    count = int(unit.max()) + 1
    wins, below = np.zeros((count, count)), np.zeros(count)
    for start, stop in pairwise(edges):
        tied = order[start:stop]
        others = unit[tied[~positive[tied]]]
        np.add.at(below, others, 0.5)
        for row in unit[tied[positive[tied]]]:
            wins[row] += below
        np.add.at(below, others, 0.5)
    return wins


def character_errors(rows: Rows, limit: Limit) -> Quality:
    """Character error rate: edits over the labels' length."""
    return _edits(rows, lambda row: list(str(row)))


def word_errors(rows: Rows, limit: Limit) -> Quality:
    """Word error rate."""
    return _edits(rows, lambda row: str(row).split())


def _edits(rows: Rows, pieces: Callable[[Any], list[Any]]) -> Quality:
    """Edits of both sides over the length of the labels; symbols stand for characters where answers are no text."""
    from rapidfuzz.distance import Levenshtein

    def taken(sequence: Any) -> list[Any]:
        return pieces(sequence) if sequence.dtype.kind in "US" else [s for s in sequence.tolist() if s >= 0]

    labels = rows.labels
    assert labels is not None
    table = np.zeros((len(rows), 3))
    for place, (label, told, said) in enumerate(zip(labels, rows.reference, rows.candidate, strict=True)):
        wanted = taken(label)
        table[place] = (
            len(wanted),
            Levenshtein.distance(wanted, taken(told)),
            Levenshtein.distance(wanted, taken(said)),
        )
    longest = max(float(table[:, 0].max()) / max(float(table[:, 0].mean()), TINY), 1.0)
    return Quality(
        by_kind(table, lambda s: s[..., 1:] / np.maximum(s[..., :1], TINY)), ~rows.same, longest, errors=True
    )


def mean_error(rows: Rows, limit: Limit) -> Quality:
    """Mean absolute error against the labels."""
    labels = np.asarray(rows.labels, np.float64).reshape(len(rows), -1)
    sides = [np.abs(side.reshape(len(rows), -1) - labels).mean(axis=1) for side in (rows.reference, rows.candidate)]
    table = np.stack([*sides, np.ones(len(rows))], axis=1)
    worst = float(np.max(table[:, :2]))
    return Quality(by_kind(table, lambda s: s[..., :2] / s[..., 2:]), sides[0] != sides[1], worst, errors=True)


def recall_at_k(rows: Rows, limit: Limit) -> Quality:
    """Share of queries with a row of their own label among the k nearest of the reference's gallery."""
    labels = whole(rows.labels)
    hits = [(labels[near[:, : limit.k]] == labels[:, None]).any(axis=1) for near in (rows.reference, rows.candidate)]
    table = np.stack([*hits, np.ones(len(rows))], axis=1).astype(float)
    return Quality(by_kind(table, lambda s: s[..., :2] / s[..., 2:]), hits[0] != hits[1], 1.0)


def mean_average_precision(rows: Rows, limit: Limit) -> Quality:
    """mAP of boxes that overlap an object of their class by half."""
    labels = rows.labels
    assert labels is not None
    sides = (rows.reference, rows.candidate)
    curves = [detection.mean_average_precision(labels, side) for side in sides]
    figure = Weighted(lambda weights: np.stack([curve(weights) for curve in curves], axis=-1))
    unseen = counted.share(0, len(rows), limit.confidence).high
    worst = detection.worst_loss(labels, sides, rows.task.threshold, unseen)
    return Quality(figure, (rows.reference != rows.candidate).any(axis=(1, 2)), worst)


def kl(rows: Rows, limit: Limit) -> Distance:
    """Mean divergence of the candidate's distribution from the reference's, in nats."""
    return mean_of(told(rows, "kl"), MOST_KL)


def confidence_drift(rows: Rows, limit: Limit) -> Distance:
    """Mean absolute change of confidence."""
    shift = np.abs(told(rows, "shift"))
    return mean_of(shift, max(1.0, float(shift.max())))


def cosine_mean(rows: Rows, limit: Limit) -> Distance:
    return mean_of(told(rows, "cosine"), 2.0, perfect=1.0)


def rank_overlap(rows: Rows, limit: Limit) -> Distance:
    """Mean share of the reference's k nearest neighbours that the candidate's query finds too."""
    ours, theirs = (near[:, : limit.k] for near in (rows.reference, rows.candidate))
    shared = np.zeros(len(rows))
    for one in theirs.T:
        shared += (ours == one[:, None]).any(axis=1)
    return mean_of(shared / ours.shape[1], 1.0, perfect=1.0)


def rank_correlation(rows: Rows, limit: Limit) -> Distance:
    """Spearman's correlation of the two sides' scores; Pearson's over the ranks of the whole suite."""
    if rows.reference.ndim > 1 and rows.reference.shape[1] > 1:
        raise ConfigError("rank_correlation needs one number a row; give one in `task.postprocess`")
    a, b = (rankdata(side) / len(rows) for side in (rows.reference.ravel(), rows.candidate.ravel()))
    table = np.stack([np.ones(len(rows)), a, b, a * a, b * b, a * b], axis=1)

    def figure(sums: Array) -> Array:
        n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
        spread = np.sqrt(np.maximum((xx - x * x / n) * (yy - y * y / n), 0))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((xy - x * y / n) / spread)

    return Distance(by_kind(table, figure), a != b, 6.0)


def state_drift(rows: Rows, limit: Limit) -> Distance:
    """How much farther apart the sides are in the later half of each stream than in the earlier: what adds up over time."""
    if rows.groups is None:
        raise ConfigError("state_drift needs streams: a `group` column in the suite, its rows in order of time")
    apart, late = np.abs(rows.facts["error"]), _later_half(rows.groups, rows.columns)
    table = np.stack([apart * late, late, apart * ~late, ~late], axis=1).astype(float)

    def figure(sums: Array) -> Array:
        after, rows_after, before, rows_before = np.moveaxis(sums, -1, 0)
        return np.asarray(after / np.maximum(rows_after, 1) - before / np.maximum(rows_before, 1))

    moved = np.bincount(rows.groups, apart > 0)[rows.groups] > 0
    return Distance(by_kind(table, figure), moved, _heaviest_half(rows.groups, late) * max(float(apart.max()), 1.0))


def _heaviest_half(groups: NDArray[np.int64], late: Flags) -> float:
    """What the rows of one half of a stream weigh in the mean over such halves, over what the stream weighs among all rows,
    at most: 1 where all streams are of one even length. A stream that drifts wholly moves the drift by no more."""
    halves = [np.bincount(groups, half) / max(int(half.sum()), 1) for half in (late, ~late)]
    return float((np.maximum(*halves) * len(groups) / np.bincount(groups)).max())


def _later_half(groups: NDArray[np.int64], columns: Mapping[str, Array]) -> Flags:
    """Which rows lie in the later half of their stream; observed rows of one stream stand in order of time."""
    late = np.zeros(len(groups), bool)
    order = np.argsort(groups, kind="stable")
    for place in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        late[place[len(place) // 2 :]] = True
    return late


def whole(values: Array | None) -> Array:
    """One value a row; ConfigError where a row has several."""
    assert values is not None
    if values.size != len(values):
        raise ConfigError(f"this metric needs one answer a row; found shape {values.shape}; use `task.postprocess`")
    return values.reshape(len(values))


def told(rows: Rows, fact: str) -> NDArray[np.float64]:
    """A number by row; ConfigError where answers do not have it."""
    if fact not in rows.facts:
        raise ConfigError(
            f"this metric needs scores over classes as the answer, to tell `{fact}`; found the bare answer"
        )
    return rows.facts[fact]


def by_kind(table: Array, figure: Callable[[Array], Array]) -> Sums:
    """Rows that add the same are one kind."""
    kinds, kind = kinds_of(table)
    return Sums(kind, kinds.astype(float), figure)


def mean_of(values: Array, worst: float, perfect: float = 0.0) -> Distance:
    """The mean of a number by row."""
    table = np.stack([values, np.ones(len(values))], axis=1).astype(float)
    return Distance(by_kind(table, lambda s: s[..., 0] / s[..., 1]), np.asarray(values != perfect), worst)


QUALITIES: Mapping[Metric, Callable[[Rows, Limit], Quality]] = {
    "macro_f1": macro_f1,
    "f1": f1,
    "auc": auc,
    "character_errors": character_errors,
    "word_errors": word_errors,
    "mean_error": mean_error,
    "recall_at_k": recall_at_k,
    "mean_average_precision": mean_average_precision,
}
DISTANCES: Mapping[Metric, Callable[[Rows, Limit], Distance]] = {
    "kl": kl,
    "confidence_drift": confidence_drift,
    "cosine_mean": cosine_mean,
    "rank_overlap": rank_overlap,
    "rank_correlation": rank_correlation,
    "state_drift": state_drift,
}
