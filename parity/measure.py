"""Observations -> measurements: what each limit of a policy is compared with.

Pure over what was read: no decision is made here, and no figure is made up: a metric that this task does not have
gives no measurement. Rates and figures with intervals are `estimate`'s and `quality`'s; here stands which limit asks for which.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.artifact import artifact_bytes
from compile.config import ModelFile, TargetFile
from compile.errors import ConfigError
from parity import estimate, quality, statistics
from parity.answers import correct
from parity.labels import refuse_shuffled
from parity.limit import Against, Limit, Metric
from parity.observed import Observed
from parity.policy import Policy, Route
from parity.resampling import Counts, Figure, Sums, Weighted
from parity.route import kept_errors, routed
from parity.rows import Rows, read_rows
from parity.slices import columns_to_slice, examined
from parity.verdict import Measured

Array = NDArray[Any]
Flags = NDArray[np.bool_]
Named = Iterator[tuple[str, Measured]]
NOTHING = Measured(math.nan, math.nan, math.nan, 0)
"""What should have been measured and was not: no limit lets it pass."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One candidate and what it is compared with; `rows` are read once for each side."""

    config: ModelFile
    target: TargetFile
    candidate: Observed
    others: Mapping[Against, Observed]
    rows: Mapping[Against, Rows]
    folders: Mapping[str, Path]
    route: Route | None

    def timing(self) -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = json.loads((self.folders["timing"] / "timing.json").read_text())["seconds"]
        return seconds

    def right(self, against: Against) -> tuple[Flags, Flags] | None:
        """Which rows the reference and the candidate got right, or None where nothing says so."""
        rows = self.rows[against]
        return None if rows.labels is None else right_answers(rows, judged_source=against == "source")


def scene(
    config: ModelFile,
    target: TargetFile,
    policy: Policy,
    observed: tuple[Observed, Mapping[Against, Observed]],
    columns: Mapping[str, Array],
    folders: Mapping[str, Path],
) -> Scene:
    """Everything that limits are measured on, read. `observed`: the candidate, and what it is compared with."""
    candidate, others = observed
    rows = {against: read_rows(config.task, other, candidate, columns) for against, other in others.items()}
    return Scene(config, target, candidate, others, rows, folders, policy.route)


def measured(limit: Limit, against: Against, scene: Scene) -> Named:
    """The measurements that one limit judges against one side, each with its name."""
    return METRICS[limit.metric](scene, against, limit)


def float_error(scene: Scene, against: Against, limit: Limit) -> Named:
    """Largest difference to the source, in multiples of the noise floor; integer outputs must be equal."""
    floors: dict[str, float] = json.loads((scene.folders["source"] / "floor.json").read_text())["outputs"]
    worst: dict[str, float] = {}
    rows = 0
    for ours, theirs in zip(scene.others["source"].batches(), scene.candidate.batches(), strict=True):
        rows += len(next(iter(ours.values())))
        for tensor in scene.config.signature.answers:
            one, other = ours[tensor.name], theirs[tensor.name]
            if tensor.name in floors:
                gap = float(np.abs(one.astype(np.float64) - other).max(initial=0.0)) / floors[tensor.name]
            else:
                gap = 0.0 if np.array_equal(one, other) else np.inf
            worst[tensor.name] = float(np.maximum(worst.get(tensor.name, 0.0), gap))  # keeps NaN, as max() does not
    for name, gap in worst.items():
        yield f"float error of `{name}` in floors", Measured.exactly(gap, rows)


def sqnr_db(scene: Scene, against: Against, limit: Limit) -> Named:
    """Signal to quantization noise per float output: 10 log10(sum r^2 / sum (r - c)^2) over the whole suite."""
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    rows = 0
    for ours, theirs in zip(scene.others[against].batches(), scene.candidate.batches(), strict=True):
        rows += len(next(iter(ours.values())))
        for name, one in ours.items():
            if one.dtype.kind == "f":
                exact = one.astype(np.float64)
                signal[name] = signal.get(name, 0.0) + float((exact**2).sum())
                noise[name] = noise.get(name, 0.0) + float(((exact - theirs[name]) ** 2).sum())
    for name, power in signal.items():
        value = np.inf if noise[name] == 0 else 10 * float(np.log10(max(power, np.finfo(float).tiny) / noise[name]))
        yield f"SQNR of `{name}` in dB", Measured.exactly(value, rows)


