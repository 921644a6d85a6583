"""Labels that have nothing to do with the answers: refused, for a suite with such labels can lose nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.config import ModelFile
from compile.errors import ConfigError
from parity.kinds import distinct
from parity.rows import Rows

Array = NDArray[Any]
LEAST_ROWS = 30
SURE = 3.0
"""Standard deviations above what shuffled labels give; chance alone passes once in 740."""


def refuse_strange(config: ModelFile, labels: Array | None) -> None:
    """ConfigError where a classifier's labels are no classes of it: such a suite says nothing about the task."""
    task = config.task
    named = [t for t in config.signature.answers if task.output in (None, t.name)]
    classes = named[0].shape[-1] if named and len(named[0].shape) > 1 else None
    if task.kind != "classification" or task.postprocess or labels is None or not isinstance(classes, int):
        return
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        strange = labels if labels.dtype.kind not in "iu" else labels[(labels < 0) | (labels >= classes)]
        found = f"{labels.dtype} such as {', '.join(str(label) for label in np.unique(strange)[:3])}"
        raise ConfigError(
            f"suite: labels: found {found}; expected integers from 0 to {classes - 1}, the model's classes"
        )


def refuse_shuffled(rows: Rows) -> None:
    """ConfigError where the source answers as the labels say no more often than it would by chance."""
    decisions = decided(rows)
    if decisions is None:
        return
    met, by_chance, deviation = met_by_chance(*decisions)
    if deviation > 0 and met < by_chance + SURE * deviation:
        n = len(decisions[0])
        raise ConfigError(
            f"labels: the source answers {met:,} of {n:,} rows as they say; shuffled labels would give {by_chance:,.0f} "
            f"(± {deviation:.0f}), so these say nothing about it. Look at their order, at what 1 means, at "
            "`task.threshold`, or leave them out"
        )


def decided(rows: Rows) -> tuple[Array, Array] | None:
    """The source's decisions and the labels as such; None where rows are few or a decision is no plain value."""
    labels = rows.labels
    if labels is None or len(rows) < LEAST_ROWS or labels.size != len(rows) or rows.reference.size != len(rows):
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
