"""The truth about a planted defect, from rows that the gate does not see: must it be caught, or is it harmless?

In: the outputs of both sides on the pool, the policy's limits, the suite's size. Out: a `Truth`. Plain figures of the pool,
computed here and not by the gate: agreement, right answers, slices, SQNR, float error; how sure a suite of its size can be
of each is twice its standard error.

must catch: some limit is broken by more than twice the suite's standard error, or what comes out is no answer at all.
harmless: every limit is held by more than `CLEAR` of them, so that a gate with one-sided 95 % bounds passes it in 9,999 of
10,000 suites. grey zone: between the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compile.config import ModelFile
from parity import answers
from parity.limit import Against, Limit
from parity.rows import Rows
from parity.selftest.witness import Outputs, answers_of
from parity.slices import columns_to_slice, slices

Array = NDArray[Any]
Class = Literal["must catch", "grey zone", "harmless"]
BROKEN = 2.0
CLEAR = 5.4
FLOOR_TIMES = 2.0
"""A largest error has no standard error: twice the limit is broken, half of it is held."""


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


def truth(pairs: Mapping[Against, Pair], limits: Sequence[Limit], floors: Mapping[str, float]) -> Truth:
    """What the pool says of a candidate, against each side that a limit binds."""
    source = pairs["source"]
    strange = no_answer(source)
    if strange is not None:
        return Truth("must catch", strange, -np.inf, 0.0)
    found = [
        (f"{name} against {against}", holds_by)
        for against, pair in pairs.items()
        for limit in limits
        if against in limit.pairs
        for name, holds_by in _held(limit, pair, floors)
    ]
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
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            return f"`{name}` is not finite"
    return None


def _held(limit: Limit, pair: Pair, floors: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """By how many of the suite's standard errors a limit holds; negative where it is broken."""
    match limit.metric:
        case "agreement":
            yield "agreement", _distance(_alike(pair).astype(float), np.ones(len(pair.unit)), pair, limit.bound)
        case "worst_slice":
            yield from _slices(limit, pair)
        case "correct":
            yield from _correct(limit, pair)
        case "sqnr_db":
            yield from _sqnr(limit, pair)
        case "float_error":
            for name, floor in floors.items():
                error = float(np.abs(pair.candidate[name].astype(float) - pair.reference[name]).max()) / floor
                yield "float error", _of_largest(error / limit.bound)
        case _:
            return


def _of_largest(times: float) -> float:
    """A largest value as if it had a standard error: at twice the limit it is surely broken, at half of it surely held."""
    return -2 * BROKEN if times > FLOOR_TIMES else 2 * CLEAR if times < 1 / FLOOR_TIMES else 0.0


def _distance(counts: Array, sizes: Array, pair: Pair, bound: float) -> float:
    """(ratio of sums over the pool - bound) over the standard error that the suite's units give it."""
    value = float(counts.sum() / sizes.sum())
    left = np.bincount(pair.unit, counts - value * sizes)
    there = np.bincount(pair.unit, sizes)
    left, there = left[there > 0], there[there > 0]
    variance = float(left.var()) / float(there.mean()) ** 2 / pair.suite_units
    return (value - bound) / float(np.sqrt(max(variance, 1e-30)))


def _alike(pair: Pair) -> NDArray[np.bool_]:
    ours, theirs = (answers_of(pair.config, side) for side in (pair.reference, pair.candidate))
    return answers.agree(pair.config.task, ours, theirs)


def _slices(limit: Limit, pair: Pair) -> Iterator[tuple[str, float]]:
    """Each slice that the suite can tell apart: agreement in it, at the size that the suite has of it."""
    ours, theirs = (answers_of(pair.config, side) for side in (pair.reference, pair.candidate))
    same = answers.agree(pair.config.task, ours, theirs)
    grouped = pair.unit if len(np.unique(pair.unit)) < len(pair.unit) else None
    rows = Rows(pair.config.task, ours, theirs, same, {}, pair.columns, grouped, 0)
    share = pair.suite_units / len(np.unique(pair.unit))
    for part in slices(columns_to_slice(rows), limit.by, round(limit.smallest / max(share, 1e-9)), grouped):
        inside = part.rows
        size = part.size * share
        value = float(same[inside].mean())
        error = np.sqrt(max(value * (1 - value), 1e-30) / max(size, 1))
        yield f"agreement in {part.name}", (value - limit.bound) / float(error)


def _correct(limit: Limit, pair: Pair) -> Iterator[tuple[str, float]]:
    labels = pair.columns.get("labels")
    if labels is None:
        return
    sides = (answers_of(pair.config, side) for side in (pair.reference, pair.candidate))
    right = [flags for side in sides if (flags := answers.correct(pair.config.task, side, labels)) is not None]
    if len(right) < 2:
        return
    ours, theirs = (flags.astype(float) for flags in right)
    if limit.kind == "relative_margin":
        yield "correct", _distance(theirs - (1 - limit.bound) * ours, np.ones(len(ours)), pair, 0.0)
    else:
        yield "correct", _distance(theirs - ours, np.ones(len(ours)), pair, -limit.bound)


def _sqnr(limit: Limit, pair: Pair) -> Iterator[tuple[str, float]]:
    """The ratio of noise to signal, against what the limit allows: noise at most 10^(-dB / 10) of the signal."""
    allowed = 10 ** (-limit.bound / 10)
    for name, wanted in pair.reference.items():
        if wanted.dtype.kind != "f":
            continue
        exact = wanted.reshape(len(wanted), -1).astype(np.float64)
        signal = (exact**2).sum(axis=1)
        noise = ((exact - pair.candidate[name].reshape(len(wanted), -1)) ** 2).sum(axis=1)
        yield f"SQNR of `{name}`", _distance(-noise, np.maximum(signal, 1e-300), pair, -allowed)
