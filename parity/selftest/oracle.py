"""The truth about a planted defect, from rows that the gate does not see: must it be caught, or is it harmless?

In: the outputs of both sides on the pool, the policy's limits, the suite's size. Out: a `Truth`. Plain figures of the pool,
computed here and not by the gate: agreement, right answers, slices, SQNR, float error; how sure a suite of its size can be
of each is twice its standard error.

must catch: some limit is broken by more than twice the suite's standard error, or what comes out is no answer at all.
harmless: every limit is held by more than `CLEAR` of them, so that a gate with one-sided 95 % bounds passes it in 9,999 of
10,000 suites. grey zone: between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compile.config import ModelFile
from parity import answers, measure, quality
from parity.limit import Against, Limit, Metric
from parity.policy import Expected, Route
from parity.route import routed
from parity.rows import Rows, of_answers, of_scores
from parity.selftest.witness import Outputs, answers_of, results_of
from parity.slices import columns_to_slice, slices
from parity.statistics.resampling import Figure

Array = NDArray[Any]
Class = Literal["must catch", "grey zone", "harmless"]
Held = Iterator[tuple[str, float]]
"""By how many of the suite's standard errors a limit holds; negative where it is broken."""

BROKEN = 2.0
CLEAR = 5.4
SURELY_SEEN = 10
"""Units of a kind that a suite is expected to hold, so that 99,995 of 100,000 suites hold one."""
BLOCKS = 50
FLOOR_TIMES = 2.0
"""A largest error has no standard error: twice the limit, where a suite surely sees it, is broken; half of it is held."""


@dataclass(frozen=True, slots=True)
class Truth:
    """`worst`: the limit that is nearest to being broken or the most broken, and by how many standard errors it holds."""

    verdict: Class
    worst: str
    holds_by: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides on the pool, the unit of each row, and how many units the suite has."""

    config: ModelFile
    reference: Outputs
    candidate: Outputs
    columns: Mapping[str, Array]
    unit: NDArray[np.int64]
    suite_units: int
    route: Route | None = None
    floors: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """How much of the pool a suite is, in units."""
        return self.suite_units / len(np.unique(self.unit))


def truth(pairs: Mapping[Against, Pair], limits: Sequence[Limit], expected: Expected | None = None) -> Truth:
    """What the pool says of a candidate, against each side that a limit binds, and of the source, where something is expected
    of it."""
    source = pairs["source"]
    strange = no_answer(source)
    if strange is not None:
        return Truth("must catch", strange, -np.inf, 0.0)
    if any(_seen(~np.isfinite(a), source) for a in source.candidate.values() if a.dtype.kind == "f"):
        return Truth("grey zone", "few answers are not finite", 0.0, 0.0)
    found = [
        (f"{name} against {against}", holds_by)
        for against, pair in pairs.items()
        for limit in limits
        if against in limit.pairs
        if limit.metric in HELD
        for name, holds_by in HELD[limit.metric](limit, pair)
    ]
    found += [] if expected is None else _expected(expected, source)
    worst, holds_by = min(found, key=lambda one: one[1])
    verdict: Class = "must catch" if holds_by < -BROKEN else "harmless" if holds_by > CLEAR else "grey zone"
    return Truth(verdict, worst, float(holds_by), float(_alike(source).mean()))


def no_answer(pair: Pair) -> str | None:
    """Why the candidate's outputs are no answers, or None where they are."""
    for name, wanted in pair.reference.items():
        found = pair.candidate.get(name)
        if found is None:
            return f"no output `{name}`"
        if found.dtype != wanted.dtype or found.shape != wanted.shape:
            return f"`{name}` is {found.dtype} {found.shape[1:]}"
        if found.dtype.kind == "f" and _seen(~np.isfinite(found), pair) >= SURELY_SEEN:
            return f"`{name}` is not finite"
    return None


def _seen(strange: Array, pair: Pair) -> float:
    """How many units that have such a row a suite is expected to hold."""
    rows = strange.reshape(len(pair.unit), -1).any(axis=1)
    return len(np.unique(pair.unit[rows])) * pair.share


def _agreement(limit: Limit, pair: Pair) -> Held:
    yield "agreement", _distance(_alike(pair).astype(float), np.ones(len(pair.unit)), pair, limit.bound)


