"""Slices of a suite: the rows that share a label or a metadata value. Small ones are pooled, never dropped unseen.

Columns in, boolean masks over the observed rows out. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import ConfigError, nearest

NOT_SLICED = ("id", "group", "row")
MOST_VALUES = 200
"""A column with more values than this names rows, not kinds of rows."""


@dataclass(frozen=True, slots=True)
class Slice:
    """`labels = 6`, and which of the observed rows it holds."""

    name: str
    rows: NDArray[np.bool_]

    @property
    def size(self) -> int:
        return int(self.rows.sum())


def slices(columns: Mapping[str, NDArray[Any]], by: Sequence[str], smallest: int) -> list[Slice]:
    """The slices of every column of `by`, or of every column that can be sliced where `by` is empty.

    Values with fewer rows than `smallest` are one slice together; ConfigError where a column cannot be sliced.
    """
    possible = [name for name, values in columns.items() if name not in NOT_SLICED and _is_discrete(values)]
    for name in by:
        if name not in possible:
            raise ConfigError(
                f"policy: worst_slice: by: the suite has no column `{name}` of at most {MOST_VALUES} kinds; it has "
                f"{', '.join(possible) or 'none'}{nearest(name, possible)}"
            )
    return [part for name in by or possible for part in _of_column(name, columns[name][columns["row"]], smallest)]


def _is_discrete(values: NDArray[Any]) -> bool:
    return values.ndim == 1 and values.dtype.kind in "iubUS" and 1 < len(np.unique(values)) <= MOST_VALUES


def _of_column(name: str, values: NDArray[Any], smallest: int) -> list[Slice]:
    kinds, counts = np.unique(values, return_counts=True)
    large = [Slice(f"{name} = {kind}", values == kind) for kind in kinds[counts >= smallest]]
    small = kinds[counts < smallest]
    if not len(small):
        return large
    return [*large, Slice(f"{name} = {', '.join(str(kind) for kind in small)} together", np.isin(values, small))]
