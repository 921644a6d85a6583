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
from parity import quality
from parity.answers import correct, whole_rows
from parity.kinds import Codes
from parity.labels import refuse_shuffled
from parity.laws import Walk
from parity.levels import Levels
from parity.limit import Against, Limit, Metric
from parity.observed import Observed, pieces_of
from parity.policy import Policy, Route
from parity.route import kept_errors, routed
from parity.rows import Rows, read_rows
from parity.slices import columns_to_slice, examined
from parity.statistics import counted, estimate
from parity.statistics.resampling import Counts, Figure, Sums, Weighted
from parity.verdict import Measured

Array = NDArray[Any]
Flags = NDArray[np.bool_]
Named = Iterator[tuple[str, Measured]]
OF_NEIGHBOURS: tuple[Metric, ...] = ("agreement", "worst_slice", "correct", "recall_at_k", "rank_overlap")
"""Metrics that, of embeddings, are read off nearest neighbours."""
NOTHING = Measured(math.nan, math.nan, math.nan, 0)
"""What should have been measured and was not: no limit lets it pass."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One candidate and what it is compared with; `rows` and `levels` are read once for each side."""

    config: ModelFile
    target: TargetFile
    rows: Mapping[Against, Rows]
    levels: Mapping[Against, Levels]
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
    walk: Walk,
    baseline: Observed | None,
    columns: Mapping[str, Array],
    folders: Mapping[str, Path],
) -> Scene:
    """Everything that limits are measured on, read; LawBroken where the candidate's outputs break a law."""
    k = max((limit.k for limit in policy.limits if limit.metric in OF_NEIGHBOURS), default=1)
    seen: dict[Against, tuple[Rows, Levels]] = {"source": read_rows(walk.source, walk.lawful, columns, k)}
    if baseline is not None:
        pairs = pieces_of(zip(baseline.batches(), walk.candidate.batches(), strict=True), config)
        seen["baseline"] = read_rows(baseline, pairs, columns, k)
    rows, levels = ({name: pair[0] for name, pair in seen.items()}, {name: pair[1] for name, pair in seen.items()})
    return Scene(config, target, rows, levels, folders, policy.route)


def measured(limit: Limit, against: Against, scene: Scene) -> Named:
    """The measurements that one limit judges against one side, each with its name."""
    return METRICS[limit.metric](scene, against, limit)


def spoken(limit: Limit) -> str:
    """A metric's name as words."""
    words = limit.metric.replace("_", " ")
    return {"auc": "AUC", "kl": "KL", "f1": "F1", "macro f1": "macro F1"}.get(words, words)


def float_error(scene: Scene, against: Against, limit: Limit) -> Named:
    """Largest difference to the source, in multiples of the noise floor; integer outputs must be equal."""
    floors: dict[str, float] = json.loads((scene.folders["source"] / "floor.json").read_text())["outputs"]
    levels = scene.levels["source"]
    for tensor in scene.config.signature.answers:
        gap = levels.gap[tensor.name] / floors.get(tensor.name, 1.0)
        yield f"float error of `{tensor.name}` in floors", Measured.exactly(gap, levels.rows)


def sqnr_db(scene: Scene, against: Against, limit: Limit) -> Named:
    """Signal to quantization noise per float output, over the whole suite."""
    levels = scene.levels[against]
    for name in levels.signal:
        yield f"SQNR of `{name}` in dB", Measured.exactly(levels.sqnr_db(name), levels.rows)


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
    labels = rows.labels
    assert labels is not None
    sides = (rows.reference, rows.candidate)
    reference, candidate = (
        whole_rows(labels[side[:, 0]] == labels) if rows.near else correct(rows.task, side, labels) for side in sides
    )
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
    yield spoken(limit), _margin(found, rows, limit)


def _margin(found: quality.Quality, rows: Rows, limit: Limit) -> Measured:
    """What is left of the reference's quality: a difference, or for a relative margin the contrast that is 0 at its edge."""
    of_figure = estimate.figure_of(contrast(found, limit), found.differs, found.worst, rows.groups, limit.confidence)
    # both sides of a share are 0 to 1; errors may be more
    span = (-math.inf, math.inf) if found.errors else (-kept(found, limit), 1.0)
    return estimate.measured(estimate.within(span, of_figure), len(rows), rows.groups, limit.sense, limit.threshold)


def contrast(found: quality.Quality, limit: Limit) -> Figure:
    """The figure that meets a margin's threshold, of a metric of both sides."""
    keep = kept(found, limit)
    sign = -1.0 if found.errors else 1.0
    return _combined(found.figure, lambda both: np.asarray(sign * (both[..., 1] - keep * both[..., 0])))


