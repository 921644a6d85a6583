"""Limits that answers of other rows would hold as well: whoever holds such a limit has shown nothing about the artifact.

In: a limit, the judged rows of one pair, the deployed rule. Out: whether the limit is missed where the reference's own answers
are each given to another row, by the figure alone. None where that says nothing: of numbers that are not kept row by row, and of
figures about all rows together, which no other order changes. Pure; the order is drawn by a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity import measure, quality
from parity.answers import agree
from parity.kinds import codes
from parity.limit import Limit, Metric
from parity.policy import Route
from parity.route import routed
from parity.rows import Rows, of_answers
from parity.slices import columns_to_slice, slices

LEAST_ROWS = 30
"""Of fewer, chance says more than the limit does."""
ROWS, ROWS_OF_ALL = 2_000, 10_000
"""So many tell a mean: what is asked for is no small difference. What rare rows decide is asked of all rows, where there are no
more than so many."""
RARE: tuple[Metric, ...] = ("worst_slice", "macro_f1", "f1", "auc", "mean_average_precision")
SEED = 20_261_130
ANSWERED = ("classification", "binary_score", "sequence", "regression", "detection", "embedding")
NUMBERS = ("binary_score", "regression")


def tell(limit: Limit, rows: Rows, route: Route | None) -> bool | None:
    """Whether the limit tells these answers from those of other rows: False where both keep it."""
    if rows.task.kind not in ANSWERED or limit.metric not in VALUES or len(rows) < LEAST_ROWS:
        return None
    if limit.metric in RARE and len(rows) > ROWS_OF_ALL:
        return None
    other = _elsewhere(rows, ROWS_OF_ALL if limit.metric in RARE else ROWS)
    found = VALUES[limit.metric](other, limit, route)
    if found is None or np.isnan(found):
        return None
    return found < limit.threshold if limit.sense == "at_least" else found > limit.threshold


def _elsewhere(rows: Rows, most: int) -> Rows:
    """At most so many of the rows, answered by the candidate as the reference answers others. Neighbours are numbers of rows, so
    that all have to stay."""
    random = np.random.default_rng(SEED)
    few = most < len(rows) and not rows.near
    picked = np.unique(random.integers(0, len(rows), most)) if few else np.arange(len(rows))
    turn, order = random.permutation(len(picked)), np.empty(len(picked), np.int64)
    order[turn] = picked[np.roll(turn, 1)]  # no row stays where it is
    told, said = rows.reference[picked], rows.reference[order]
    return replace(
        rows,
        reference=told,
        candidate=said,
        same=np.equal(told[:, 0], said[:, 0]) if rows.near else agree(rows.task, told, said),
        facts=_facts(rows, told, said, picked, order),
        columns={name: values if rows.near else values[picked] for name, values in rows.columns.items()},
        groups=None if rows.groups is None else codes(rows.groups[picked]),
    )


def _facts(rows: Rows, told: NDArray[Any], said: NDArray[Any], here: Any, there: Any) -> dict[str, NDArray[np.float64]]:
    """Those numbers by row that follow from answers and confidences alone."""
    if rows.task.kind in NUMBERS:
        return of_answers(rows.task, told, said)
    if "confidence" not in rows.facts:
        return {}
    sure = rows.facts["confidence"]
    return {"confidence": sure[here], "shift": sure[there] - sure[here]}


def _agreement(rows: Rows, limit: Limit, route: Route | None) -> float:
    return float(rows.same.mean())


def _worst_slice(rows: Rows, limit: Limit, route: Route | None) -> float | None:
    parts = slices(columns_to_slice(rows), limit.by, limit.smallest, rows.groups)
    return min((float(rows.same[part.rows].mean()) for part in parts), default=None)


def _correct(rows: Rows, limit: Limit, route: Route | None) -> float | None:
    pair = None if rows.labels is None else measure.right_answers(rows, judged_source=False)
    if pair is None or not pair[0].any():
        return None
    ours, theirs = (float(side.mean()) for side in pair)
    return theirs / ours if limit.kind == "relative_margin" else theirs - ours


def _quality(rows: Rows, limit: Limit, route: Route | None) -> float:
    return _value(quality.QUALITIES[limit.metric](rows, limit), rows, limit)


def _kept_errors(rows: Rows, limit: Limit, route: Route | None) -> float | None:
    pair = None if rows.labels is None else measure.right_answers(rows, judged_source=False)
    return None if pair is None or route is None else _value(measure.kept_quality(rows, route, pair), rows, limit)


def _value(found: quality.Quality, rows: Rows, limit: Limit) -> float:
    return float(measure.contrast(found, limit).of(np.ones((1, len(rows))))[0])


def _distance(rows: Rows, limit: Limit, route: Route | None) -> float:
    return float(quality.DISTANCES[limit.metric](rows, limit).figure.of(np.ones((1, len(rows))))[0])


def _of_numbers(rows: Rows, limit: Limit, route: Route | None) -> float | None:
    return _distance(rows, limit, route) if rows.task.kind in NUMBERS else None


def _confidence_drift(rows: Rows, limit: Limit, route: Route | None) -> float | None:
    return _distance(rows, limit, route) if "shift" in rows.facts else None


def _route_flips(rows: Rows, limit: Limit, route: Route | None) -> float | None:
    if route is None or "confidence" not in rows.facts:
        return None
    kept = routed(rows, route)
    return float((kept.reference != kept.candidate).mean())


VALUES: Mapping[Metric, Callable[[Rows, Limit, Route | None], float | None]] = {
    "agreement": _agreement,
    "worst_slice": _worst_slice,
    "correct": _correct,
    **dict.fromkeys(quality.QUALITIES, _quality),
    "cosine_mean": _of_numbers,
    "rank_correlation": _of_numbers,
    "rank_overlap": _distance,
    "confidence_drift": _confidence_drift,
    "route_flips": _route_flips,
    "kept_errors": _kept_errors,
}
