"""What a model's outputs mean: the answer for each row, whether two answers agree, whether an answer is right.

Arrays in, arrays out, rows first. One function per question, by the task's kind; no per-model code.
"""

from __future__ import annotations

import math
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from compile.config import TaskConfig, TaskKind
from compile.errors import ConfigError
from parity import detection
from parity.neighbours import gallery_of

Array = NDArray[Any]
Flags = NDArray[np.bool_]
SEQUENCE_END = -1


def answers(kind: TaskKind, output: Array) -> Array:
    """One answer a row. Classes for scores of classification, symbols for scores of sequences, else the output."""
    match kind:
        case "detection":
            return detection.boxes(output)
        case "classification":
            if output.ndim > 1 and output.shape[-1] > 1:
                return np.asarray(np.argmax(output, axis=-1))
            return np.asarray(output if output.ndim == 1 else output[..., 0])
        case "sequence":
            return np.argmax(output, axis=-1) if output.ndim == 3 else output
        case "binary_score":
            return _score(_flat(output))
        case "regression" | "embedding" | "none":
            return _flat(output)
        case _:
            assert_never(kind)


def agree(task: TaskConfig, reference: Array, candidate: Array) -> Flags:
    """Row by row: would whoever acts on the answer act the same?"""
    match task.kind:
        case "classification":
            return whole_rows(np.equal(reference, candidate))
        case "binary_score":
            return np.equal(reference >= task.threshold, candidate >= task.threshold)
        case "sequence":
            return _same_sequence(reference, candidate)
        case "embedding":
            return np.equal(nearest(reference, reference)[:, 0], nearest(candidate, reference)[:, 0])
        case "detection":
            return detection.alike(reference, candidate, task.threshold)
        case "regression" | "none":
            return np.less_equal(relative_error(reference, candidate), task.tolerance)
        case _:
            assert_never(task.kind)


def correct(task: TaskConfig, found: Array, labels: Array) -> Flags | None:
    """Row by row: is the answer right? None for tasks whose labels say nothing about single rows."""
    match task.kind:
        case "classification":
            return whole_rows(np.equal(found, _fitted(labels, found)))
        case "binary_score":
            return np.equal(found >= task.threshold, _fitted(labels, found) > 0)
        case "sequence":
            return _same_sequence(_fitted(labels, found) if found.ndim == 1 else labels, found)
        case "regression":
            return np.less_equal(relative_error(_fitted(labels, found), found), task.tolerance)
        case "embedding":
            return whole_rows(np.equal(labels[nearest(found, found)[:, 0]], labels))
        case "detection":
            return detection.alike(detection.labelled(labels), found, task.threshold)
        case "none":
            return None
        case _:
            assert_never(task.kind)


def _flat(output: Array) -> Array:
    """One line of numbers a row, also where there are no rows."""
    return output.reshape(len(output), math.prod(output.shape[1:]))


def _score(columns: Array) -> Array:
    """The score of each row: the only column, or the second of two (the positive class)."""
    if columns.shape[1] > 2:
        raise ConfigError(
            f"task: binary_score needs one score a row (or two, the second being the positive class); found "
            f"{columns.shape[1]} numbers a row; pick one in `task.postprocess`, or choose another kind"
        )
    return columns[:, -1]


def whole_rows(flags: Flags) -> Flags:
    """A row holds where all of it does: rows are what is counted, whatever lies in them."""
    return np.asarray(_flat(flags).all(axis=1))


def _fitted(labels: Array, found: Array) -> Array:
    """Labels in the shape of the answers; ConfigError where they cannot speak about them."""
    words = (labels.dtype.kind in "US", found.dtype.kind in "US")
    if len(labels) != len(found) or labels.size != found.size or words[0] != words[1]:
        raise ConfigError(
            f"labels: found shape {labels.shape} of {labels.dtype}; expected one for each answer: {found.shape} of "
            f"{found.dtype}"
        )
    return labels.reshape(found.shape)


def _same_sequence(one: Array, other: Array) -> Flags:
    """Equal symbol for symbol, whatever the padding."""
    if one.ndim != other.ndim:
        raise ConfigError(f"sequences: found shapes {one.shape} and {other.shape}; expected symbols in both, or words")
    if one.ndim == 1:
        return np.equal(one, other)
    width = max(one.shape[1], other.shape[1])
    return np.asarray(np.equal(_padded(one, width), _padded(other, width)).all(axis=1))


def _padded(sequences: Array, width: int) -> Array:
    return np.pad(sequences, ((0, 0), (0, width - sequences.shape[1])), constant_values=SEQUENCE_END)


def relative_error(reference: Array, candidate: Array) -> NDArray[np.float64]:
    """Distance of two rows over the reference's length (its typical length, where the row itself is near zero)."""
    lengths = np.linalg.norm(reference.astype(np.float64), axis=1)
    return relative(np.linalg.norm(candidate.astype(np.float64) - reference, axis=1), lengths)


def relative(apart: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances over the lengths of the reference's rows, all rows of the suite at once."""
    scale = np.maximum(lengths, 0.01 * np.median(lengths) + np.finfo(np.float32).tiny)
    return np.asarray(apart / scale)


def nearest(queries: Array, gallery: Array, k: int = 1) -> NDArray[np.int64]:
    """For each row, which k other rows of the gallery are nearest by cosine, the nearest first."""
    return gallery_of([gallery], np.ones(len(gallery), bool)).nearest(queries, 0, k)
