"""Before any run: limits that resampling decides, judged as the judge will on suites that are made up.

In: the suite's own columns and the share of answers that an equal model flips. Out: for each such limit the chance that an equal
model passes, and whether a copy that moves nothing would: of few rows that is not always proven. What is made up: which answers
the reference gives (`RIGHT` of them as the labels say), which of them the model flips (as many for the better as for the
worse), how many requests the rule keeps (`KEPT`), and that scores move by rounding alone (`ROUNDING`). Labels, groups and rows
are the suite's. A model may be as good and move its scores farther; that is not foreseen here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from compile.config import ModelFile, TargetFile, TaskConfig
from parity import detection, measure
from parity.kinds import codes
from parity.limit import Against, Limit, Metric
from parity.policy import Route
from parity.rows import Rows
from parity.statistics import counted
from parity.verdict import Measured, Status, decide

Array = NDArray[Any]
Flags = NDArray[np.bool_]
RIGHT, KEPT = 0.8, 0.8
ROUNDING = 1e-4
DRAWS, MANY_DRAWS = 8, 60
SEED = 20_261_127
POWER = 0.8
LEAST_UNITS, MOST_TIMES = 20, 4
OF_ANSWERS: tuple[Metric, ...] = ("macro_f1", "f1", "auc", "escalation_change", "kept_errors")
"""Metrics that an equal model's flips decide; of all others only how rounding moves them is rehearsed."""
CHEAP: tuple[Metric, ...] = ("escalation_change",)
"""Those of them whose bounds take no resampling."""
TRUSTED_LABELS: Against = "baseline"
"""The side whose labels are not asked whether they fit: the answers here are made up."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One limit. `copy`: whether a copy that moves nothing passes. `chance`: that an equal model does, at least. `needed`: about
    so many rows make that chance `POWER`, None where none do. `rounded`: flips do not decide here, only how far scores move."""

    metric: str
    against: tuple[Against, ...]
    bound: float
    kind: str
    copy: bool
    chance: float
    needed: int | None
    rounded: bool


class Rehearsals:
    """One suite on which limits are tried; a limit that binds several targets is tried once."""

    def __init__(self, config: ModelFile, columns: Mapping[str, Array], route: Route | None, flips: float) -> None:
        self._config, self._route, self._flips = config, route, flips
        bare = config.task.kind == "detection" and "labels" not in columns
        self._suite = None if bare else _suite(config, columns, route)
        self._kept: dict[Limit, Rehearsed | None] = {}

    def of(self, limit: Limit, against: Sequence[Against], target: TargetFile) -> Rehearsed | None:
        """One limit; None where answers cannot be made up (boxes without labels), or where it gives no measurement."""
        if limit not in self._kept:
            self._kept[limit] = None if self._suite is None else self._tried(self._suite, limit, target)
        found = self._kept[limit]
        return None if found is None else replace(found, against=tuple(against))

    def _tried(self, suite: _Suite, limit: Limit, target: TargetFile) -> Rehearsed | None:
        def judged(rows: Rows) -> Measured | None:
            scene = measure.Scene(self._config, target, {TRUSTED_LABELS: rows}, {}, {}, self._route)
            return next((found for _, found in measure.measured(limit, TRUSTED_LABELS, scene)), None)

        same = judged(suite.rows(0.0, 0.0, _random(0)))
        if same is None:
            return None
        rounded = limit.metric not in OF_ANSWERS
        flips, draws = (0.0, 1) if rounded else (self._flips, MANY_DRAWS if limit.metric in CHEAP else DRAWS)

        def chance(size: int) -> float:
            part = suite.of_size(size)
            return _chance([judged(part.rows(flips, ROUNDING, _random(seed))) for seed in range(draws)], limit)

        copy, here = _passes(same, limit), chance(suite.units)
        needed = None if rounded else _needed(chance, here, suite)
        return Rehearsed(limit.metric, (), limit.bound, limit.kind, copy, here, needed, rounded)


def _suite(config: ModelFile, columns: Mapping[str, Array], route: Route | None) -> _Suite:
    """Of the suite's columns, the rows that count."""
    kept = {name: values[columns["row"]] for name, values in columns.items()}
    return _Suite(config.task, kept, 0.5 if route is None else route.confidence)


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(SEED + seed)


def _passes(found: Measured | None, limit: Limit) -> bool:
    return found is not None and decide(found, limit.sense, limit.threshold) is Status.PASS


def _chance(drawn: Sequence[Measured | None], limit: Limit) -> float:
    """The share of the draws that pass; of few draws at least what they prove (95 %), or what the mean distance to the limit
    says if it is normal. A single draw is one whose chance is all or nothing."""
    passed = sum(_passes(one, limit) for one in drawn)
    if len(drawn) in (1, MANY_DRAWS):
        return passed / len(drawn)
    held = counted.share(passed, len(drawn), 0.95).low
    room, half = _room([one for one in drawn if one is not None], limit)
    z = float(norm.ppf(limit.confidence))
    return max(held, float(norm.cdf(z * (room / half - 1)))) if 0 < half < np.inf else held


