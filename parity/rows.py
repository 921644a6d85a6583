"""What the judge keeps of every row: both sides' answers, and a few numbers about how far apart they are.

In: two observations, batch by batch, and the suite's columns. Out: `Rows`, and the `Levels` of their outputs. Both are walked
once, side by side: however wide the outputs, a row leaves its answer and a number or two, so that memory grows with rows
alone. Of embeddings the answer is which rows are nearest; of `none`, whose answers are the outputs themselves, none is kept.

The rule: a row that repeats another one, input for input, says nothing new and is not counted, but where it is answered
otherwise than the reference's answer and the other one is not, it stands for both; rows of one `group` are not
independent, and everything that speaks of certainty takes the group as its unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.config import TaskConfig, TaskKind
from compile.errors import ConfigError
from parity import answers
from parity.copies import standing_for
from parity.kinds import codes
from parity.levels import Levels
from parity.limit import LEAST_PROBABILITY
from parity.neighbours import GALLERY, gallery_of
from parity.observed import Observed, finder, joined
from parity.pieces import Pair

Array = NDArray[Any]
Flags = NDArray[np.bool_]
NOT_KEPT = ("row", "copy", "original", "id", "group")
LENGTH, APART = "length", "apart"


@dataclass(frozen=True, slots=True)
class Rows:
    """The judged rows of one pair. `facts`: numbers by row, named `confidence` (the reference's), `shift` (of confidence,
    candidate minus reference), `kl`, `cosine`, `error`; those that the task has. `groups`: 0 to G - 1, or None.
    `gallery`: among how many rows neighbours were looked up, where not among all."""

    task: TaskConfig
    reference: Array
    candidate: Array
    same: Flags
    facts: Mapping[str, NDArray[np.float64]]
    columns: Mapping[str, Array]
    groups: NDArray[np.int64] | None
    copies: int
    gallery: int | None = None

    @property
    def labels(self) -> Array | None:
        return self.columns.get("labels")

    def __len__(self) -> int:
        return len(self.same)

    @property
    def near(self) -> bool:
        """Whether the answers are neighbours: [rows, k] numbers of other judged rows."""
        return self.task.kind == "embedding"

    @property
    def units(self) -> int:
        """How many independent things were seen: groups, or rows where every row stands alone."""
        return len(self) if self.groups is None else int(self.groups.max()) + 1


def read_rows(
    reference: Observed, pairs: Iterable[Pair], columns: Mapping[str, Array], k: int = 1
) -> tuple[Rows, Levels]:
    """Walk both sides once. `pairs`: the reference's batches beside the candidate's; `columns` are those of the suite, with
    `row`: which of its rows each observed one is; `k`: how many neighbours of embeddings are looked up."""
    task, find, levels = reference.config.task, finder(reference.config), Levels()
    kept = _first_of_each(columns)
    read = _reader(task, reference, kept, k)
    parts: list[Part] = []
    rows = 0
    for ours, theirs in pairs:
        levels.see(ours, theirs)
        one, other = find(ours), find(theirs)
        parts.append(read(rows, one, other))
        rows += len(one)
    if rows != len(kept):
        made = f"`task.postprocess` ({task.postprocess})" if task.postprocess else "the source"
        raise ConfigError(
            f"{made} gives {rows:,} answers for {len(kept):,} rows; expected one a row: which axis of an output holds the "
            "rows says `outputs` in the model's config"
        )
    return _joined(task, parts, columns, kept), levels


@dataclass(frozen=True, slots=True)
class Part:
    """What is kept of one batch."""

    reference: Array
    candidate: Array
    facts: dict[str, NDArray[np.float64]]


def _reader(task: TaskConfig, reference: Observed, kept: Flags, k: int) -> Callable[[int, Array, Array], Part]:
    """What is kept of a batch, given the number of its first row and both sides' results."""

    def plain(first: int, one: Array, other: Array) -> Part:
        ours, theirs = (answers.answers(task.kind, side) for side in (one, other))
        facts = of_scores(task.kind, one, other)
        if task.kind not in ("regression", "none"):
            return Part(ours, theirs, facts)
        facts = of_answers(task, ours, theirs) | of_lengths(ours, theirs)
        nothing = np.zeros((len(ours), 0))
        return Part(ours, theirs, facts) if task.kind == "regression" else Part(nothing, nothing, facts)

    if task.kind != "embedding":
        return plain
    gallery = gallery_of((answers.answers(task.kind, one) for one in reference.results()), kept)
    place = np.cumsum(kept) - 1

    def near(first: int, one: Array, other: Array) -> Part:
        ours, theirs = (answers.answers(task.kind, side) for side in (one, other))
        found = [place[gallery.nearest(side, first, k)].astype(np.int32) for side in (ours, theirs)]
        return Part(found[0], found[1], of_answers(task, ours, theirs))

    return near


