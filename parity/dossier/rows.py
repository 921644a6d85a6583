"""The rows of a suite that a page shows, as the data holds them: before `preprocess` where that can be had.

In: the config, the prepared suite, the observed rows wanted. Out: their inputs as facts. The rule: a raw row is shown only
if preparing it again gives, bit for bit, the row that was judged; else the prepared row is shown, and that is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import user_code
from compile.config import ModelFile
from compile.dataset import RESERVED, raw_batches
from compile.errors import LockstepError
from compile.kept import Batch
from compile.project import Project
from compile.signature import Signature
from parity.dossier.document import Shown
from parity.dossier.inputs import LEAST_WAVE, Scale, shown

Array = NDArray[Any]
NEIGHBOURS = 6
"""Frames of the same stream that a waveform shows on either side."""


@dataclass(frozen=True, slots=True)
class Suite:
    """The prepared suite: observed rows in batch order, and the columns in row order."""

    config: ModelFile
    batches: Sequence[Batch]
    columns: Mapping[str, Array]

    @property
    def order(self) -> Array:
        """The data row behind each observed row."""
        return self.columns["row"]


@dataclass(frozen=True, slots=True)
class Rows:
    """The whole suite by data row, one array an input (a list where rows differ in shape), and where they come from."""

    arrays: Mapping[str, Sequence[Array]]
    raw: bool
    groups: Array | None

    def one(self, row: int) -> tuple[Shown, ...]:
        """One data row as facts."""
        here = {name: np.asarray(array[row]) for name, array in self.arrays.items()}
        around = {n: self._around(n, row) for n, a in here.items() if a.ndim == 1 and len(a) >= LEAST_WAVE}
        found = shown(here, _scales(self.arrays), {n: line for n, (line, _) in around.items()})
        return tuple(
            part.model_copy(update={"marked": around[part.name][1]}) if part.kind == "wave" else part for part in found
        )

    def _around(self, name: str, row: int) -> tuple[Array, tuple[float, float]]:
        """A frame with its neighbours in the stream, and the part of the whole that is the frame itself."""
        array = self.arrays[name]
        if self.groups is None:
            return np.asarray(array[row]), (0.0, 1.0)
        stream = np.flatnonzero(self.groups == self.groups[row])
        at = int(np.flatnonzero(stream == row)[0])
        first = max(at - NEIGHBOURS, 0)
        near = stream[first : at + NEIGHBOURS + 1]
        width = len(near)
        return np.concatenate([array[i] for i in near]), ((at - first) / width, (at - first + 1) / width)


def rows_of(project: Project, suite: Suite) -> Rows:
    """The suite's rows as the data holds them if they still prepare to what was judged, else as prepared."""
    prepared = _prepared(suite)
    groups = suite.columns.get("group")
    try:
        raw = _raw(project, suite.config, prepared, len(suite.order))
    except (LockstepError, ValueError, IndexError, KeyError, TypeError):
        raw = None
    return Rows(prepared, False, groups) if raw is None else Rows(raw, True, groups)


def _prepared(suite: Suite) -> dict[str, Sequence[Array]]:
    """The prepared inputs by data row."""
    found: dict[str, list[Array]] = {}
    axes = {t.name: t.batch_axis for t in suite.config.signature.data_inputs}
    at = 0
    for batch in suite.batches:
        moved = {n: np.moveaxis(batch[n], axis, 0) for n, axis in axes.items() if axis is not None}
        for i in range(len(next(iter(moved.values())))):
            for name, array in moved.items():
                found.setdefault(name, [np.empty(0)] * len(suite.order))[int(suite.order[at])] = array[i]
            at += 1
    return dict(found)


def _raw(
    project: Project, config: ModelFile, prepared: Mapping[str, Sequence[Array]], rows: int
) -> dict[str, Sequence[Array]] | None:
    """The raw inputs by data row; None where they do not prepare to what was judged, or do not line up with the rows."""
    preprocess = user_code.function(config.preprocess, "preprocess") if config.preprocess else None
    found: dict[str, list[Array]] = {}
    at = 0
    for raw in raw_batches(project, config.suite, "suite"):
        inputs = preprocess({k: v for k, v in raw.items() if k not in RESERVED}) if preprocess else raw
        count = _agreeing(inputs, prepared, at, config.signature)
        if count is None:
            return None
        for name in _telling(raw, config, count):
            found.setdefault(name, []).extend(raw[name])
        at += count
    whole: dict[str, Sequence[Array]] = {name: array for name, array in found.items() if len(array) == rows}
    return whole if at == rows and whole else None


def _agreeing(
    inputs: Mapping[str, Any], prepared: Mapping[str, Sequence[Array]], at: int, sig: Signature
) -> int | None:
    """How many rows a batch has, if each is the judged one; else None."""
    count = None
    for tensor in sig.data_inputs:
        if tensor.batch_axis is None:
            continue
        array = np.moveaxis(np.asarray(inputs[tensor.name]), tensor.batch_axis, 0)
        count = len(array)
        if not all(np.array_equal(array[i], prepared[tensor.name][at + i]) for i in range(count)):
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


def _scales(arrays: Mapping[str, Sequence[Array]]) -> dict[str, Scale]:
    """Mean and spread of each feature of the inputs that are short lines of numbers."""
    found = {}
    for name, rows in arrays.items():
        first = np.asarray(rows[0])
        if first.ndim <= 1 and first.size < LEAST_WAVE and first.dtype.kind in "fiub":
            stacked = np.stack([np.asarray(row) for row in rows]).astype(np.float64)
            found[name] = Scale(stacked.mean(axis=0), stacked.std(axis=0))
    return found
