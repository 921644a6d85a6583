"""What stays of a suite's rows when their batches have gone by: columns, sizes, and a digest of each row.

In: batches that were checked, one after the other. Out: arrays with one entry a row. The rule: a row is another one only if
an input differs; a copy is no second witness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import ConfigError
from compile.signature import BATCH, Signature

Array = NDArray[Any]
Batch = dict[str, Array]


class Kept:
    """What stays of batches that pass: columns, a digest a row, and the sizes that rows came in."""

    def __init__(self, signature: Signature, part: str) -> None:
        self._signature, self._part = signature, part
        self._columns: list[Batch] = []
        self._digests: list[Array] = []
        self._sizes: dict[str, list[Array]] = {}

    def noting(self, batches: Iterable[tuple[Batch, Batch]]) -> Iterator[Batch]:
        """The batches themselves, each noted as it goes by."""
        for batch, columns in batches:
            self._columns.append({name: np.array(values) for name, values in columns.items()})  # no view of more
            self._digests.append(digests_of(batch, self._signature))
            for name, sizes in sizes_of(batch, self._signature):
                self._sizes.setdefault(name, []).append(sizes)
            yield batch

    def columns(self) -> Batch:
        return _joined(self._columns, self._part)

    def digests(self) -> Array:
        return np.concatenate(self._digests)

    def sizes(self) -> Batch:
        """Of each named axis that varies, the size that every row came in: a column to slice by."""
        found = {name: np.concatenate(sizes) for name, sizes in self._sizes.items()}
        return {name: sizes for name, sizes in found.items() if (sizes != sizes[0]).any()}


def originals(digests: Array, columns: Batch, signature: Signature) -> NDArray[np.int64]:
    """Of each row the first that it repeats, input for input, or itself; with state, in the first stream that its own repeats.

    A copy is no second witness: it is answered, and not counted.
    """
    if signature.state:
        groups = columns.get("group", np.zeros(len(digests), np.int64))
        streams = [np.flatnonzero(groups == name) for name in np.unique(groups)]
        found, first = np.arange(len(digests)), dict[bytes, NDArray[np.int64]]()
        for rows in streams:
            found[rows] = first.setdefault(digests[rows].tobytes(), rows)
        return found
    _, first_seen, kind = np.unique(digests, return_index=True, return_inverse=True)
    return np.asarray(first_seen[kind], np.int64)


def sizes_of(batch: Batch, signature: Signature) -> Iterator[tuple[str, Array]]:
    """Of each named axis, the size that every row of a batch has."""
    for tensor in signature.data_inputs:
        for place, axis in enumerate(tensor.shape):
            if isinstance(axis, str) and axis != BATCH and tensor.batch_axis is not None:
                shape = batch[tensor.name].shape
                yield f"size of {axis}", np.full(shape[tensor.batch_axis], shape[place])


def digests_of(batch: Batch, signature: Signature) -> Array:
    """One digest (SHA-256, 32 bytes) per row of a batch, over all inputs that have rows."""
    axes = {t.name: t.batch_axis for t in signature.data_inputs}
    moved = [np.moveaxis(batch[n], a, 0) for n, a in axes.items() if a is not None and n in batch]
    rows = (b"".join(m[i].tobytes() for m in moved) for i in range(len(moved[0])))
    return np.array([hashlib.sha256(row).digest() for row in rows], "S32")


def _joined(columns: list[Batch], part: str) -> Batch:
    names = columns[0].keys()
    if any(c.keys() != names for c in columns):
        raise ConfigError(f"{part}: some batches bring columns that others do not: {sorted(set().union(*columns))}")
    return {name: _stacked([c[name] for c in columns]) for name in names}


def _stacked(arrays: list[Array]) -> Array:
    """Rows of all batches in one array; ragged label sequences are padded with -1 (or empty strings)."""
    width = max((a.shape[1] for a in arrays if a.ndim == 2), default=0)
    if width and len({a.shape[1:] for a in arrays}) > 1:
        fill = "" if arrays[0].dtype.kind in "US" else -1
        arrays = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill) for a in arrays]
    return np.concatenate(arrays)
