"""One limit of a policy: a metric, its bound, which pair it binds, and why. What each metric is, as one table.

The rule: a limit that can never bite, or never pass, is refused when it is read, not met silently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field, model_validator

from compile.config import Precision, Strict, TaskKind
from parity.verdict import Sense

Metric = Literal[
    "float_error",
    "sqnr_db",
    "agreement",
    "worst_slice",
    "correct",
    "macro_f1",
    "f1",
    "auc",
    "character_errors",
    "word_errors",
    "mean_error",
    "recall_at_k",
    "mean_average_precision",
    "kl",
    "confidence_drift",
    "cosine_mean",
    "cosine_minimum",
    "rank_overlap",
    "rank_correlation",
    "state_drift",
    "route_flips",
    "escalation_change",
    "kept_errors",
    "latency_ratio",
    "size_ratio",
    "quantized_share",
]
Against = Literal["source", "baseline", "float"]
Bound = Literal["at_least", "at_most", "margin", "relative_margin"]
Unit = Literal["share", "points", "relative", "label", "plain", "ratio", "floors", "dB", "nats"]
"""`points`: a difference of shares; `relative`: a part of the reference's; `label`: the label's own; `plain`: a number alone."""
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
PAIRS: tuple[Against, ...] = ("source", "baseline")
MARGINS: tuple[Bound, ...] = ("margin", "relative_margin")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a metric is: how it is bounded, between which values it lies, and which tasks have it (None for all).

    `unit`: of its figures as they are judged. `errors`: less of it is better, and a margin binds it with its sign turned.
    """

    bounds: tuple[Bound, ...]
    span: tuple[float, float] = (0.0, 1.0)
    tasks: tuple[TaskKind, ...] | None = None
    against: tuple[Against, ...] = PAIRS
    labels: bool = False
    routed: bool = False
    unit: Unit = "share"
    errors: bool = False


LEAST_PROBABILITY = 1e-7
"""Where probabilities are cut off for KL: about the resolution of float32 below 1."""
MOST_FLOORS = 1e6
"""Noise floors of float32, about 1e-7 each, that are a tenth of the numbers themselves."""
MOST_KL = -math.log(LEAST_PROBABILITY)
KINDS: Mapping[Metric, Kind] = {
    "float_error": Kind(("at_most",), (0, MOST_FLOORS), against=("source",), unit="floors"),
    "sqnr_db": Kind(("at_least",), (0, math.inf), unit="dB"),
    "agreement": Kind(("at_least",)),
    "worst_slice": Kind(("at_least",)),
    "correct": Kind(MARGINS, unit="points"),
    "macro_f1": Kind(MARGINS, tasks=("classification",), labels=True, unit="points"),
    "f1": Kind(MARGINS, tasks=("binary_score",), labels=True, unit="points"),
    "auc": Kind(MARGINS, tasks=("binary_score",), labels=True, unit="points"),
    "character_errors": Kind(MARGINS, tasks=("sequence",), labels=True, unit="points", errors=True),
    "word_errors": Kind(MARGINS, tasks=("sequence",), labels=True, unit="points", errors=True),
    "mean_error": Kind(MARGINS, (0, math.inf), tasks=("regression",), labels=True, unit="label", errors=True),
    "recall_at_k": Kind(MARGINS, tasks=("embedding",), labels=True, unit="points"),
    "mean_average_precision": Kind(MARGINS, tasks=("detection",), labels=True, unit="points"),
    "kl": Kind(("at_most",), (0, MOST_KL), tasks=("classification", "sequence"), unit="nats"),
    "confidence_drift": Kind(
        ("at_most",), (0, math.inf), tasks=("classification", "binary_score", "sequence"), unit="plain"
    ),
    "cosine_mean": Kind(("at_least",), (-1, 1), tasks=("embedding", "regression", "none"), unit="plain"),
    "cosine_minimum": Kind(("at_least",), (-1, 1), tasks=("embedding", "regression", "none"), unit="plain"),
    "rank_overlap": Kind(("at_least",), tasks=("embedding",)),
    "rank_correlation": Kind(("at_least",), (-1, 1), tasks=("regression", "binary_score"), unit="plain"),
    "state_drift": Kind(("at_most",), (0, math.inf), tasks=("binary_score", "regression"), unit="plain"),
    "route_flips": Kind(("at_most",), routed=True),
    "escalation_change": Kind(("at_most",), routed=True, unit="points"),
    "kept_errors": Kind(("margin",), labels=True, routed=True, unit="points", errors=True),
    "latency_ratio": Kind(("at_most",), (0, math.inf), against=("float",), unit="ratio"),
    "size_ratio": Kind(("at_most",), (0, math.inf), against=("float",), unit="ratio"),
    "quantized_share": Kind(("at_least",), against=("source",)),
}
CONFIDENCE = "confidence of the reference"
"""What slices by how sure the reference was are called."""
NOT_SLICED = ("id", "group", "row", "copy", "original", "text")
"""Columns that name rows, not kinds of rows."""
INTEGER_ONLY: tuple[Metric, ...] = ("latency_ratio", "size_ratio", "quantized_share")
"""Measured of int8 alone, and nothing about answers."""
OPTIONS: Mapping[str, tuple[Metric, ...]] = {
    "by": ("worst_slice",),
    "smallest": ("worst_slice",),
    "k": ("recall_at_k", "rank_overlap"),
}
"""What only some metrics take."""