def _joined(task: TaskConfig, parts: list[Part], columns: Mapping[str, Array], kept: Flags) -> Rows:
    """All batches together; only rows that count."""
    told, said = (joined(side, task.kind) for side in ([p.reference for p in parts], [p.candidate for p in parts]))
    facts = {name: np.concatenate([part.facts[name] for part in parts]) for name in parts[0].facts}
    if task.kind == "binary_score":
        facts |= of_answers(task, told, said)
    same = _same(task, told, said, facts)
    stands = standing_for(columns, same)
    picked = columns["row"][kept]
    themselves: NDArray[Any] | slice = slice(None) if kept.all() else kept
    keep = themselves if stands is None else stands[kept]
    alike = same[keep]
    if task.kind == "embedding":  # neighbours are looked up apart from the row itself, and a copy has it beside it
        keep = themselves
    return Rows(
        task,
        told[keep],
        said[keep],
        alike,
        {name: values[keep] for name, values in facts.items() if name not in (LENGTH, APART)},
        {name: values[picked] for name, values in columns.items() if name not in NOT_KEPT},
        codes(columns["group"][picked]) if "group" in columns else None,
        int((~kept).sum()),
        GALLERY if task.kind == "embedding" and kept.sum() > GALLERY else None,
    )


def _same(task: TaskConfig, told: Array, said: Array, facts: Mapping[str, NDArray[np.float64]]) -> Flags:
    """Which rows are answered alike: of embeddings by the nearest, of numbers by their distance."""
    if task.kind == "embedding":
        return np.equal(told[:, 0], said[:, 0])
    if LENGTH in facts:
        return np.less_equal(answers.relative(facts[APART], facts[LENGTH]), task.tolerance)
    return answers.agree(task, told, said)


def _first_of_each(columns: Mapping[str, Array]) -> Flags:
    """The observed rows that count: all but copies of earlier ones."""
    order = columns["row"]
    return ~columns["copy"][order] if "copy" in columns else np.ones(len(order), bool)


def of_scores(kind: TaskKind, reference: Array, candidate: Array) -> dict[str, NDArray[np.float64]]:
    """Numbers by row for one batch of results that are scores over classes or symbols; none for other results."""
    scored = kind in ("classification", "sequence") and reference.dtype.kind == "f"
    if not scored or reference.ndim < 2 or reference.shape[-1] < 2:
        return {}
    return _of_distributions(probabilities(reference), probabilities(candidate))


def of_answers(task: TaskConfig, reference: Array, candidate: Array) -> dict[str, NDArray[np.float64]]:
    """Numbers by row for answers that are numbers themselves."""
    match task.kind:
        case "binary_score":
            ours, theirs = reference.astype(np.float64), candidate.astype(np.float64)
            are_probabilities = task.threshold < 1 and bool(((ours >= 0) & (ours <= 1)).all())
            sure, now = (certainty(side, task.threshold, are_probabilities) for side in (ours, theirs))
            return {"confidence": sure, "shift": now - sure, "error": np.abs(theirs - ours)}
        case "embedding" | "regression" | "none":
            if reference.dtype.kind not in "fiu":
                return {}
            ours, theirs = reference.astype(np.float64), candidate.astype(np.float64)
            return {"cosine": cosine(ours, theirs), "error": np.linalg.norm(theirs - ours, axis=1)}
        case _:
            return {}


def of_lengths(reference: Array, candidate: Array) -> dict[str, NDArray[np.float64]]:
    """How long the reference's line of numbers is, and how far the candidate's is from it."""
    ours = reference.astype(np.float64)
    return {LENGTH: np.linalg.norm(ours, axis=1), APART: np.linalg.norm(candidate.astype(np.float64) - ours, axis=1)}


def probabilities(scores: Array) -> NDArray[np.float64]:
    """Scores over the last axis as probabilities: as they are where they already are, else their softmax."""
    exact = scores.astype(np.float64)
    if (exact >= 0).all() and np.allclose(exact.sum(axis=-1), 1, atol=1e-3):
        return np.asarray(exact)
    powers = np.exp(exact - exact.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _of_distributions(ours: Array, theirs: Array) -> dict[str, NDArray[np.float64]]:
    """Confidence and Kullback-Leibler divergence in nats; the mean over positions where a row has several."""
    one, other = (np.clip(side, LEAST_PROBABILITY, 1) for side in (ours, theirs))
    places = tuple(range(1, ours.ndim - 1))
    kl = (ours * np.log(one / other)).sum(axis=-1).mean(axis=places)
    sure, now = (side.max(axis=-1).mean(axis=places) for side in (ours, theirs))
    return {"confidence": sure, "shift": now - sure, "kl": np.maximum(kl, 0)}


def certainty(scores: Array, threshold: float, are_probabilities: bool) -> NDArray[np.float64]:
    """How sure a score is: the probability of the side it is on, or, where scores are no probabilities, how far it is from
    the threshold."""
    return np.asarray(np.maximum(scores, 1 - scores) if are_probabilities else np.abs(scores - threshold))


def cosine(one: Array, other: Array) -> NDArray[np.float64]:
    """Row by row; 1 where both rows are nothing."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    both_nothing = (lengths == 0) & ~(one.any(axis=1) | other.any(axis=1))
    found = (one * other).sum(axis=1) / np.maximum(lengths, np.finfo(float).tiny)
    return np.where(both_nothing, 1.0, np.clip(found, -1, 1))