def _float_error(limit: Limit, pair: Pair) -> Held:
    for name, floor in pair.floors.items():
        error = np.abs(pair.candidate[name].astype(float) - pair.reference[name])
        yield f"float error of `{name}`", _of_largest(error / floor / limit.bound, pair)


def _cosine_minimum(limit: Limit, pair: Pair) -> Held:
    yield "cosine minimum", _of_largest((1 - _rows(pair).facts["cosine"]) / (1 - limit.bound), pair)


def _quality(limit: Limit, pair: Pair) -> Held:
    found = quality.QUALITIES[limit.metric](_rows(pair, limit.k), limit)
    yield limit.metric, _by_figure(measure.contrast(found, limit), limit, pair)


def _apart(limit: Limit, pair: Pair) -> Held:
    yield limit.metric, _by_figure(quality.DISTANCES[limit.metric](_rows(pair, limit.k), limit).figure, limit, pair)


def _routing(limit: Limit, pair: Pair) -> Held:
    """What the deployed rule does with the pool's requests."""
    assert pair.route is not None
    rows = _rows(pair)
    kept, ones = routed(rows, pair.route), np.ones(len(rows))
    moved = kept.reference.astype(float) - kept.candidate
    match limit.metric:
        case "route_flips":
            yield "route flips", _distance(-np.abs(moved), ones, pair, -limit.bound)
        case "escalation_change":
            for sign, name in ((-1, "more"), (1, "fewer")):
                yield f"{name} are escalated", _distance(sign * moved, ones, pair, -limit.bound)
        case _:
            right = _right(pair)
            if right is not None:
                found = measure.kept_quality(rows, pair.route, right)
                yield "kept errors", _by_figure(measure.contrast(found, limit), limit, pair)


def _by_figure(figure: Figure, limit: Limit, pair: Pair) -> float:
    """Any other figure: its distance from the threshold over its jackknife error by blocks of units, at the suite's size."""
    block = np.random.default_rng(0).permutation(int(pair.unit.max()) + 1)[pair.unit] % BLOCKS
    weights = (block[None, :] != np.arange(BLOCKS)[:, None]).astype(float)
    value, left_out = float(figure.of(np.ones((1, len(block))))[0]), figure.of(weights)
    spread = float(((left_out - left_out.mean()) ** 2).sum()) * (BLOCKS - 1) / BLOCKS
    error = np.sqrt(spread / pair.share)
    sign = -1.0 if limit.sense == "at_most" else 1.0
    return float(sign * (value - limit.threshold) / max(float(error), 1e-15))


def _of_largest(times: Array, pair: Pair) -> float:
    """A largest value as if it had a standard error. What so few units have that a suite may not hold one is neither."""
    if _seen(times > FLOOR_TIMES, pair) >= SURELY_SEEN:
        return -2 * BROKEN
    return 2 * CLEAR if times.max() < 1 / FLOOR_TIMES else 0.0


def _distance(counts: Array, sizes: Array, pair: Pair, bound: float) -> float:
    """(ratio of sums over the pool - bound) over the standard error that the suite's units give it. Units of size 0 have no
    part in it."""
    value = float(counts.sum() / sizes.sum())
    left = np.bincount(pair.unit, counts - value * sizes)
    there = np.bincount(pair.unit, sizes)
    left, there = left[there > 0], there[there > 0]
    variance = float(left.var()) / float(there.mean()) ** 2 / max(pair.share * len(there), 1)
    return (value - bound) / float(np.sqrt(max(variance, 1e-30)))


def _alike(pair: Pair) -> NDArray[np.bool_]:
    ours, theirs = (answers_of(pair.config, side) for side in (pair.reference, pair.candidate))
    return answers.agree(pair.config.task, ours, theirs)


def _rows(pair: Pair, k: int = 1) -> Rows:
    """The pool as the judge keeps rows: of embeddings, the `k` nearest."""
    task = pair.config.task
    results = [results_of(pair.config, side) for side in (pair.reference, pair.candidate)]
    ours, theirs = (answers.answers(task.kind, result) for result in results)
    facts = of_scores(task.kind, *results) | of_answers(task, ours, theirs)
    grouped = pair.unit if int(pair.unit.max()) + 1 < len(pair.unit) else None
    same = answers.agree(task, ours, theirs)
    if task.kind == "embedding":
        ours, theirs = (answers.nearest(side, ours, k) for side in (ours, theirs))
    return Rows(task, ours, theirs, same, facts, pair.columns, grouped, 0)


