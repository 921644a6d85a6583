"""The rows of a suite that a page shows, as the data holds them: before `preprocess` where that can be had.

In: the config, the prepared suite, the data rows wanted. Out: their inputs as facts; a batch at a time is read, and no other
row is held (of a model with state all are: its streams lie across batches). The rule: a raw row is shown only if preparing
the suite again gives, bit for bit, what was judged; else the prepared row is shown, and that is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import user_code
from compile.config import ModelFile
from compile.dataset import RESERVED, batches_of, raw_batches
from compile.errors import LockstepError
from compile.kept import Batch
from compile.project import Project
from compile.signature import Signature
from parity.dossier.inputs import LEAST_WAVE, Range, Scale, shown
from parity.dossier.pair import Shown

Array = NDArray[Any]
NEIGHBOURS = 6
"""Frames of the same stream that a waveform shows on either side."""
FILES_HELD = 2
ByRow = Mapping[int, Array] | Sequence[Array]


@dataclass(frozen=True, slots=True)
class Suite:
    """The prepared suite: its folder, and the columns in row order."""

    config: ModelFile
    folder: Path
    columns: Mapping[str, Array]

    @property
    def order(self) -> Array:
        """The data row behind each observed row."""
        return self.columns["row"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs by data row, of the rows that were wanted and their neighbours; whether raw; how features are spread; and of
    pictures in bytes the least and the largest byte of the suite."""

    arrays: Mapping[str, ByRow]
    raw: bool
    groups: Array | None
    scales: Mapping[str, Scale] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def one(self, row: int) -> tuple[Shown, ...]:
        """One data row as facts."""
        here = {name: np.asarray(array[row]) for name, array in self.arrays.items()}
        around = {n: self._around(n, row) for n, a in here.items() if a.ndim == 1 and len(a) >= LEAST_WAVE}
        found = shown(here, self.scales, {n: line for n, (line, _) in around.items()}, self.ranges)
        return tuple(
            part.model_copy(update={"marked": around[part.name][1]}) if part.kind == "wave" else part for part in found
        )

    def _around(self, name: str, row: int) -> tuple[Array, tuple[float, float]]:
        """A frame with its neighbours in the stream, and the part of the whole that is the frame itself."""
        array = self.arrays[name]
        near = neighbours(self.groups, row)
        at, width = near.index(row), len(near)
        return np.concatenate([array[i] for i in near]), (at / width, (at + 1) / width)


def neighbours(groups: Array | None, row: int) -> list[int]:
    """A row with those before and after it in its stream; itself alone where there are no streams."""
    if groups is None:
        return [row]
    stream = np.flatnonzero(groups == groups[row])
    at = int(np.flatnonzero(stream == row)[0])
    return [int(i) for i in stream[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS + 1]]


def rows_of(project: Project, suite: Suite, wanted: Collection[int]) -> Rows:
    """These rows as the data holds them if the suite still prepares to what was judged, else as prepared."""
    groups = suite.columns.get("group")
    needed = {near for row in wanted for near in neighbours(groups, row)}
    prepared = Prepared(suite)
    try:
        raw = _raw(project, suite.config, prepared, needed)
    except (LockstepError, ValueError, IndexError, KeyError, TypeError):
        raw = None
    if raw is not None:
        return Rows(raw.arrays, True, groups, raw.scales(), raw.ranges)
    taken = Taken(needed)
    for rows, batch in prepared.batches():
        taken.take(rows, batch)
    return Rows(taken.arrays, False, groups, taken.scales(), taken.ranges)


