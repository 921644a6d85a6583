"""Slices of a suite: the rows that share a label, a metadata value, a size, or how sure the reference was of them.

In: the judged rows and the columns to cut them by. Out: the slice that decides a `worst_slice` limit, with all others
listed. Small slices are pooled, never dropped unseen. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from compile.errors import ConfigError, nearest
from parity.kinds import codes, distinct
from parity.limit import CONFIDENCE, NOT_SLICED, Limit
from parity.rows import Rows
from parity.statistics import counted, estimate
from parity.statistics.bounds import Bounded
from parity.statistics.counted import Interval
from parity.verdict import LEAST_GROUPS, TOO_SMALL, Measured

Array = NDArray[Any]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]
MOST_VALUES = 200
"""A column with more values than this is cut into quarters where it holds numbers, and else names rows, not kinds of rows."""
DECILES, QUARTERS = 10, 4
SURELY = 0.05
MOST_NAMED = 3
"""Of the small kinds that are one slice together."""
KINDS_TOO_SMALL = "not supported where every kind of a column is too small to be a slice"


@dataclass(frozen=True, slots=True)
class Slice:
    """`labels = 6`, and which of the judged rows it holds, in ascending order. `pooled`: several small ones together; `every`:
    all kinds of the column are, so that nothing is known of any of them."""

    name: str
    rows: Codes
    pooled: bool = False
    every: bool = False

    @property
    def size(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Kinds:
    """A column as kinds of rows: their names, and which of them each row is of."""

    names: Sequence[str]
    place: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Part:
    """One slice as it was found. `differs`: surely agrees more or less often than the rest (Holm over all slices)."""

    name: str
    n: int
    value: float
    low: float
    high: float
    pooled: bool
    differs: bool


def columns_to_slice(rows: Rows) -> dict[str, Kinds]:
    """The columns of the suite as kinds of rows, and the reference's confidence."""
    return cut_columns(rows.columns, rows.facts.get("confidence"))


def cut_columns(columns: Mapping[str, Array], confidence: Array | None) -> dict[str, Kinds]:
    """Every column that kinds of rows can be read from, the reference's confidence in tenths among them."""
    found = {name: as_kinds(values, QUARTERS) for name, values in columns.items() if name not in NOT_SLICED}
    if confidence is not None:
        found[CONFIDENCE] = as_kinds(confidence, DECILES)
    return {name: kinds for name, kinds in found.items() if kinds is not None}


def as_kinds(values: Array, pieces: int = QUARTERS) -> Kinds | None:
    """A column as kinds of rows: its values where they are few, else pieces of equal size; None where it is neither."""
    if values.ndim != 1 or values.dtype.kind not in "iubUSf":
        return None
    found, place = distinct(values)
    if len(found) < 2:
        return None
    if values.dtype.kind != "f" and len(found) <= MOST_VALUES:
        return Kinds([str(kind) for kind in found], place.astype(np.int16))
    if values.dtype.kind in "US":
        return None
    edges = np.unique(np.quantile(values, np.linspace(0, 1, pieces + 1)))
    if len(edges) < 3:
        return None
    inside = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return Kinds([f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)], inside.astype(np.int16))


def slices(columns: Mapping[str, Kinds], by: Sequence[str], smallest: int, groups: Array | None = None) -> list[Slice]:
    """The slices of every column of `by`, or of every column where `by` is empty: see `slices_by_column`."""
    return [part for parts in slices_by_column(columns, by, smallest, groups) for part in parts]


def slices_by_column(
    columns: Mapping[str, Kinds], by: Sequence[str], smallest: int, groups: Array | None = None
) -> list[list[Slice]]:
    """The slices, column by column.

    Values with fewer rows than `smallest`, or fewer groups than an interval needs, are one slice together. A column all of
    whose values are is left out, unless it was asked for or there is no other. ConfigError where a column cannot be sliced.
    """
    for name in by:
        if name not in columns:
            raise ConfigError(
                f"policy: worst_slice: by: the suite has no column `{name}` that kinds of rows can be read from; it has "
                f"{', '.join(columns) or 'none'}{nearest(name, columns)}"
            )
    found = [_of_column(name, columns[name], smallest, groups) for name in by or columns]
    telling = [parts for parts in found if not any(part.every for part in parts)]
    return found if by or not telling else telling


