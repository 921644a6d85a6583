"""Two producers' answers on the same rows -> what differs, how much, where, and in which direction.

Arrays in, facts out; pure. The figures are counted here and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compile.config import TaskConfig
from parity.answers import agree, correct, whole_rows
from parity.copies import standing_for
from parity.detection import SCORE
from parity.dossier.inputs import cut
from parity.dossier.pair import Confusion, Flip, Pair, Series, Shift, SliceFact
from parity.dossier.sureness import Sureness, sureness
from parity.kinds import Codes, codes
from parity.neighbours import gallery_of
from parity.slices import Slice, cut_columns, slices
from parity.statistics import estimate
from parity.statistics.counted import Interval

Array = NDArray[Any]
CONFIDENCE = 0.95
MOST_FLIPS = 12
MOST_BOXES = 6
MOST_KINDS = 12
MOST_QUOTED = 60
BINS = 20
RULE = "the kinds of difference in turn, the most frequent first; within each the largest {drift} first"


@dataclass(frozen=True, slots=True)
class Said:
    """What one producer said on the suite, in observed order."""

    answers: Array
    scores: Array | None


@dataclass(frozen=True, slots=True)
class Stage:
    """The suite's side of a comparison: the task, the columns, how classes are called, and the smallest slice."""

    task: TaskConfig
    columns: Mapping[str, Array]
    names: Mapping[str, str]
    smallest: int

    def of_rows(self, column: str) -> Array | None:
        """A column in observed order."""
        return self.columns[column][self.columns["row"]] if column in self.columns else None

    @property
    def copies(self) -> NDArray[np.bool_]:
        """Rows that repeat an earlier one: they are not counted."""
        found = self.of_rows("copy")
        return np.zeros(len(self.columns["row"]), bool) if found is None else found.astype(bool)


def compare(
    stage: Stage,
    against: Literal["source", "baseline"],
    other: str,
    reference: Said,
    candidate: Said,
    given: tuple[SliceFact, ...] | None = None,
    sure: Sureness | None = None,
) -> Pair:
    """Everything that a page says of a pair; `given` are the slices that the verdict lists itself, `sure` how sure both sides
    are, where that was seen before."""
    near = neighbours(stage, reference.answers, candidate.answers)
    same = agree(stage.task, reference.answers, candidate.answers) if near is None else near[0] == near[1]
    right = _right(stage, reference.answers, candidate.answers, near)
    sure = sure or sureness(stage.task, (reference.answers, candidate.answers), (reference.scores, candidate.scores))
    stands = standing_for(stage.columns, same)
    if stands is not None:
        same, sure = same[stands], sure.of(stands)
        reference, candidate = (Said(side.answers[stands], None) for side in (reference, candidate))
        near = None if near is None else (near[0][stands], near[1][stands])
        if right is not None and near is None:
            right = right[0][stands], right[1][stands]
    same |= stage.copies
    n, differ = int((~stage.copies).sum()), int((~same).sum())
    alike = _share(stage, same, np.flatnonzero(~stage.copies))
    texts = tuple(as_words(stage, side.answers) for side in (reference, candidate))
    if near is not None:
        texts = tuple([f"nearest to {_called(stage, i)}" for i in side.tolist()] for side in near)
    parts = given if given is not None else slice_facts(stage, same)
    kinds = [(texts[0][i], texts[1][i]) for i in map(int, np.flatnonzero(~same))]
    groups = stage.columns.get("group")
    return Pair(
        against=against,
        other=other,
        n=n,
        differ=differ,
        share=1 - alike.value,
        low=1 - alike.high,
        high=1 - alike.low,
        agree=alike.value,
        agree_low=alike.low,
        groups=None if groups is None else len(np.unique(groups)),
        lost=None if right is None else int((right[0] & ~right[1] & ~stage.copies).sum()),
        gained=None if right is None else int((~right[0] & right[1] & ~stage.copies).sum()),
        both_right=None if right is None else int((right[0] & right[1] & ~same).sum()),
        both_wrong=None if right is None else int((~right[0] & ~right[1] & ~same).sum()),
        sure=_span(sure, same),
        sure_name=sure.name,
        confusion=tuple(Confusion(reference=a, candidate=b, count=c) for (a, b), c in _counted(kinds)),
        slices=tuple(sorted(parts, key=lambda part: (part.value, part.low))[:MOST_KINDS]),
        slices_total=len(parts),
        shift=shift(stage.task, sure.of(np.flatnonzero(~stage.copies)), same[~stage.copies]),
        flips=tuple(_flip(stage, i, texts, sure, right) for i in chosen(same, sure.drift, texts)),
        rule=RULE.format(drift=sure.drift_name),
    )