class Prepared:
    """The prepared inputs by data row, read from the batch that holds it."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        signature = suite.config.signature
        self._axes = {t.name: t.batch_axis for t in signature.data_inputs}
        self._paths = sorted((suite.folder / "batches").glob("*.npz"))
        self._file, self._place = (np.zeros(len(suite.order), np.int64) for _ in range(2))
        for number, (rows, _) in enumerate(self.batches()):
            self._file[rows], self._place[rows] = number, np.arange(len(rows))
        self._held = lru_cache(None if signature.state else FILES_HELD)(self._read)

    def __len__(self) -> int:
        return len(self._suite.order)

    def batches(self) -> Iterator[tuple[Array, Batch]]:
        """Data rows and inputs of each batch, rows first."""
        at = 0
        for batch in batches_of(self._suite.folder):
            moved = self._moved(batch)
            count = len(next(iter(moved.values())))
            yield self._suite.order[at : at + count], moved
            at += count

    def row(self, name: str, row: int) -> Array:
        """One input of one data row; IndexError past the last."""
        return np.asarray(self._held(int(self._file[row]))[name][self._place[row]])

    def _read(self, number: int) -> Batch:
        with np.load(self._paths[number], allow_pickle=False) as batch:
            return self._moved({name: batch[name] for name in batch.files})

    def _moved(self, batch: Batch) -> Batch:
        return {n: np.moveaxis(batch[n], axis, 0) for n, axis in self._axes.items() if axis is not None}


class Taken:
    """What is taken of arrays as they go by: the rows needed, mean and spread of short lines of numbers, the range of bytes."""

    def __init__(self, needed: Collection[int]) -> None:
        self._needed = needed
        self._count: dict[str, int] = {}
        self._moments: dict[str, tuple[int, Array, Array] | None] = {}
        self.arrays: dict[str, dict[int, Array]] = {}
        self.ranges: dict[str, Range] = {}

    def take(self, rows: Array, arrays: Mapping[str, Array]) -> None:
        """`rows`: the data row of each entry."""
        for name, array in arrays.items():
            self._count[name] = self._count.get(name, 0) + len(array)
            held = self.arrays.setdefault(name, {})
            held |= {int(row): np.array(array[i]) for i, row in enumerate(rows) if int(row) in self._needed}
            if array.dtype == np.uint8:
                low, high = self.ranges.get(name, (255, 0))
                self.ranges[name] = min(low, int(array.min())), max(high, int(array.max()))
            line = array[0]
            narrow = line.ndim <= 1 and line.size < LEAST_WAVE and line.dtype.kind in "fiub"
            self._moments[name] = _pooled(self._moments.get(name, _NONE), array) if narrow else None

    def drop_incomplete(self, rows: int) -> None:
        """Arrays that some batches lack are no inputs."""
        self.arrays = {name: array for name, array in self.arrays.items() if self._count[name] == rows}

    def scales(self) -> dict[str, Scale]:
        """Mean and spread of each feature of the inputs that are short lines of numbers."""
        return {
            name: Scale(found[1], np.sqrt(found[2] / found[0]))
            for name, found in self._moments.items()
            if found is not None and name in self.arrays
        }


_NONE: tuple[int, Array, Array] = (0, np.zeros(()), np.zeros(()))


def _pooled(before: tuple[int, Array, Array] | None, array: Array) -> tuple[int, Array, Array] | None:
    """Count, mean and sum of squares about it, with one more batch (Chan, Golub & LeVeque 1979); None where widths differ."""
    if before is None or (before[0] and before[1].shape != array.shape[1:]):
        return None
    count, mean, squares = before
    exact = array.astype(np.float64)
    here, many = exact.mean(axis=0), count + len(exact)
    apart = here - mean
    spread = squares + ((exact - here) ** 2).sum(axis=0) + apart**2 * count * len(exact) / many
    return many, np.asarray(mean + apart * len(exact) / many), np.asarray(spread)


def _raw(project: Project, config: ModelFile, prepared: Prepared, needed: Collection[int]) -> Taken | None:
    """The raw inputs of these rows; None where the suite does not prepare to what was judged, or does not line up."""
    preprocess = user_code.function(config.preprocess, "preprocess") if config.preprocess else None
    signature, taken, at = config.signature, Taken(needed), 0
    for raw in raw_batches(project, config.suite, "suite"):
        inputs = preprocess({k: v for k, v in raw.items() if k not in RESERVED}) if preprocess else raw
        count = _agreeing(inputs, prepared, at, signature)
        if count is None:
            return None
        taken.take(np.arange(at, at + count), {name: raw[name] for name in _telling(raw, config, count)})
        at += count
    taken.drop_incomplete(len(prepared))
    return taken if at == len(prepared) and taken.arrays else None


def _agreeing(inputs: Mapping[str, Any], prepared: Prepared, at: int, sig: Signature) -> int | None:
    """How many rows a batch has, if each is the judged one; else None."""
    count = None
    for tensor in sig.data_inputs:
        if tensor.batch_axis is None:
            continue
        array = np.moveaxis(np.asarray(inputs[tensor.name]), tensor.batch_axis, 0)
        count = len(array)
        if not all(np.array_equal(array[i], prepared.row(tensor.name, at + i)) for i in range(count)):
            return None
    return count


def _telling(raw: Batch, config: ModelFile, count: int) -> Iterator[str]:
    """The raw arrays that are inputs: the declared ones, what `preprocess` alone can read, and a column of texts."""
    declared = set(config.inputs)
    for name, array in raw.items():
        if name in RESERVED or array.ndim == 0 or len(array) != count:
            continue
        words = array.dtype.kind in "US"
        text = words and (name in ("text", "sentence", "document", "body") or len(np.unique(array)) > 200)
        if name in declared or text or (config.preprocess and array.ndim > 1):
            yield name