def unit_of(metric: Metric, kind: str | None) -> Unit:
    """The unit of a metric's figures; of right answers a relative margin binds the ratio of their counts."""
    return "relative" if metric == "correct" and kind == "relative_margin" else KINDS[metric].unit


class Limit(Strict):
    """One limit: a metric, its bound, which pair it binds, for which precisions, and why."""

    metric: Metric
    at_least: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    at_most: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    margin: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    relative_margin: float | None = Field(default=None, gt=0, lt=1)
    against: tuple[Against, ...] = ()
    precision: tuple[Precision, ...] = Field(default=PRECISIONS, min_length=1)
    by: tuple[str, ...] = ()
    smallest: int = Field(default=50, ge=1)
    k: int = Field(default=10, ge=1)
    confidence: float = Field(default=0.95, ge=0.8, lt=1)
    why: str = Field(min_length=8)

    @model_validator(mode="after")
    def _bites(self) -> Limit:
        wanted = " or ".join(f"`{name}`" for name in self.is_a.bounds)
        given = [name for name in get_args(Bound) if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in self.is_a.bounds:
            raise ValueError(f"{self.metric} takes exactly {wanted}; found {given or 'no bound'}")
        for option, metrics in OPTIONS.items():
            if option in self.model_fields_set and self.metric not in metrics:
                raise ValueError(f"`{option}` is for {', '.join(metrics)}; found it at {self.metric}")
        least, most = self.is_a.span
        if not least < self.bound < most:
            raise ValueError(
                f"{self.metric}: {self.kind} {self.bound:g} can never bite or never pass; it lies between {least:g} and "
                f"{most:g}"
            )
        strange = [a for a in self.against if a not in self.is_a.against]
        if strange:
            raise ValueError(f"{self.metric} is measured against {', '.join(self.is_a.against)}; found {strange}")
        if self.metric in INTEGER_ONLY and "int8" not in self.precision:
            raise ValueError(f"{self.metric} is measured of int8; precision {self.precision} never binds it")
        return self

    @property
    def is_a(self) -> Kind:
        return KINDS[self.metric]

    @property
    def kind(self) -> Bound:
        """Which of the bounds is given."""
        return next(name for name in get_args(Bound) if getattr(self, name) is not None)

    @property
    def bound(self) -> float:
        return float(getattr(self, self.kind))

    @property
    def sense(self) -> Sense:
        return "at_most" if self.kind == "at_most" else "at_least"

    @property
    def threshold(self) -> float:
        """The limit that a measurement meets: a margin binds the difference from below. A relative margin m binds the ratio of
        right answers at 1 - m, and of other metrics the contrast e - (1 - m) r at 0."""
        if self.kind == "relative_margin":
            return 1 - self.bound if self.metric == "correct" else 0.0
        return -self.bound if self.kind == "margin" else self.bound

    @property
    def pairs(self) -> tuple[Against, ...]:
        return self.against or self.is_a.against

    @property
    def spelled(self) -> str:
        """`agreement at least 0.98`: the limit in a few words, for changes of a policy."""
        pairs = f" against {', '.join(self.against)}" if self.against else ""
        only = f" ({', '.join(self.precision)})" if self.precision != PRECISIONS else ""
        bound = f"{self.metric}{self.of} {self.kind.replace('_', ' ')} {self.bound:g}"
        return f"{bound}{pairs}{only}, {self.confidence * 100:g} % confidence"

    @property
    def of(self) -> str:
        """What the metric is measured of, where it takes options: ` by class_name in slices from 50 rows`, ` of 10`."""
        if self.metric in OPTIONS["k"]:
            return f" of {self.k}"
        if self.metric in OPTIONS["by"]:
            return f"{' by ' if self.by else ''}{', '.join(self.by)} in slices from {self.smallest} rows"
        return ""
