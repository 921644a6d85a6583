"""Observations -> measurements: what each limit of a policy is compared with.

Pure over what was read: no decision is made here, and no figure is made up: a metric that this task does not have
gives no measurement.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.artifact import artifact_bytes
from compile.config import ModelFile, TargetFile
from compile.errors import ConfigError
from parity import statistics
from parity.answers import agree, correct
from parity.observed import Observed
from parity.policy import Against, Limit, Metric
from parity.slices import Slice, slices
from parity.statistics import Interval
from parity.verdict import Measured, Sense, Status, decide

Array = NDArray[Any]
NOTHING = Measured(math.nan, math.nan, math.nan, 0)
"""What should have been measured and was not: no limit lets it pass."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One candidate and what it is compared with."""

    config: ModelFile
    target: TargetFile
    candidate: Observed
    others: Mapping[Against, Observed]
    columns: Mapping[str, Array]
    folders: Mapping[str, Path]

    def labels(self) -> Array | None:
        """Labels in the order of the observed rows, or None."""
        return self.columns["labels"][self.columns["row"]] if "labels" in self.columns else None

    def timing(self) -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = json.loads((self.folders["timing"] / "timing.json").read_text())["seconds"]
        return seconds


def measured(limit: Limit, against: Against, scene: Scene) -> Iterator[tuple[str, Measured]]:
    """The measurements that one limit judges against one side, each with its name."""
    return METRICS[limit.metric](scene, against, limit)


def float_error(scene: Scene, against: Against, limit: Limit) -> Iterator[tuple[str, Measured]]:
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


def sqnr_db(scene: Scene, against: Against, limit: Limit) -> Iterator[tuple[str, Measured]]:
    """Signal to quantization noise per float output: 10 log10(sum r^2 / sum (r - c)^2) over the whole suite."""
    reference, candidate = scene.others[against], scene.candidate
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    rows = 0
    for ours, theirs in zip(reference.batches(), candidate.batches(), strict=True):
        rows += len(next(iter(ours.values())))
        for name, one in ours.items():
            if one.dtype.kind == "f":
                exact = one.astype(np.float64)
                signal[name] = signal.get(name, 0.0) + float((exact**2).sum())
                noise[name] = noise.get(name, 0.0) + float(((exact - theirs[name]) ** 2).sum())
    for name, power in signal.items():
        value = np.inf if noise[name] == 0 else 10 * float(np.log10(max(power, np.finfo(float).tiny) / noise[name]))
        yield f"SQNR of `{name}` in dB", Measured.exactly(value, rows)


def agreement(scene: Scene, against: Against, limit: Limit) -> Iterator[tuple[str, Measured]]:
    """Share of rows answered alike, with exact binomial bounds."""
    same = agree(scene.config.task, scene.others[against].answers(), scene.candidate.answers())
    count, n = int(same.sum()), len(same)

    def bounds(rows: int) -> Interval:
        return statistics.share(round(count / n * rows), rows, limit.confidence)

    yield "agreement", _with_needed(bounds, n, "at_least", limit.bound)


def worst_slice(scene: Scene, against: Against, limit: Limit) -> Iterator[tuple[str, Measured]]:
    """Agreement in the slice that decides: the one that is surely below the limit, else the one that is least surely above.

    Every slice has to pass, which needs no correction for their number; that one of them failed is said with bounds that
    hold for all of them at once (Bonferroni). Nothing without columns.
    """
    parts = slices(scene.columns, limit.by, limit.smallest)
    if not parts:
        return
    same = agree(scene.config.task, scene.others[against].answers(), scene.candidate.answers())
    at_once = 1 - (1 - limit.confidence) / len(parts)

    def bounds(part: Slice, rows: int) -> Interval:
        count = round(float(same[part.rows].mean()) * rows)
        alone = statistics.share(count, rows, limit.confidence)
        return Interval(alone.value, alone.low, statistics.share(count, rows, at_once).high)

    found = [bounds(part, part.size) for part in parts]
    failing = min(found, key=lambda interval: interval.high).high < limit.bound
    worst = parts[min(range(len(parts)), key=lambda i: found[i].high if failing else found[i].low)]
    name = f"agreement in the worst of {len(parts)} slices ({worst.name})"
    yield name, _with_needed(partial(bounds, worst), worst.size, "at_least", limit.bound)