def agreement(scene: Scene, against: Against, limit: Limit) -> Named:
    """Share of rows answered alike."""
    rows = scene.rows[against]
    found = estimate.share(rows.same, rows.groups, limit.confidence)
    yield "agreement", estimate.measured(found, len(rows), rows.groups, limit.sense, limit.threshold)


def worst_slice(scene: Scene, against: Against, limit: Limit) -> Named:
    """Agreement in the slice that decides. Nothing where there is nothing to slice by."""
    rows = scene.rows[against]
    found = examined(rows, columns_to_slice(rows), limit)
    if found is not None:
        yield found


def correctness(scene: Scene, against: Against, limit: Limit) -> Named:
    """Right answers of candidate and reference, row by row: the difference of their shares, or their ratio. Nothing
    without labels."""
    pair, rows = scene.right(against), scene.rows[against]
    if pair is None:
        return
    relative = limit.kind == "relative_margin"
    found = (estimate.ratio if relative else estimate.difference)(*pair, rows.groups, limit.confidence)
    name = "correct, relative" if relative else "correct"
    yield name, estimate.measured(found, len(rows), rows.groups, limit.sense, limit.threshold)


def right_answers(rows: Rows, *, judged_source: bool) -> tuple[Flags, Flags] | None:
    """Which rows each side got right; ConfigError where the labels have nothing to do with the source's answers."""
    assert rows.labels is not None
    reference, candidate = (correct(rows.task, side, rows.labels) for side in (rows.reference, rows.candidate))
    if reference is None or candidate is None:
        return None
    if judged_source and not reference.any():
        raise ConfigError(
            f"labels: the source itself answers none of {len(reference):,} rows as they say, so nothing could be lost; "
            "look at their numbering, their order, `task.threshold` and `task.tolerance`, or leave them out"
        )
    if judged_source:
        refuse_shuffled(rows)
    return reference, candidate


def task_quality(scene: Scene, against: Against, limit: Limit) -> Named:
    """A metric of the task: the candidate's value less the reference's; of errors, the other way round."""
    rows = scene.rows[against]
    found = quality.QUALITIES[limit.metric](rows, limit)
    yield limit.metric, _margin(found, rows, limit)


def _margin(found: quality.Quality, rows: Rows, limit: Limit) -> Measured:
    """What is left of the reference's quality: a difference, or for a relative margin the contrast that is 0 at its edge."""
    keep = 1.0 if limit.kind == "margin" else 1 + limit.bound if found.errors else 1 - limit.bound
    sign = -1.0 if found.errors else 1.0

    def contrast(both: Array) -> Array:
        return np.asarray(sign * (both[..., 1] - keep * both[..., 0]))

    of_figure = estimate.figure_of(
        _combined(found.figure, contrast), found.differs, found.worst, rows.groups, limit.confidence
    )
    return estimate.measured(of_figure, len(rows), rows.groups, limit.sense, limit.threshold)


def _combined(figure: Figure, combine: Callable[[Array], Array]) -> Figure:
    """A figure of what another figure gives."""
    match figure:
        case Sums(kind, table, of_sums):
            return Sums(kind, table, lambda sums: combine(of_sums(sums)))
        case Counts(cells, columns, of_counts):
            return Counts(cells, columns, lambda counts: combine(of_counts(counts)))
        case Weighted(of, None):
            return Weighted(lambda weights: combine(of(weights)))
        case Weighted(of, pooled):
            return Weighted(lambda weights: combine(of(weights)), lambda unit: _after(pooled(unit), combine))


