"""What may go wrong with tables and windows of a series before a model: their columns, their unit, their place in time.

In: the shape of a batch, a row of columns each or a window of such rows. Out: mistakes as (said of the candidate, the
remedy, the change). The rule: the last axis holds the columns; where there are many, they are no table's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mistake = tuple[str, str, Callable[[Array], Array]]
FEW_COLUMNS = 12
"""A table so narrow is tried with every two of its columns swapped."""
FACTORS = (0.0, 1e-3, 1e-2, 0.1, 10.0, 100.0, 1e3)


def changes(shape: Sequence[int], *, floats: bool) -> Iterator[Mistake]:
    """Two columns swapped; one left out, or in another unit; a window a step off; each row by its own mean and deviation."""
    if 1 < shape[-1] <= FEW_COLUMNS:
        yield from _columns(shape[-1])
    if len(shape) == 3:
        for way in (1, -1):
            yield f"moved by {way} along axis 1", "where the suite has it", partial(_moved, way)
    if floats:
        yield from _each_by_its_own(len(shape))


def _columns(width: int) -> Iterator[Mistake]:
    for a, b in combinations(range(width), 2):
        yield f"with its columns {a} and {b} swapped", "in the suite's order", partial(_swapped, a, b)
    for column, factor in product(range(width), FACTORS):
        said = f"with its column {column} {factor:g} times as large" if factor else f"without its column {column}"
        yield said, "as the suite has it", partial(_scaled, column, factor)


def _swapped(a: int, b: int, array: Array) -> Array:
    order = list(range(array.shape[-1]))
    order[a], order[b] = b, a
    return array[..., order]


def _scaled(column: int, factor: float, array: Array) -> Array:
    scaled = array.copy()
    scaled[..., column] = scaled[..., column] * factor
    return scaled


def _moved(way: int, array: Array) -> Array:
    """Every step one place further on; the one that comes free is a copy of its neighbour."""
    places = np.clip(np.arange(array.shape[1]) - way, 0, array.shape[1] - 1)
    return np.take(array, places, axis=1)


def _each_by_its_own(rank: int) -> Iterator[Mistake]:
    """Normalization by what one request holds, not by what the suite holds."""
    remedy = "normalized as the suite has it"
    whole = tuple(range(1, rank))
    yield "normalized by each row's own mean and deviation", remedy, partial(_standardized, whole)
    if rank == 3:
        yield "normalized by each window's own mean and deviation of each column", remedy, partial(_standardized, (1,))
    yield "scaled to each row's own largest magnitude", remedy, partial(_to_peak, whole)


def _standardized(axes: tuple[int, ...], array: Array) -> Array:
    wide = array.astype(np.float64)
    deviation = wide.std(axis=axes, keepdims=True)
    return np.asarray((wide - wide.mean(axis=axes, keepdims=True)) / np.where(deviation, deviation, 1.0))


def _to_peak(axes: tuple[int, ...], array: Array) -> Array:
    peak = np.abs(array.astype(np.float64)).max(axis=axes, keepdims=True)
    return np.asarray(array / np.where(peak, peak, 1.0))