def _of_column(name: str, kinds: Kinds, smallest: int, groups: Array | None) -> list[Slice]:
    order = np.argsort(kinds.place, kind="stable")
    edges = np.searchsorted(kinds.place[order], np.arange(1, len(kinds.names)))
    named = zip(kinds.names, np.split(order, edges), strict=True)
    parts = [Slice(f"{name} = {kind}", rows) for kind, rows in named if len(rows)]
    large = [part for part in parts if _speaks(part, smallest, groups)]
    small = [part for part in parts if not _speaks(part, smallest, groups)]
    if len(small) < 2:
        return [*large, *small]
    kinds_of_small = [part.name.removeprefix(f"{name} = ") for part in small]
    more = len(small) - MOST_NAMED
    together = ", ".join(kinds_of_small[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return [
        *large,
        Slice(f"{name} = {together} together", np.sort(np.concatenate([p.rows for p in small])), True, not large),
    ]


def _speaks(part: Slice, smallest: int, groups: Array | None) -> bool:
    enough = groups is None or len(np.unique(groups[part.rows])) >= LEAST_GROUPS
    return part.size >= smallest and enough


def examined(rows: Rows, columns: Mapping[str, Kinds], limit: Limit) -> tuple[str, Measured] | None:
    """The slice that decides: the one that is surely below the limit, else the one that is least surely above.

    Every slice has to pass, which needs no correction for their number; that one of them failed is said with bounds that
    hold for all of them at once (Bonferroni). None where there is nothing to slice by. Where all kinds of a column are one
    slice it can miss the limit, and not show that each of them holds.
    """
    if "smallest" in limit.model_fields_set and limit.smallest > len(rows):
        raise ConfigError(
            f"policy: worst_slice: smallest: {limit.smallest:,} is more than the {len(rows):,} rows that there are, so that "
            "every slice would be all of them"
        )
    parts = slices(columns, limit.by, limit.smallest, rows.groups)
    if not parts:
        return None
    estimates = [partial(_bounded, *_estimates(rows, part, limit, len(parts))) for part in parts]
    found = [bounds(part.size).interval for part, bounds in zip(parts, estimates, strict=True)]
    failing = min(interval.high for interval in found) < limit.threshold
    worst = min(range(len(parts)), key=lambda i: found[i].high if failing else found[i].low)
    groups = None if rows.groups is None else codes(rows.groups[parts[worst].rows])
    where = f"the worst of {len(parts)} slices" if len(parts) > 1 else "the only slice"
    name = f"{where} ({parts[worst].name})"
    if parts[worst].every:
        small = dict.fromkeys(part.name.partition(" = ")[0] for part in parts if part.every)
        name = f"slices by {', '.join(small)}, {TOO_SMALL}"
    return f"agreement in {name}", estimate.measured(
        estimates[worst],
        parts[worst].size,
        groups,
        limit.sense,
        limit.threshold,
        parts=tuple(asdict(part) for part in _listed(rows, parts, found)),
    )


def _estimates(rows: Rows, part: Slice, limit: Limit, many: int) -> tuple[estimate.Estimate, estimate.Estimate]:
    """Bounds for one slice alone, and bounds that hold for all of `many` slices at once."""
    same, groups = rows.same[part.rows], None if rows.groups is None else codes(rows.groups[part.rows])
    at_once = 1 - (1 - limit.confidence) / many
    alone = estimate.share(same, groups, limit.confidence)
    return _unproven(alone) if part.every else alone, estimate.share(same, groups, at_once)


def _unproven(alone: estimate.Estimate) -> estimate.Estimate:
    """All kinds together: how seldom the worst of them agrees is not known."""

    def found(rows: int) -> Bounded:
        one = alone(rows)
        return Bounded(Interval(one.interval.value, -math.inf, math.inf), one.units, KINDS_TOO_SMALL)

    return found


def _bounded(alone: estimate.Estimate, together: estimate.Estimate, rows: int) -> Bounded:
    """The lower bound of the slice alone, which decides that all pass, and the simultaneous upper one."""
    one, all_of_them = alone(rows), together(rows)
    return Bounded(Interval(one.interval.value, one.interval.low, all_of_them.interval.high), one.units, one.method)


def _listed(rows: Rows, parts: Sequence[Slice], found: Sequence[Interval]) -> list[Part]:
    """Every slice for the report, and which of them surely differ from the rest; not said of grouped rows."""
    surely = [False] * len(parts)
    if rows.groups is None:
        adjusted = counted.holm([_differs(rows.same, part.rows) for part in parts])
        surely = [p <= SURELY for p in adjusted]
    return [
        Part(part.name, part.size, interval.value, interval.low, interval.high, part.pooled, differs)
        for part, interval, differs in zip(parts, found, surely, strict=True)
    ]


def _differs(same: Flags, inside: Codes) -> float:
    """P-value of Fisher's exact test that a slice agrees as often as the rows outside of it."""
    alike, size = int(same[inside].sum()), len(inside)
    others = int(same.sum()) - alike
    table = [[alike, size - alike], [others, len(same) - size - others]]
    return float(fisher_exact(table).pvalue)
