"""What a model's outputs mean: the answer for each row, whether two answers agree, whether an answer is right.

Arrays in, arrays out, rows first. One function per question, by the task's kind; no per-model code.
"""

from __future__ import annotations

from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from compile.config import TaskConfig, TaskKind

Array = NDArray[Any]
Flags = NDArray[np.bool_]
SEQUENCE_END = -1


def answers(kind: TaskKind, output: Array) -> Array:
    """One answer a row. Classes for scores of classification, symbols for scores of sequences, else the output."""
    match kind:
        case "classification":
            return output if output.ndim == 1 else np.argmax(output, axis=-1)
        case "sequence":
            return np.argmax(output, axis=-1) if output.ndim == 3 else output
        case "binary_score":
            return output.reshape(len(output), -1)[:, -1]
        case "regression" | "embedding" | "none":
            return output.reshape(len(output), -1)
        case _:
            assert_never(kind)


def agree(task: TaskConfig, reference: Array, candidate: Array) -> Flags:
    """Row by row: would whoever acts on the answer act the same?"""
    match task.kind:
        case "classification":
            return reference == candidate
        case "binary_score":
            return (reference >= task.threshold) == (candidate >= task.threshold)
        case "sequence":
            return _same_sequence(reference, candidate)
        case "embedding":
            return _nearest(reference, reference) == _nearest(candidate, reference)
        case "regression" | "none":
            return _relative_error(reference, candidate) <= task.tolerance
        case _:
            assert_never(task.kind)


def correct(task: TaskConfig, found: Array, labels: Array) -> Flags | None:
    """Row by row: is the answer right? None for tasks whose labels say nothing about single rows."""
    match task.kind:
        case "classification":
            return found == labels
        case "binary_score":
            return (found >= task.threshold) == (labels.reshape(-1) > 0)
        case "sequence":
            return _same_sequence(labels, found)
        case "regression":
            return _relative_error(labels.reshape(len(labels), -1).astype(np.float64), found) <= task.tolerance
        case "embedding":
            return labels[_nearest(found, found)] == labels
        case "none":
            return None
        case _:
            assert_never(task.kind)


def _same_sequence(one: Array, other: Array) -> Flags:
    """Equal symbol for symbol, whatever the padding."""
    if one.ndim == 1 or other.ndim == 1:
        return one == other
    width = max(one.shape[1], other.shape[1])
    return (_padded(one, width) == _padded(other, width)).all(axis=1)


def _padded(sequences: Array, width: int) -> Array:
    return np.pad(sequences, ((0, 0), (0, width - sequences.shape[1])), constant_values=SEQUENCE_END)


def _relative_error(reference: Array, candidate: Array) -> NDArray[np.float64]:
    """Distance of two rows over the reference's length (its typical length, where the row itself is near zero)."""
    lengths = np.linalg.norm(reference.astype(np.float64), axis=1)
    scale = np.maximum(lengths, 0.01 * np.median(lengths) + np.finfo(np.float32).tiny)
    return np.asarray(np.linalg.norm(candidate.astype(np.float64) - reference, axis=1) / scale)


def _nearest(queries: Array, gallery: Array) -> NDArray[np.int64]:
    """For each row, which other row of the gallery is nearest by cosine; in blocks, so that memory stays flat."""
    items = gallery / np.maximum(np.linalg.norm(gallery, axis=1, keepdims=True), 1e-12)
    units = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    found = np.zeros(len(units), np.int64)
    for start in range(0, len(units), 512):
        block = units[start : start + 512] @ items.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        found[start : start + 512] = block.argmax(axis=1)
    return found
