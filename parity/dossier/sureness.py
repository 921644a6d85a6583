"""How sure an answer is, row by row, and how far the candidate moved it: one meaning for each kind of task.

Arrays in, arrays out, rows first. `drift` orders the rows that are answered differently: the largest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from compile.config import TaskConfig
from parity.answers import relative_error
from parity.rows import probabilities

Array = NDArray[Any]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sureness:
    """`reference` and `candidate`: how sure each is of its own answer, or None where answers are all there is."""

    name: str
    reference: Numbers | None
    candidate: Numbers | None
    drift: Numbers
    drift_name: str


def sureness(task: TaskConfig, answers: tuple[Array, Array], scores: tuple[Array | None, Array | None]) -> Sureness:
    """Of reference and candidate, in this order."""
    reference, candidate = answers
    match task.kind:
        case "classification":
            return _of_classes(reference, candidate, *scores)
        case "binary_score":
            ours, theirs = (np.asarray(one, np.float64).reshape(len(one)) for one in answers)
            return Sureness("score", ours, theirs, np.abs(theirs - ours), "change of score")
        case "regression" | "none":
            drift = np.asarray(relative_error(reference, candidate), np.float64)
            return Sureness("", None, None, drift, "relative error")
        case "embedding":
            return Sureness("", None, None, 1 - _cosine(reference, candidate), "1 − cosine similarity")
        case "sequence":
            return Sureness("", None, None, _unlike(reference, candidate), "symbols that differ")
        case "detection":
            unlike = np.not_equal(reference, candidate).reshape(len(reference), -1).sum(axis=1)
            return Sureness("", None, None, unlike.astype(np.float64), "numbers of boxes that differ")
        case _:
            assert_never(task.kind)


def _of_classes(reference: Array, candidate: Array, ours: Array | None, theirs: Array | None) -> Sureness:
    """Confidence is the top class's probability; drift is what the reference's own class lost of it."""
    if ours is None or theirs is None or ours.shape != theirs.shape or reference.dtype.kind not in "iu":
        unlike = np.not_equal(reference, candidate).reshape(len(reference), -1).sum(axis=1)
        return Sureness("", None, None, unlike.astype(np.float64), "classes that differ")
    one, other = probabilities(ours), probabilities(theirs)
    rows = np.arange(len(one))
    drift = one[rows, reference] - other[rows, reference]
    return Sureness("confidence", one.max(axis=1), other.max(axis=1), drift, "loss of confidence")


def _cosine(one: Array, other: Array) -> Numbers:
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
    return np.asarray((a * b).sum(axis=1) / lengths)


def _unlike(one: Array, other: Array) -> Numbers:
    if one.ndim == 1:
        return np.not_equal(one, other).astype(np.float64)
    width = max(one.shape[1], other.shape[1])
    padded = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=-1) for a in (one, other)]
    return np.asarray(np.not_equal(*padded).sum(axis=1), np.float64)
