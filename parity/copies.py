"""Rows that repeat others: no second witness, yet what is said of them is said of the row that they repeat.

In: the suite's columns, and which observed rows are answered alike. Out: whose answer stands for each row. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]


def standing_for(columns: Mapping[str, NDArray[Any]], same: NDArray[np.bool_]) -> Codes | None:
    """For each observed row the one whose answers stand for it: its own, or, where those are alike, those of the first of its
    copies where they are not. None where the suite has no copies."""
    if "original" not in columns:
        return None
    order = columns["row"]
    here = np.arange(len(order))
    place = np.empty(len(order), np.int64)
    place[order] = here
    original = place[columns["original"][order]]
    other = here[~same & (original != here)]
    other = other[same[original[other]]][::-1]
    stands = here.copy()
    stands[original[other]] = other
    return stands