def _share(stage: Stage, same: NDArray[np.bool_], rows: NDArray[np.int64]) -> Interval:
    """The share of these rows that hold, bounded as the judge bounds it: over groups where rows are grouped."""
    groups = stage.of_rows("group")
    unit = None if groups is None else codes(groups[rows])
    found = estimate.share(same[rows], unit, CONFIDENCE)(len(rows)).interval
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))


def _counted(kinds: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], int]]:
    """Kinds of difference with their counts, the most frequent first."""
    return sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0]))


def chosen(same: NDArray[np.bool_], drift: Array, texts: Sequence[Sequence[str]]) -> list[int]:
    """The rows that are shown: of each kind of difference in turn the largest drift, the most frequent kind first."""
    queues: dict[tuple[str, str], list[int]] = {}
    for i in sorted(np.flatnonzero(~same).tolist(), key=lambda i: (-drift[i], i)):
        queues.setdefault((texts[0][i], texts[1][i]), []).append(i)
    order = sorted(queues, key=lambda kind: (-len(queues[kind]), kind))
    found: list[int] = []
    while len(found) < MOST_FLIPS and any(queues.values()):
        found += [queues[kind].pop(0) for kind in order if queues[kind]]
    return found[:MOST_FLIPS]


def neighbours(stage: Stage, reference: Array, candidate: Array) -> tuple[Codes, Codes] | None:
    """Of embeddings which row is nearest to each side's, among those that the judge looks it up in: the reference's that count."""
    if stage.task.kind != "embedding":
        return None
    gallery = gallery_of([reference], ~stage.copies)
    return gallery.nearest(reference, 0, 1)[:, 0], gallery.nearest(candidate, 0, 1)[:, 0]


def as_words(stage: Stage, found: Array) -> list[str]:
    """Each answer as a person says it."""
    task = stage.task
    match task.kind:
        case "binary_score":
            sides = (f"below {task.threshold:g}", f"at or above {task.threshold:g}")
            return [sides[int(score >= task.threshold)] for score in found]
        case "detection":
            return [_boxes(stage, one[one[:, SCORE] >= task.threshold]) for one in found]
        case _:
            return [_answer(stage, one) for one in found]


def _called(stage: Stage, i: int) -> str:
    """A row that an answer points at: the beginning of its text where the suite has texts, else its id, else its number."""
    texts, ids = stage.of_rows("text"), stage.of_rows("id")
    if texts is not None:
        return f"“{cut(str(texts[i]), MOST_QUOTED)}”"
    return str(i if ids is None else ids[i])


def _boxes(stage: Stage, found: Array) -> str:
    """What was found, the surest first: class, score and place of each box."""
    told = [
        f"{stage.names.get(f'{kind:g}', f'class {kind:g}')} ({score:.2f}) at {', '.join(f'{v:.4g}' for v in place)}"
        for *place, score, kind in found[np.argsort(-found[:, SCORE], kind="stable")]
    ]
    return "; ".join(told[:MOST_BOXES]) + (" …" if len(told) > MOST_BOXES else "") if told else "nothing"


def _answer(stage: Stage, one: Array) -> str:
    parts = np.ravel(one)
    if parts.dtype.kind == "f":
        text = ", ".join(f"{v:.4g}" for v in parts[:6])
    else:
        text = " ".join(stage.names.get(str(v), str(v)) for v in parts[:24])
    return text + (" …" if len(parts) > (6 if parts.dtype.kind == "f" else 24) else "")


def class_names(columns: Mapping[str, Array]) -> dict[str, str]:
    """Label -> name, from a column of words that maps one to one to the labels; `class_name` before any other."""
    labels = columns.get("labels")
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iub":
        return {}
    words = [
        name for name, column in columns.items() if column.dtype.kind in "US" and name not in ("id", "group", "text")
    ]
    for name in sorted(words, key=lambda name: (name != "class_name", name)):
        pairs = {(str(label), str(word)) for label, word in zip(labels, columns[name], strict=True)}
        if len(pairs) > 1 and len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}):
            return dict(sorted(pairs))
    return {}


