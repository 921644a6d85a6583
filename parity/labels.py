"""Labels that have nothing to do with the answers: refused, for a suite with such labels can lose nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import percent
from compile.config import ModelFile
from compile.errors import ConfigError
from parity import detection
from parity.answers import correct, whole_rows
from parity.kinds import distinct
from parity.rows import Rows

Array = NDArray[Any]
LEAST_ROWS = 30
SEED = 20_261_127
OTHERS = 5
SURE = 3.0
"""Standard deviations above what shuffled labels give; chance alone passes once in 740."""


def refuse_strange(config: ModelFile, labels: Array | None) -> None:
    """ConfigError where a classifier's labels are no classes of it, those of scores no two sides, or a detector's no objects:
    they say nothing about the task."""
    task = config.task
    if task.kind == "binary_score" and labels is not None:
        _refuse_no_sides(labels)
    if task.kind == "detection" and labels is not None and labels.ndim == 3 and not (labels[..., -1] >= 0).any():
        raise ConfigError("suite: labels: no row has an object (class -1 stands for none); leave the labels out")
    classes = config.classes
    if classes is None or labels is None:
        return
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        strange = labels if labels.dtype.kind not in "iu" else labels[(labels < 0) | (labels >= classes)]
        found = f"{labels.dtype} such as {', '.join(str(label) for label in np.unique(strange)[:3])}"
        raise ConfigError(
            f"suite: labels: found {found}; expected integers from 0 to {classes - 1}, the model's classes"
        )


def _refuse_no_sides(labels: Array) -> None:
    kinds = np.unique(labels)
    of_numbers = kinds.dtype.kind in "biuf" and bool(np.isfinite(kinds).all())
    if not of_numbers or len(kinds) > 2 or (len(kinds) == 2 and not kinds[0] <= 0 < kinds[1]):
        found = f"{labels.dtype} such as {', '.join(str(kind) for kind in kinds[:3])}"
        raise ConfigError(
            f"suite: labels: found {found}; expected 0 and 1 (or -1 and 1), of which 1 is what scores are high for"
        )


def refuse_one_answer(rows: Rows) -> None:
    """ConfigError where the source decides every row alike: on such a suite nobody could see an answer that is another."""
    told = _alike(rows) if len(rows) >= LEAST_ROWS else None
    if told is not None:
        raise ConfigError(
            f"suite: the source {told} in all of its {len(rows):,} rows, so that hardly any defect would show. Look at "
            "`task.threshold`, `task.postprocess`, or bring rows that it decides otherwise"
        )


def _alike(rows: Rows) -> str | None:
    """What the source decides in every row; None where it does not, or where answers are no decisions."""
    task, answers = rows.task, rows.reference
    match task.kind:
        case "binary_score":
            above = answers.ravel() >= task.threshold
            side = "at or above" if above.any() else "below"
            return f"is {side} {task.threshold:g}" if above.all() or not above.any() else None
        case "detection":
            found = (answers[..., detection.SCORE] >= task.threshold).any()
            return None if found else f"finds no object at or above {task.threshold:g}"
        case "classification" | "sequence":
            return "gives the same answer" if (answers == answers[0]).all() else None
        case _:
            return None


def refuse_unexpected(right: NDArray[np.bool_], at_least: float) -> None:
    """ConfigError where the source answers fewer rows of this suite as the labels say than the policy expects of it."""
    if right.mean() < at_least:
        raise ConfigError(
            f"suite: the source itself is right on {int(right.sum()):,} of {len(right):,} rows by their labels, "
            f"{percent.share(float(right.mean()))}; the policy expects {percent.share(at_least)} at least (`source`). Either labels, "
            "rows, `preprocess` or the source's weights are not those that the policy was written for"
        )


def refuse_shuffled(rows: Rows) -> None:
    """ConfigError where the source's answers fit the labels no better than chance: such a suite can lose nothing."""
    if rows.labels is None or len(rows) < LEAST_ROWS:
        return
    decisions = decided(rows)
    told = _met_no_more_often(*decisions) if decisions is not None else _fits_no_better(rows, rows.labels)
    if told:
        raise ConfigError(
            f"labels: {told}, so these say nothing about it. Look at their order, at what 1 means, at "
            "`task.threshold`, or leave them out"
        )


def _met_no_more_often(decisions: Array, labels: Array) -> str | None:
    """What shows that plain decisions meet the labels no more often than shuffled ones; None where they do."""
    met, by_chance, deviation = met_by_chance(decisions, labels)
    if deviation == 0 or met >= by_chance + SURE * deviation:
        return None
    return (
        f"the source answers {met:,} of {len(labels):,} rows as they say; shuffled labels would give {by_chance:,.0f} "
        f"(± {deviation:.0f})"
    )


def _fits_no_better(rows: Rows, labels: Array) -> str | None:
    """The same of answers of any kind: they should fit the label of their own row better than those of others."""
    own, others = fit(rows, labels), [fit(rows, labels[of]) for of in others_of(len(rows))]
    better, worse = (np.mean([compared(own, other) for other in others], axis=0) for compared in (np.greater, np.less))
    ahead = better - worse
    if not ahead.any() or ahead.sum() > SURE * math.sqrt(float(ahead @ ahead)):
        return None
    return (
        f"the source's answers fit the label of their row better than another row's in {better.sum():,.0f} of {len(rows):,} "
        f"rows, and worse in {worse.sum():,.0f}"
    )


def fit(rows: Rows, labels: Array) -> NDArray[np.float64]:
    """By row, how well the reference's answer fits a label: of numbers less their distance, of others whether it is right."""
    if rows.task.kind == "regression":
        apart = np.subtract(rows.reference, labels.reshape(rows.reference.shape), dtype=float)
        return np.asarray(-np.linalg.norm(apart, axis=1))
    found = (
        whole_rows(labels[rows.reference[:, 0]] == labels) if rows.near else correct(rows.task, rows.reference, labels)
    )
    return np.zeros(len(rows)) if found is None else found.astype(float)


def others_of(rows: int) -> list[NDArray[np.int64]]:
    """For each row another one, each once, by a fixed seed; several times over."""
    order = np.random.default_rng(SEED).permutation(rows)
    found = np.empty((OTHERS, rows), np.int64)
    for away in range(OTHERS):
        found[away, order] = np.roll(order, away + 1)
    return list(found)


def decided(rows: Rows) -> tuple[Array, Array] | None:
    """The source's decisions and the labels as such; None where a decision is no plain value."""
    labels = rows.labels
    if labels is None or labels.size != len(rows) or rows.reference.size != len(rows):
        return None
    match rows.task.kind:
        case "binary_score":
            return rows.reference.ravel() >= rows.task.threshold, labels.ravel() > 0
        case "classification":
            return rows.reference.ravel(), labels.ravel()
        case _:
            return None


def met_by_chance(one: Array, other: Array) -> tuple[int, float, float]:
    """How many rows are equal, and mean and standard deviation of that number over all orders of one side (exact)."""
    n = len(one)
    kinds, place = distinct(np.concatenate([one, other]))
    a, b = (np.bincount(part, minlength=len(kinds)).astype(float) for part in (place[:n], place[n:]))
    mean = float((a * b).sum()) / n
    pairs = float(a @ b) ** 2 - float((a * a * b * b).sum()) + float((a * (a - 1) * b * (b - 1)).sum())
    variance = mean + pairs / (n * (n - 1)) - mean**2
    return int((one == other).sum()), mean, math.sqrt(max(variance, 0.0))
