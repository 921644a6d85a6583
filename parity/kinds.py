"""Which rows are alike: values, rows of a table and names as numbers from 0.

Pure functions of arrays. Sorting millions of rows is most of what judging a small model's answers costs, so what can be
counted is counted, and rows that are all different are left as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Codes = NDArray[np.int64]
FEW_KINDS = 200
"""Units of no more kinds than this are resampled as so many of each kind: at any number of rows, without pooling."""
A_FEW = 10_000
"""How many rows tell whether kinds are few."""
NEAR = 10_000
"""Whole numbers that span no more than this are counted."""


def distinct(values: Array) -> tuple[Array, Codes]:
    """What `numpy.unique` gives with its inverse: the values in their order, and which of them each one is."""
    if values.dtype.kind not in "biu" or not len(values) or int(values.max()) - int(values.min()) > NEAR:
        found, place = np.unique(values, return_inverse=True)
        return found, place
    low = values.min()
    above = values.astype(np.int64) - low.astype(np.int64)
    there = np.bincount(above) > 0
    found = np.flatnonzero(there) + low.astype(np.int64)
    return found.astype(values.dtype), (np.cumsum(there) - 1)[above]


def kinds_of(table: Array) -> tuple[Array, Codes]:
    """The different rows of a table, and which of them each row is; all rows, each its own kind, where the first already
    differ too much for kinds to be of use. Column by column, so that only numbers are sorted."""
    if len(table) > A_FEW and len(np.unique(table[:A_FEW], axis=0)) > FEW_KINDS:
        return table, np.arange(len(table))
    kind = np.zeros(len(table), np.int64)
    for column in table.T:
        found, value = distinct(column)
        _, kind = distinct(kind * len(found) + value)
    first = np.full(int(kind.max(initial=-1)) + 1, len(kind))
    np.minimum.at(first, kind, np.arange(len(kind)))
    return table[first], kind


def codes(groups: Array) -> Codes | None:
    """Groups as numbers from 0; None where every row is a group of its own."""
    names, found = distinct(groups)
    return None if len(names) == len(groups) else np.asarray(found, np.int64)
