"""Boxes: which of two sides are the same object, and how good a detector is. Arrays in, arrays out.

A detector's answer is `[rows, boxes, 6]`: x1, y1, x2, y2, score, class; a score of 0 is no box. Labels are
`[rows, boxes, 5]`: x1, y1, x2, y2, class; a class below 0 is no box. Two boxes are the same object where they have one
class and overlap by at least `OVERLAP` (intersection over union, as in PASCAL VOC, Everingham et al. 2010).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import ConfigError

Array = NDArray[Any]
OVERLAP = 0.5
SCORE, CLASS = 4, 5
PORTIONS = 100
"""Into how many parts false boxes are split before they are spread over classes."""


def boxes(output: Array) -> Array:
    """A detector's answer as it is; ConfigError where it has another shape."""
    if output.ndim != 3 or output.shape[2] != 6:
        raise ConfigError(
            f"task: detection needs [rows, boxes, 6] (x1, y1, x2, y2, score, class; score 0 for none); found "
            f"{output.shape}; make it in `task.postprocess`"
        )
    return output


def labelled(labels: Array) -> Array:
    """Labels as a detector would answer them, each with a score of 1; ConfigError where they have another shape."""
    if labels.ndim != 3 or labels.shape[2] != 5:
        raise ConfigError(
            f"labels: detection needs [rows, boxes, 5] (x1, y1, x2, y2, class; class -1 for none); found {labels.shape}"
        )
    there = labels[..., 4:] >= 0
    return np.concatenate([labels[..., :4], there.astype(np.float64), labels[..., 4:]], axis=2)


def alike(reference: Array, candidate: Array, threshold: float) -> NDArray[np.bool_]:
    """Rows on which both sides see the same objects with a score of at least `threshold`."""
    found = []
    for one, other in zip(reference, candidate, strict=True):
        ours, theirs = one[one[:, SCORE] >= threshold], other[other[:, SCORE] >= threshold]
        found.append(len(ours) == len(theirs) == int(matched(ours, theirs).sum()))
    return np.array(found, bool)


def matched(truth: Array, found: Array) -> NDArray[np.bool_]:
    """Which of the found boxes meet an object that no better one met: greedily, in the order of their scores."""
    hit = np.zeros(len(found), bool)
    if not len(truth):
        return hit
    overlap = overlaps(found, truth) * (found[:, None, CLASS] == truth[None, :, CLASS])
    free = np.ones(len(truth), bool)
    for place in np.argsort(-found[:, SCORE], kind="stable"):
        best = int(np.argmax(overlap[place] * free))
        if free[best] and overlap[place, best] >= OVERLAP:
            hit[place], free[best] = True, False
    return hit


def overlaps(one: Array, other: Array) -> Array:
    """Intersection over union of every pair, [len(one), len(other)]."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:4], other[None, :, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(side[:, 2:4] - side[:, :2], 0, None), axis=1) for side in (one, other)]
    together = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(shared / np.maximum(together, np.finfo(float).tiny))


def mean_average_precision(labels: Array, answers: Array) -> Callable[[Array], NDArray[np.float64]]:
    """mAP at `OVERLAP` over the classes that are labelled, as a function of weights of rows [resamples, rows].

    The area under the stepwise curve of precision over recall, every box a step (as scikit-learn's average precision,
    with objects that nothing found as missed ones).
    """
    truth = labelled(labels)
    curves = [_precision(truth, answers, kind) for kind in np.unique(labels[labels[..., 4] >= 0][:, 4])]
    return lambda weights: np.asarray(np.mean([curve(weights) for curve in curves], axis=0))


def worst_loss(labels: Array, sides: tuple[Array, Array], threshold: float, unseen: float) -> float:
    """What mAP can lose at most for a share of 1 of rows that differ, where a share of `unseen` or more differs.

    In each such row all objects may be missed, and as many false boxes stand before all others as the fullest row shows (from
    `threshold` up, or labelled). With m of both, a class of n objects keeps a precision of at least j / (j + m) at its j-th and
    loses m objects: at most x (1 + ln(1 + 1 / x)) where x = m / n. They are spread over the classes where they cost most.
    """
    shown = [int((side[..., SCORE] >= threshold).sum(axis=1).max(initial=0)) for side in sides]
    labelled_most = int((labels[..., 4] >= 0).sum(axis=1).max(initial=0))
    _, objects = np.unique(labels[labels[..., 4] >= 0][:, 4], return_counts=True)
    share = max(labelled_most, *shown) * unseen * len(labels) / (PORTIONS * objects)
    taken = np.zeros(len(objects), np.int64)
    for _ in range(PORTIONS):
        taken[np.argmax(_lost((taken + 1) * share) - _lost(taken * share))] += 1
    return float(_lost(taken * share).mean()) / unseen


def _lost(x: Array) -> NDArray[np.float64]:
    """The most that a class loses by m false boxes and m missed objects for each of its objects."""
    some = np.maximum(x, np.finfo(float).tiny)
    return np.asarray(np.minimum(some * (1 + np.log1p(1 / some)), 1.0))


def _precision(truth: Array, answers: Array, kind: float) -> Callable[[Array], Array]:
    """Average precision of one class. NaN for weights under which it is not labelled at all."""
    objects = ((truth[..., SCORE] > 0) & (truth[..., CLASS] == kind)).sum(axis=1)
    found = np.array(list(_boxes_of(truth, answers, kind)), float).reshape(-1, 3)
    found = found[np.argsort(-found[:, 1], kind="stable")]
    found = found[: int(np.flatnonzero(found[:, 2]).max(initial=-1)) + 1]  # false boxes after the last hit cost nothing
    row, hit = found[:, 0].astype(np.int64), found[:, 2]

    def precision(weights: Array) -> Array:
        weight = weights[:, row]
        true = np.cumsum(weight * hit, axis=1)
        steps = true / np.maximum(np.cumsum(weight, axis=1), np.finfo(float).tiny)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((steps * weight * hit).sum(axis=1) / (weights @ objects))

    return precision


def _boxes_of(truth: Array, answers: Array, kind: float) -> Iterator[tuple[int, float, bool]]:
    """Row, score and whether it met an object, of every found box of one class."""
    for row, (objects, found) in enumerate(zip(truth, answers, strict=True)):
        mine = found[(found[:, SCORE] > 0) & (found[:, CLASS] == kind)]
        wanted = objects[(objects[:, SCORE] > 0) & (objects[:, CLASS] == kind)]
        yield from ((row, float(box[SCORE]), bool(hit)) for box, hit in zip(mine, matched(wanted, mine), strict=True))
