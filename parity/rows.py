"""What the judge keeps of every row: both sides' answers, and a few numbers about how far apart they are.

In: two observations and the suite's columns. Out: `Rows`. Both are walked once, side by side, batch by batch: however
wide the outputs, a row leaves its answer and a number or two, so that memory grows with rows alone.

The rule: a row that repeats another one, input for input, says nothing new and is not counted; rows of one `group` are not
independent, and everything that speaks of certainty takes the group as its unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.config import TaskConfig, TaskKind
from parity import answers
from parity.observed import Observed, joined

Array = NDArray[Any]
Flags = NDArray[np.bool_]
LEAST_PROBABILITY = 1e-7
"""Where probabilities are cut off for KL: about the resolution of float32 below 1."""
MOST_KL = float(-np.log(LEAST_PROBABILITY))


@dataclass(frozen=True, slots=True)
class Rows:
    """The judged rows of one pair. `facts`: numbers by row, named `confidence` (the reference's), `shift` (of confidence,
    candidate minus reference), `kl`, `cosine`, `error`; those that the task has. `groups`: 0 to G - 1, or None."""

    task: TaskConfig
    reference: Array
    candidate: Array
    same: Flags
    facts: Mapping[str, NDArray[np.float64]]
    columns: Mapping[str, Array]
    groups: NDArray[np.int64] | None
    copies: int

    @property
    def labels(self) -> Array | None:
        return self.columns.get("labels")

    def __len__(self) -> int:
        return len(self.same)

    @property
    def units(self) -> int:
        """How many independent things were seen: groups, or rows where every row stands alone."""
        return len(self) if self.groups is None else int(self.groups.max()) + 1


def read_rows(task: TaskConfig, reference: Observed, candidate: Observed, columns: Mapping[str, Array]) -> Rows:
    """Walk both sides once. `columns` are those of the suite, with `row`: which of its rows each observed one is."""
    ours, theirs, scores = [], [], []
    for one, other in zip(reference.results(), candidate.results(), strict=True):
        scores.append(of_scores(task.kind, one, other))
        ours.append(answers.answers(task.kind, one))
        theirs.append(answers.answers(task.kind, other))
    told, said = joined(ours, task.kind), joined(theirs, task.kind)
    facts = {name: np.concatenate([batch[name] for batch in scores]) for name in scores[0]}
    facts |= of_answers(task, told, said)
    same = answers.agree(task, told, said)
    order = columns["row"]
    kept = _first_of_each(columns)
    return Rows(
        task,
        told[kept],
        said[kept],
        same[kept],
        {name: values[kept] for name, values in facts.items()},
        {name: values[order][kept] for name, values in columns.items() if name not in ("row", "copy")},
        codes(columns["group"][order][kept]) if "group" in columns else None,
        int((~kept).sum()),
    )


def _first_of_each(columns: Mapping[str, Array]) -> Flags:
    """The observed rows that count: all but copies of earlier ones."""
    order = columns["row"]
    return ~columns["copy"][order] if "copy" in columns else np.ones(len(order), bool)


def codes(groups: Array) -> NDArray[np.int64] | None:
    """Groups as numbers from 0; None where every row is a group of its own."""
    names, found = np.unique(groups, return_inverse=True)
    return None if len(names) == len(groups) else np.asarray(found, np.int64)


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