def _after(of_units: Callable[[Array], Array], combine: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda weights: combine(of_units(weights))


def distance(scene: Scene, against: Against, limit: Limit) -> Named:
    """How near the candidate is to the reference, by a metric of the task. Nothing where answers carry no scores."""
    rows = scene.rows[against]
    found = quality.DISTANCES[limit.metric](rows, limit)
    of_figure = estimate.figure_of(found.figure, found.differs, found.worst, rows.groups, limit.confidence)
    yield limit.metric, estimate.measured(of_figure, len(rows), rows.groups, limit.sense, limit.threshold)


def cosine_minimum(scene: Scene, against: Against, limit: Limit) -> Named:
    """The smallest cosine of all rows. A minimum of a sample has no interval: it speaks of these rows alone."""
    cosines = scene.rows[against].facts["cosine"]
    yield "cosine_minimum", Measured.exactly(float(cosines.min()), len(cosines))


def route_flips(scene: Scene, against: Against, limit: Limit) -> Named:
    """Share of requests that change sides of the deployed rule."""
    assert scene.route is not None
    rows = scene.rows[against]
    kept = routed(rows, scene.route)
    found = estimate.share(kept.reference != kept.candidate, rows.groups, limit.confidence)
    yield "route_flips", estimate.measured(found, len(rows), rows.groups, limit.sense, limit.threshold)


def escalation_change(scene: Scene, against: Against, limit: Limit) -> Named:
    """How far the share of escalated requests moves, up or down."""
    assert scene.route is not None
    rows = scene.rows[against]
    kept = routed(rows, scene.route)
    found = estimate.difference(~kept.reference, ~kept.candidate, rows.groups, limit.confidence)
    yield (
        "escalation_change",
        estimate.measured(estimate.absolute(found), len(rows), rows.groups, limit.sense, limit.threshold),
    )


def kept_error_rate(scene: Scene, against: Against, limit: Limit) -> Named:
    """Wrong answers among those that the rule keeps: the reference's share less the candidate's."""
    assert scene.route is not None
    rows, pair = scene.rows[against], scene.right(against)
    if pair is None:
        return
    kept = routed(rows, scene.route)
    differs = (kept.reference != kept.candidate) | (pair[0] != pair[1])
    worst = 2 / max(float(kept.reference.mean()), 1 / len(rows))
    found = quality.Quality(kept_errors(kept, pair), differs, worst, errors=True)
    yield "kept_errors", _margin(found, rows, limit)


def latency(scene: Scene, against: Against, limit: Limit) -> Named:
    """Time of an integer artifact over that of its float twin."""
    if scene.target.precision == "int8":
        yield "latency ratio", latency_ratio(scene.timing(), limit.confidence)


def latency_ratio(seconds: Mapping[str, list[float]], confidence: float) -> Measured:
    """Median of artifact over float, call by call in alternation, with distribution-free bounds."""
    if "float" not in seconds:
        return NOTHING
    ratios = [a / b if b > 0 else math.nan for a, b in zip(seconds["artifact"], seconds["float"], strict=True)]
    found = statistics.median(ratios, confidence)
    return Measured(found.value, found.low, found.high, len(ratios), method="order statistics of the median")


def size(scene: Scene, against: Against, limit: Limit) -> Named:
    """Bytes of an integer artifact over those of its float twin."""
    if scene.target.precision == "int8":
        yield "size ratio", size_ratio(scene.folders)


def size_ratio(folders: Mapping[str, Path]) -> Measured:
    """Bytes of the artifact over bytes of its float twin."""
    if "float" not in folders:
        return NOTHING
    return Measured.exactly(artifact_bytes(folders["build"]) / artifact_bytes(folders["float"]), 1)


def quantized_share(scene: Scene, against: Against, limit: Limit) -> Named:
    """Share of the work that is integer, in the graph and in what the runtime compiled: the smaller of the two."""
    if scene.target.precision == "int8":
        found: float | None = json.loads((scene.folders["build"] / "build.json").read_text()).get("quantized_share")
        yield "quantized share", NOTHING if found is None else Measured.exactly(found, 1)


METRICS: Mapping[Metric, Callable[[Scene, Against, Limit], Named]] = {
    "float_error": float_error,
    "sqnr_db": sqnr_db,
    "agreement": agreement,
    "worst_slice": worst_slice,
    "correct": correctness,
    **dict.fromkeys(quality.QUALITIES, task_quality),
    **dict.fromkeys(quality.DISTANCES, distance),
    "cosine_minimum": cosine_minimum,
    "route_flips": route_flips,
    "escalation_change": escalation_change,
    "kept_errors": kept_error_rate,
    "latency_ratio": latency,
    "size_ratio": size,
    "quantized_share": quantized_share,
}
"""A new metric is one function, here or in `quality`, and its line in `limit.KINDS`."""