def _slices(limit: Limit, pair: Pair) -> Held:
    """Each slice that the suite can tell apart: agreement in it, at the size that the suite has of it."""
    rows = _rows(pair)
    smallest = round(limit.smallest / max(pair.share, 1e-9))
    for part in slices(columns_to_slice(rows), limit.by, smallest, rows.groups):
        inside = np.zeros(len(rows))
        inside[part.rows] = 1
        alike = inside * rows.same
        yield f"agreement in {part.name}", _distance(alike, inside, pair, limit.bound)


def _correct(limit: Limit, pair: Pair) -> Held:
    right = _right(pair)
    if right is None:
        return
    ours, theirs = (flags.astype(float) for flags in right)
    if limit.kind == "relative_margin":
        yield "correct", _distance(theirs - (1 - limit.bound) * ours, np.ones(len(ours)), pair, 0.0)
    else:
        yield "correct", _distance(theirs - ours, np.ones(len(ours)), pair, -limit.bound)


def _expected(expected: Expected, pair: Pair) -> Held:
    """Right answers of the source itself, beside how many the policy expects."""
    right = _right(pair)
    if right is not None:
        yield (
            "right answers of the source",
            _distance(right[0].astype(float), np.ones(len(right[0])), pair, expected.at_least),
        )


def _right(pair: Pair) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Which rows of the pool each side got right, where labels say so."""
    labels = pair.columns.get("labels")
    if labels is None:
        return None
    sides = [answers_of(pair.config, side) for side in (pair.reference, pair.candidate)]
    if pair.config.task.kind == "embedding":  # whichever side asks, the index is the reference's
        near = [answers.nearest(side, sides[0])[:, 0] for side in sides]
        return answers.whole_rows(labels[near[0]] == labels), answers.whole_rows(labels[near[1]] == labels)
    ours, theirs = (answers.correct(pair.config.task, side, labels) for side in sides)
    return None if ours is None or theirs is None else (ours, theirs)


def _sqnr(limit: Limit, pair: Pair) -> Held:
    """The ratio of noise to signal, against what the limit allows: noise at most 10^(-dB / 10) of the signal."""
    allowed = 10 ** (-limit.bound / 10)
    for name, wanted in pair.reference.items():
        if wanted.dtype.kind != "f":
            continue
        exact = wanted.reshape(len(wanted), -1).astype(np.float64)
        signal = (exact**2).sum(axis=1)
        noise = ((exact - pair.candidate[name].reshape(len(wanted), -1)) ** 2).sum(axis=1)
        yield f"SQNR of `{name}`", _distance(-noise, np.maximum(signal, 1e-300), pair, -allowed)


def _drift(limit: Limit, pair: Pair) -> Held:
    """How much farther apart the sides are in the later half of the streams; rows of a stream stand in order of time."""
    ours, theirs = (answers_of(pair.config, side).astype(np.float64) for side in (pair.reference, pair.candidate))
    length = np.bincount(pair.unit)
    order = np.argsort(pair.unit, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(length) - length, length)
    late = place >= length[pair.unit] // 2
    weights = late / late.mean() - ~late / max(float((~late).mean()), 1e-9)
    yield "state drift", _distance(-np.abs(theirs - ours) * weights, np.ones(len(ours)), pair, -limit.bound)


HELD: Mapping[Metric, Callable[[Limit, Pair], Held]] = {
    "agreement": _agreement,
    "worst_slice": _slices,
    "correct": _correct,
    "sqnr_db": _sqnr,
    "float_error": _float_error,
    "cosine_minimum": _cosine_minimum,
    "route_flips": _routing,
    "escalation_change": _routing,
    "kept_errors": _routing,
    **dict.fromkeys(quality.QUALITIES, _quality),
    **dict.fromkeys(quality.DISTANCES, _apart),
    "state_drift": _drift,
}
"""What no rows tell (latency, size, the quantized share) is not the oracle's: planted defects do not touch it."""