def kept(found: quality.Quality, limit: Limit) -> float:
    """How much of the reference's value the candidate is held to."""
    return 1.0 if limit.kind == "margin" else 1 + limit.bound if found.errors else 1 - limit.bound


def _combined(figure: Figure, combine: Callable[[Array], Array]) -> Figure:
    """A figure of what another figure gives."""
    match figure:
        case Sums(kind, table, of_sums):
            return Sums(kind, table, lambda sums: combine(of_sums(sums)))
        case Counts(cells, columns, of_counts):
            return Counts(cells, columns, lambda counts: combine(of_counts(counts)))
        case Weighted(of, pooled):
            by_unit = None if pooled is None else _pooled(pooled, combine)
            return Weighted(lambda weights: combine(of(weights)), by_unit)


def _pooled(
    pooled: Callable[[Codes], Callable[[Array], Array]], combine: Callable[[Array], Array]
) -> Callable[[Codes], Callable[[Array], Array]]:
    def of_units(unit: Codes) -> Callable[[Array], Array]:
        figure = pooled(unit)
        return lambda weights: combine(figure(weights))

    return of_units


def distance(scene: Scene, against: Against, limit: Limit) -> Named:
    """How near the candidate is to the reference, by a metric of the task. Nothing where answers carry no scores."""
    rows = scene.rows[against]
    found = quality.DISTANCES[limit.metric](rows, limit)
    span = (-math.inf, math.inf) if limit.metric == "state_drift" else limit.is_a.span  # a difference of two distances
    of_figure = estimate.within(
        span, estimate.figure_of(found.figure, found.differs, found.worst, rows.groups, limit.confidence)
    )
    yield spoken(limit), estimate.measured(of_figure, len(rows), rows.groups, limit.sense, limit.threshold)


def cosine_minimum(scene: Scene, against: Against, limit: Limit) -> Named:
    """The smallest cosine of all rows. A minimum of a sample has no interval: it speaks of these rows alone."""
    cosines = scene.rows[against].facts["cosine"]
    yield spoken(limit), Measured.exactly(float(cosines.min()), len(cosines))


def route_flips(scene: Scene, against: Against, limit: Limit) -> Named:
    """Share of requests that change sides of the deployed rule."""
    assert scene.route is not None
    rows = scene.rows[against]
    kept = routed(rows, scene.route)
    found = estimate.share(kept.reference != kept.candidate, rows.groups, limit.confidence)
    yield spoken(limit), estimate.measured(found, len(rows), rows.groups, limit.sense, limit.threshold)


def escalation_change(scene: Scene, against: Against, limit: Limit) -> Named:
    """How far the share of escalated requests moves, up or down."""
    assert scene.route is not None
    rows = scene.rows[against]
    kept = routed(rows, scene.route)
    found = estimate.difference(~kept.reference, ~kept.candidate, rows.groups, limit.confidence)
    moved = estimate.absolute(found)
    yield spoken(limit), estimate.measured(moved, len(rows), rows.groups, limit.sense, limit.threshold)


def kept_error_rate(scene: Scene, against: Against, limit: Limit) -> Named:
    """Wrong answers among those that the rule keeps: the reference's share less the candidate's."""
    assert scene.route is not None
    rows, pair = scene.rows[against], scene.right(against)
    if pair is not None:
        yield spoken(limit), _margin(kept_quality(rows, scene.route, pair), rows, limit)


def kept_quality(rows: Rows, route: Route, right: tuple[Flags, Flags]) -> quality.Quality:
    """The errors among kept answers as a metric of both sides."""
    kept = routed(rows, route)
    differs = (kept.reference != kept.candidate) | (right[0] != right[1])
    worst = 2 / max(float(kept.reference.mean()), 1 / len(rows))
    return quality.Quality(kept_errors(kept, right), differs, worst, errors=True)


def latency(scene: Scene, against: Against, limit: Limit) -> Named:
    """Time of an integer artifact over that of its float twin."""
    if scene.target.precision == "int8":
        yield "latency ratio", latency_ratio(scene.timing(), limit.confidence)


def latency_ratio(seconds: Mapping[str, list[float]], confidence: float) -> Measured:
    """Median of artifact over float, call by call in alternation, with distribution-free bounds."""
    if "float" not in seconds:
        return NOTHING
    ratios = [a / b if b > 0 else math.nan for a, b in zip(seconds["artifact"], seconds["float"], strict=True)]
    found = counted.median(ratios, confidence)
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
