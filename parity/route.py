"""The deployed routing rule, on the suite: which requests change sides when the candidate stands in for the reference.

The rule keeps a request at the edge where its confidence is above the policy's and its payload below; all others escalate.
In: the judged rows and the rule. Out: who keeps what, and the confidence that restores the reference's risk. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import ConfigError
from parity.kinds import kinds_of
from parity.policy import Route
from parity.rows import Rows
from parity.statistics.resampling import Sums

Array = NDArray[Any]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Routed:
    """Which rows each side's confidence would keep at the edge."""

    reference: Flags
    candidate: Flags


def routed(rows: Rows, route: Route) -> Routed:
    """Both sides' decisions; ConfigError where this task's answers have no confidence."""
    if "confidence" not in rows.facts:
        raise ConfigError(
            f"policy: route: answers of {rows.task.kind} have no confidence here; give scores over classes as the answer"
        )
    sure = rows.facts["confidence"]
    small = np.ones(len(rows), bool)
    if route.payload is not None:
        small = np.asarray(rows.columns[route.payload.column] < route.payload.below)
    return Routed((sure > route.confidence) & small, (sure + rows.facts["shift"] > route.confidence) & small)


def refuse_idle(rows: Rows, route: Route) -> None:
    """ConfigError where the rule keeps none of the reference's answers: limits on it speak of nothing."""
    kept = routed(rows, route).reference
    if len(kept) and not kept.any():
        sure = rows.facts["confidence"]
        raise ConfigError(
            f"policy: route: the rule keeps none of the {len(kept):,} rows: confidence here is from {float(sure.min()):.4g} to "
            f"{float(sure.max()):.4g}, and the rule asks for more than {route.confidence:g}"
        )


def kept_errors(kept: Routed, right: tuple[Flags, Flags]) -> Sums:
    """Share of wrong answers among those kept: [..., 2], the reference's and the candidate's. NaN where none is kept."""
    ours, theirs = (~side for side in right)
    table = np.stack([kept.reference, kept.reference & ours, kept.candidate, kept.candidate & theirs], axis=1)
    kinds, kind = kinds_of(table)

    def figure(sums: Array) -> Array:
        mine, wrong, its, failed = np.moveaxis(sums, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([wrong / mine, failed / its], axis=-1)

    return Sums(kind, kinds.astype(float), figure)


def restoring_confidence(rows: Rows, kept: Routed, right: tuple[Flags, Flags]) -> float | None:
    """The lowest confidence above which the candidate's kept answers err no more often than the reference's kept ones do.

    None where no confidence does, or where the reference keeps nothing.
    """
    if not kept.reference.any():
        return None
    risk = float((~right[0])[kept.reference].mean())
    sure = rows.facts["confidence"] + rows.facts["shift"]
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum(~right[1][order]) / np.arange(1, len(order) + 1)
    last_of_its_value = np.append(np.diff(sure[order]) != 0, True)
    good = np.flatnonzero((wrong <= risk) & last_of_its_value)
    if not len(good):
        return None
    following = int(good[-1]) + 1
    return float(sure[order][following]) if following < len(order) else 0.0


def summary(rows: Rows, route: Route, right: tuple[Flags, Flags] | None) -> Mapping[str, Any]:
    """What a table says of the rule."""
    kept = routed(rows, route)
    changed = int((kept.reference != kept.candidate).sum())
    facts: dict[str, Any] = {
        "confidence": route.confidence,
        "change sides": changed,
        "escalated by the reference": float(1 - kept.reference.mean()),
        "escalated by the candidate": float(1 - kept.candidate.mean()),
    }
    if right is None:
        return facts
    wrong = [(~side)[keep] for side, keep in zip(right, (kept.reference, kept.candidate), strict=True)]
    return facts | {
        "errors kept by the reference": float(wrong[0].mean()) if wrong[0].size else None,
        "errors kept by the candidate": float(wrong[1].mean()) if wrong[1].size else None,
        "confidence that restores the reference's risk": restoring_confidence(rows, kept, right),
    }