def _room(drawn: Sequence[Measured], limit: Limit) -> tuple[float, float]:
    """How far the figure is on the right side of its limit, and how far its bound is from it: means over the draws."""
    if limit.sense == "at_least":
        sides = [(one.value - limit.threshold, one.value - one.low) for one in drawn]
    else:
        sides = [(limit.threshold - one.value, one.high - one.value) for one in drawn]
    room, half = np.mean(sides, axis=0)
    return float(room), float(half)


def _needed(chance: Callable[[int], float], here: float, suite: _Suite) -> int | None:
    """About so many rows: halved while the chance holds, doubled until it does; None where `MOST_TIMES` as many do not."""
    units = suite.units
    if here >= POWER:
        while units // 2 >= LEAST_UNITS and chance(units // 2) >= POWER:
            units //= 2
    else:
        while units <= MOST_TIMES * suite.units and chance(units) < POWER:
            units *= 2
    return None if units > MOST_TIMES * suite.units else round(units * len(suite) / suite.units)


def _boxes(labels: Array, sure: Array, right: Flags) -> Array:
    """The labelled objects, found so surely; in rows that are not right each is taken for one of another class."""
    found = detection.labelled(labels)
    found[..., detection.SCORE] *= sure
    found[..., detection.CLASS] += ~right[:, None]
    return found


class _Suite:
    """The suite's own labels and groups, with answers of two sides made up on them."""

    def __init__(self, task: TaskConfig, columns: Mapping[str, Array], edge: float) -> None:
        self.task, self.columns, self.edge = task, columns, edge
        self.groups = codes(columns["group"]) if "group" in columns else None
        self.count = len(next(iter(columns.values())))
        self.units = self.count if self.groups is None else int(self.groups.max()) + 1

    def __len__(self) -> int:
        return self.count

    def of_size(self, units: int) -> _Suite:
        """Part of it, or it several times over: whole groups, each a group of its own."""
        if units == self.units:
            return self
        chosen = np.resize(_random(0).permutation(self.units), units)
        if self.groups is None:
            return _Suite(self.task, {name: values[chosen] for name, values in self.columns.items()}, self.edge)
        order = np.argsort(self.groups, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(self.groups[order])) + 1)
        rows = np.concatenate([members[group] for group in chosen])
        columns = {name: values[rows] for name, values in self.columns.items()}
        columns["group"] = np.repeat(np.arange(units), [len(members[group]) for group in chosen])
        return _Suite(self.task, columns, self.edge)

    def rows(self, flips: float, rounding: float, random: np.random.Generator) -> Rows:
        """Both sides: the candidate flips that share of its answers, and of its sides of the routing rule."""
        right = random.random(self.count) < RIGHT
        flipped = random.random(self.count) < flips / 2 / np.where(right, RIGHT, 1 - RIGHT)
        moved = rounding * random.standard_normal(self.count)
        reference, candidate = self._answers(right, flipped, moved, random)
        kept = random.random(self.count) < KEPT
        crossed = random.random(self.count) < flips
        facts = {
            "confidence": np.where(kept, self.edge + 0.1, self.edge - 0.1),
            "shift": np.where(crossed, np.where(kept, -0.2, 0.2), moved),
            "kl": moved**2,
            "error": np.abs(moved),
            "cosine": 1 - moved**2,
        }
        return Rows(self.task, reference, candidate, ~flipped, facts, self.columns, self.groups, 0)

    def _answers(self, right: Flags, flipped: Flags, moved: Array, random: np.random.Generator) -> tuple[Array, Array]:
        labels = self.columns.get("labels")
        match self.task.kind:
            case "classification":
                truth = np.zeros(self.count, np.int64) if labels is None else labels.reshape(self.count, -1)[:, 0]
                classes = np.unique(truth)
                away = random.integers(1, max(len(classes), 2), self.count)
                other = classes[(np.searchsorted(classes, truth) + away) % len(classes)]
                return np.where(right, truth, other), np.where(right ^ flipped, truth, other)
            case "binary_score":
                positive = np.arange(self.count) % 2 > 0 if labels is None else labels.reshape(self.count, -1)[:, 0] > 0
                far = random.uniform(0.01, 0.99, self.count)
                return self._scores(positive == right, far), self._scores(positive == (right ^ flipped), far + moved)
            case "embedding":
                near = random.integers(0, self.count, (self.count, 10))
                return near, near
            case "sequence" if labels is not None:
                read = labels[np.where(right, np.arange(self.count), random.permutation(self.count))]
                return read, read
            case "detection" if labels is not None:
                sure = random.uniform(self.task.threshold, 1, labels.shape[:2])
                return _boxes(labels, sure, right), _boxes(labels, sure + moved[:, None], right ^ flipped)
            case "regression" if labels is not None:
                numbers = labels.reshape(self.count, -1).astype(np.float64)
                guessed = numbers + 0.1 * numbers.std() * random.standard_normal(numbers.shape)
                return guessed, guessed + numbers.std() * moved[:, None]
            case _:
                given = random.standard_normal((self.count, 1))
                return given, given + moved[:, None]

    def _scores(self, above: Flags, far: Array) -> Array:
        """Scores on the given side of the threshold, `far` of the way to the end."""
        edge = self.task.threshold
        top = 1.0 if edge < 1 else 2 * edge
        return np.where(above, edge + (top - edge) * far, edge * (1 - far))