def correctness(scene: Scene, against: Against, limit: Limit) -> Iterator[tuple[str, Measured]]:
    """Right answers of candidate and reference, row by row: the difference of their shares with Tango's bounds, or their
    ratio with its score bounds. Nothing without labels."""
    pair = right_answers(scene, against)
    if pair is None:
        return
    reference, candidate = pair
    gained, lost = int((candidate & ~reference).sum()), int((reference & ~candidate).sum())
    n = len(reference)

    both = int((candidate & reference).sum())

    def bounds(rows: int) -> Interval:
        better, worse = round(gained * rows / n), round(lost * rows / n)
        if limit.kind == "relative_margin":
            return statistics.paired_ratio(round(both * rows / n), better, worse, limit.confidence)
        return statistics.paired_difference(better, worse, rows, limit.confidence)

    name = "correct" if limit.kind == "margin" else "correct, relative"
    yield name, _with_needed(bounds, n, "at_least", limit.threshold)


def right_answers(scene: Scene, against: Against) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Which rows the reference and the candidate got right, or None where the suite has no labels."""
    labels = scene.labels()
    if labels is None:
        return None
    reference = correct(scene.config.task, scene.others[against].answers(), labels)
    candidate = correct(scene.config.task, scene.candidate.answers(), labels)
    if against == "source" and reference is not None and not reference.any():
        raise ConfigError(
            f"labels: the source itself answers none of {len(reference):,} rows as they say, so nothing could be lost; "
            "look at their numbering, their order, `task.threshold` and `task.tolerance`, or leave them out"
        )
    return None if reference is None or candidate is None else (reference, candidate)


def latency(scene: Scene, against: Against, limit: Limit) -> Iterator[tuple[str, Measured]]:
    """Time of an integer artifact over that of its float twin."""
    if scene.target.precision == "int8":
        yield "latency ratio", latency_ratio(scene.timing(), limit.confidence)


def latency_ratio(seconds: Mapping[str, list[float]], confidence: float) -> Measured:
    """Median of artifact over float, call by call in alternation, with distribution-free bounds."""
    if "float" not in seconds:
        return NOTHING
    ratios = [a / b if b > 0 else math.nan for a, b in zip(seconds["artifact"], seconds["float"], strict=True)]
    found = statistics.median(ratios, confidence)
    return Measured(found.value, found.low, found.high, len(ratios))


def size(scene: Scene, against: Against, limit: Limit) -> Iterator[tuple[str, Measured]]:
    """Bytes of an integer artifact over those of its float twin."""
    if scene.target.precision == "int8":
        yield "size ratio", size_ratio(scene.folders)


def size_ratio(folders: Mapping[str, Path]) -> Measured:
    """Bytes of the artifact over bytes of its float twin."""
    if "float" not in folders:
        return NOTHING
    return Measured.exactly(artifact_bytes(folders["build"]) / artifact_bytes(folders["float"]), 1)


METRICS: Mapping[Metric, Callable[[Scene, Against, Limit], Iterator[tuple[str, Measured]]]] = {
    "float_error": float_error,
    "sqnr_db": sqnr_db,
    "agreement": agreement,
    "worst_slice": worst_slice,
    "correct": correctness,
    "latency_ratio": latency,
    "size_ratio": size,
}
"""A new metric is one function here and its bound in the policy."""


def summary(scene: Scene) -> dict[str, Any]:
    """The figures of the table: agreement and task metric against the source, latency, size."""
    same = agree(scene.config.task, scene.others["source"].answers(), scene.candidate.answers())
    bounds = statistics.share(int(same.sum()), len(same), 0.95)
    pair = right_answers(scene, "source")
    seconds = scene.timing()
    ratio = latency_ratio(seconds, 0.95)
    return {
        "agreement": {"value": bounds.value, "low": bounds.low, "disagree": int((~same).sum()), "n": len(same)},
        "correct": None if pair is None else {"source": float(pair[0].mean()), "candidate": float(pair[1].mean())},
        "latency_p50_s": float(np.median(seconds["artifact"])),
        "float_p50_s": float(np.median(seconds["float"])) if "float" in seconds else None,
        "latency_ratio": ratio.value if "float" in seconds else None,
        "size_bytes": artifact_bytes(scene.folders["build"]),
    }


def _with_needed(bounds: Callable[[int], Interval], n: int, sense: Sense, limit: float) -> Measured:
    """The measurement at `n` rows, and, where it does not decide, the rows that would."""

    def at(rows: int) -> Measured:
        found = bounds(rows)
        return Measured(found.value, found.low, found.high, rows)

    here = at(n)
    if decide(here, sense, limit) is not Status.INCONCLUSIVE:
        return here
    needed = statistics.rows_needed(n, lambda rows: decide(at(rows), sense, limit) is not Status.INCONCLUSIVE)
    return Measured(here.value, here.low, here.high, n, needed)
