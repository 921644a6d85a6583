"""How sure an answer is, row by row, and how far the candidate moved it: one meaning for each kind of task.

Arrays in, arrays out, rows first. `drift` orders the rows that are answered differently: the largest first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from compile.config import TaskConfig
from parity import answers
from parity.answers import relative_error
from parity.observed import joined
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

    def of(self, rows: NDArray[np.int64]) -> Sureness:
        """Of these rows alone."""
        ours, theirs = (None if side is None else side[rows] for side in (self.reference, self.candidate))
        return Sureness(self.name, ours, theirs, self.drift[rows], self.drift_name)


def sureness(task: TaskConfig, pair: tuple[Array, Array], scores: tuple[Array | None, Array | None]) -> Sureness:
    """Of reference and candidate, in this order."""
    reference, candidate = pair
    match task.kind:
        case "classification":
            return _of_classes(reference, candidate, *scores)
        case "binary_score":
            ours, theirs = (np.asarray(one, np.float64).reshape(len(one)) for one in pair)
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


def streamed(task: TaskConfig, results: Iterable[tuple[Array, Array]]) -> tuple[Array, Array, Sureness]:
    """Both sides' answers and how sure they are, of results that come batch by batch: scores are not held."""
    told, said, parts = [], [], []
    for one, other in results:
        told.append(answers.answers(task.kind, one))
        said.append(answers.answers(task.kind, other))
        if task.kind == "classification" and one.ndim == 2 and one.shape[1] > 1:
            parts.append(_of_classes(told[-1], said[-1], one, other))
    ours, theirs = joined(told, task.kind), joined(said, task.kind)
    if len(parts) < len(told) or any(part.reference is None for part in parts):
        return ours, theirs, sureness(task, (ours, theirs), (None, None))
    whole = [np.concatenate(side) for side in zip(*((p.reference, p.candidate, p.drift) for p in parts), strict=True)]
    return ours, theirs, Sureness(parts[0].name, whole[0], whole[1], whole[2], parts[0].drift_name)


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
