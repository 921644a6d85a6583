"""The policy: limits written before the run, each with its reason. Read from `configs/policies/NAME.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, get_args

from pydantic import Field, model_validator

from compile.config import Precision, Strict, names_of
from compile.errors import ConfigError, nearest
from compile.project import Project
from compile.yaml_file import load
from parity.verdict import Sense

Metric = Literal["float_error", "sqnr_db", "agreement", "worst_slice", "correct", "latency_ratio", "size_ratio"]
Against = Literal["source", "baseline", "float"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

Bound = Literal["at_least", "at_most", "margin", "relative_margin"]
BOUNDS: Mapping[Metric, tuple[Bound, ...]] = {
    "float_error": ("at_most",),
    "sqnr_db": ("at_least",),
    "agreement": ("at_least",),
    "worst_slice": ("at_least",),
    "correct": ("margin", "relative_margin"),
    "latency_ratio": ("at_most",),
    "size_ratio": ("at_most",),
}
AGAINST: Mapping[Metric, tuple[Against, ...]] = {
    "float_error": ("source",),
    "sqnr_db": ("source", "baseline"),
    "agreement": ("source", "baseline"),
    "worst_slice": ("source", "baseline"),
    "correct": ("source", "baseline"),
    "latency_ratio": ("float",),
    "size_ratio": ("float",),
}


class Limit(Strict):
    """One limit: a metric, its bound, which pair it binds, for which precisions, and why."""

    metric: Metric
    at_least: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    at_most: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    margin: float | None = Field(default=None, gt=0, lt=1)
    relative_margin: float | None = Field(default=None, gt=0, lt=1)
    against: tuple[Against, ...] = ()
    precision: tuple[Precision, ...] = Field(default=PRECISIONS, min_length=1)
    by: tuple[str, ...] = ()
    smallest: int = Field(default=50, ge=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    why: str = Field(min_length=8)

    @model_validator(mode="after")
    def _bites(self) -> Limit:
        wanted = " or ".join(f"`{name}`" for name in BOUNDS[self.metric])
        given = [name for name in get_args(Bound) if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in BOUNDS[self.metric]:
            raise ValueError(f"{self.metric} takes exactly {wanted}; found {given or 'no bound'}")
        if self.metric != "worst_slice" and {"by", "smallest"} & self.model_fields_set:
            raise ValueError(f"`by` and `smallest` are for worst_slice; found them at {self.metric}")
        if self.metric in ("agreement", "worst_slice", "correct") and not 0 < self.bound < 1:
            raise ValueError(
                f"{self.metric}: {self.kind} {self.bound:g} can never bite or never pass; it lies between 0 and 1"
            )
        strange = [a for a in self.against if a not in AGAINST[self.metric]]
        if strange:
            raise ValueError(f"{self.metric} is measured against {', '.join(AGAINST[self.metric])}; found {strange}")
        if "float" in AGAINST[self.metric] and "int8" not in self.precision:
            raise ValueError(f"{self.metric} compares int8 with float; precision {self.precision} never binds it")
        return self

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
        """The limit that a measurement meets: a margin binds the difference from below, a relative one the ratio."""
        return {"margin": -self.bound, "relative_margin": 1 - self.bound}.get(self.kind, self.bound)

    @property
    def pairs(self) -> tuple[Against, ...]:
        return self.against or AGAINST[self.metric]


class Goal(Strict):
    """What integer arithmetic is for. Speed unless said otherwise, and then with a reason."""

    kind: Literal["speed", "size"]
    why: str = Field(min_length=8)


class Policy(Strict):
    """`configs/policies/NAME.yaml`."""

    description: str = ""
    allow_deferred: tuple[str, ...] = ()
    goal: Goal | None = None
    limits: tuple[Limit, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _speed_is_judged(self) -> Policy:
        bounds = [limit.bound for limit in self.limits if limit.metric == "latency_ratio" and "int8" in limit.precision]
        if not (bounds and min(bounds) <= 1) and (self.goal is None or self.goal.kind != "size"):
            raise ValueError(
                "no `latency_ratio` limit keeps int8 from being slower than float; add one of at most 1, or say "
                "`goal: {kind: size, why: …}`"
            )
        return self

    def allows_deferred(self, target: str) -> bool:
        return any(fnmatchcase(target, pattern) for pattern in self.allow_deferred)


def load_policy(project: Project, name: str) -> Policy:
    path = project.configs / "policies" / f"{name}.yaml"
    if not path.is_file():
        known = names_of(project, "policies")
        raise ConfigError(f"{path}: no such policy; here: {', '.join(known) or 'none'}{nearest(name, known)}")
    return load(path, Policy)