def slice_facts(stage: Stage, same: NDArray[np.bool_]) -> tuple[SliceFact, ...]:
    """Agreement in every slice that rows have, each with bounds of its own."""
    found = []
    columns = {name: values[stage.columns["row"]] for name, values in stage.columns.items() if name != "row"}
    for part in _distinct(slices(cut_columns(columns, None), (), stage.smallest)):
        rows = part.rows[~stage.copies[part.rows]]
        if part.every or not len(rows):
            continue
        differ, bounds = int((~same[rows]).sum()), _share(stage, same, rows)
        found.append(
            SliceFact(name=part.name, n=part.size, differ=differ, value=bounds.value, low=bounds.low, high=bounds.high)
        )
    return tuple(found)


def _distinct(parts: Sequence[Slice]) -> list[Slice]:
    """Slices of the same rows are shown once, under the later name: words for classes come after their numbers."""
    return list({part.rows.tobytes(): part for part in parts}.values())


def _right(
    stage: Stage, reference: Array, candidate: Array, near: tuple[Codes, Codes] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Which rows each side got right by the labels, as the judge counts them; None where labels do not say."""
    labels = stage.of_rows("labels")
    if labels is None:
        return None
    if near is not None:
        return whole_rows(labels[near[0]] == labels), whole_rows(labels[near[1]] == labels)
    ours, theirs = correct(stage.task, reference, labels), correct(stage.task, candidate, labels)
    return None if ours is None or theirs is None else (ours, theirs)


def _span(sure: Sureness, same: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The reference's lowest and highest confidence or score among the rows that differ."""
    if sure.reference is None or same.all():
        return None
    found = sure.reference[~same]
    return float(found.min()), float(found.max())


def shift(task: TaskConfig, sure: Sureness, same: NDArray[np.bool_]) -> Shift | None:
    """Confidence or score of both sides (else the drift alone) in equal bins, and how far rows moved."""
    if not np.isfinite(sure.drift).all():
        return None
    sides = [("reference", sure.reference), ("candidate", sure.candidate)]
    lines = [(name, values) for name, values in sides if values is not None] or [(sure.drift_name, sure.drift)]
    edges = _edges(sure, np.concatenate([values for _, values in lines]))
    moved = np.abs(sure.drift)
    mark = {"binary_score": task.threshold, "regression": task.tolerance, "none": task.tolerance}.get(task.kind)
    return Shift(
        name=sure.name or sure.drift_name,
        edges=tuple(float(edge) for edge in edges),
        series=tuple(Series(name=name, counts=_counts(values, edges)) for name, values in lines),
        flips=_counts(lines[0][1][~same], edges),
        mark=mark,
        median=float(np.median(moved)),
        p99=float(np.percentile(moved, 99)),
        largest=float(moved.max()),
    )


def _edges(sure: Sureness, values: Array) -> Array:
    """20 bins from 0 to 1 where all lie there; else over the middle 99 % of the values, the last bins open."""
    if sure.name and values.min() >= 0 and values.max() <= 1:
        return np.linspace(0, 1, BINS + 1)
    low, high = np.percentile(values, (0.5, 99.5))
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _counts(values: Array, edges: Array) -> tuple[int, ...]:
    return tuple(int(c) for c in np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0])


def _flip(
    stage: Stage,
    i: int,
    texts: Sequence[Sequence[str]],
    sure: Sureness,
    right: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None,
) -> Flip:
    ids, labels = stage.of_rows("id"), stage.of_rows("labels")
    row = int(stage.columns["row"][i])
    return Flip(
        row=row,
        id=str(row if ids is None else ids[i]),
        label=None if labels is None else _answer(stage, labels[i]),
        reference=texts[0][i],
        candidate=texts[1][i],
        reference_sure=None if sure.reference is None else float(sure.reference[i]),
        candidate_sure=None if sure.candidate is None else float(sure.candidate[i]),
        drift=float(sure.drift[i]),
        right=None if right is None else (bool(right[0][i]), bool(right[1][i])),
    )
