"""Is it the suite? Where both sides agree and both are wrong, a mistake in labels or inputs may explain it.

In: the source's answers and the labels. Out: a `Doubt`, or None. The rule: what is fitted is fitted on every other row; on
the rest it must take away more than half of the source's wrong answers, beyond what chance gives for so many tries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compile import percent
from compile.config import ModelFile, TaskConfig
from compile.errors import ConfigError, ToolchainError
from parity.answers import Array, Flags, agree, correct
from parity.explain.experiment.case import Case
from parity.explain.mistake import preprocessing
from parity.explain.mistake.hypotheses import Hypothesis
from parity.labels import refuse_strange
from parity.observed import Observed, answers_in
from parity.statistics import counted

CHANCE = 1e-3
"""How often, at most, a sound suite may be doubted."""
MOST_CLASSES = 1024
SCREENED_ROWS = 64
DECIDED = ("classification", "binary_score")
SHIFTS = (-3, -2, -1, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A mistake in the suite that would explain why the source itself is wrong on it."""

    sentence: str
    remedy: str


def about(config: ModelFile, case: Case, source: Path, columns: Mapping[str, Array]) -> Doubt | None:
    """The first doubt that holds: labels in another order or numbering, inputs made otherwise than the model expects."""
    if "labels" not in columns:
        return None
    labels, answers = columns["labels"][columns["row"]], Observed(source, config).answers()
    if config.task.kind == "binary_score":
        try:
            refuse_strange(config, labels)
        except ConfigError as error:
            return Doubt(
                f"the suite, not the artifact: {str(error).removeprefix('suite: ')}", "label each row with 0 or 1"
            )
    right = correct(config.task, answers, labels)
    if right is None or right.all():
        return None
    found = list(_numbered(config.task, answers, labels))
    if not config.signature.state:  # frames of one stream hang together: no test here would be honest about chance
        found += [*_shifted(config.task, answers, labels), *_inputs(config, case, source, labels)]
    for name, remedy, before, after in found:
        if _holds(before, after, len(found)):
            was, so = (percent.share(float(one.mean()), 1) for one in (before, after))
            rates = f"the source is right in {was} of the rows as they are, in {so} so"
            return Doubt(f"the suite, not the artifact: {name}; {rates}", remedy)
    return None


def _holds(before: Flags, after: Flags, tries: int) -> bool:
    """Whether wrong answers more than halve, and surely fall."""
    gained, lost, n = int((after & ~before).sum()), int((before & ~after).sum()), len(before)
    if n == 0 or (~after).sum() * 2 >= (~before).sum():
        return False
    return counted.paired_difference(gained, lost, n, 1 - CHANCE / tries).low > 0


Tried = tuple[str, str, Flags, Flags]


def _shifted(task: TaskConfig, answers: Array, labels: Array) -> Iterator[Tried]:
    """Labels that belong to neighbouring rows."""
    for shift in SHIFTS:
        before, after = (correct(task, answers, each) for each in (labels, np.roll(labels, shift, axis=0)))
        if before is not None and after is not None:
            yield f"its labels are shifted by {shift} rows", "shift them back", before, after


def _numbered(task: TaskConfig, answers: Array, labels: Array) -> Iterator[Tried]:
    """Labels numbered otherwise."""
    if task.kind == "classification" and answers.ndim == 1 and labels.dtype.kind in "iu" and answers.dtype.kind in "iu":
        yield from _permuted(task, answers, labels)
    if task.kind == "binary_score":
        before, after = (correct(task, answers, each) for each in (labels, labels <= 0))
        if before is not None and after is not None:
            yield "its labels name the other class", "count the other class as positive", before, after


def _permuted(task: TaskConfig, answers: Array, labels: Array) -> Iterator[Tried]:
    from scipy.optimize import linear_sum_assignment

    size = int(max(answers.max(), labels.max())) + 1
    labels = labels.reshape(answers.shape)
    if labels.min() < 0 or size > MOST_CLASSES:
        return
    counts = np.zeros((size, size), np.int64)
    np.add.at(counts, (labels[0::2], answers[0::2]), 1)
    order = linear_sum_assignment(-counts)[1]
    before, after = (correct(task, answers[1::2], each[1::2]) for each in (labels, order[labels]))
    if before is not None and after is not None and (order != np.arange(size)).any():
        told = f": label {list(range(size))} is class {order.tolist()}" if size <= 12 else ""
        yield f"its labels are permuted{told}", "number the labels as the model's classes are", before, after


def _inputs(config: ModelFile, case: Case, source: Path, labels: Array) -> Iterator[Tried]:
    """The sampled rows with each mistake undone on the inputs of the suite itself."""
    bench = case.bench(case.exact, case.answers_in(source / "outputs"))
    rows = _rows(source, config, [path.name for path in case.files])
    before = correct(config.task, answers_in(bench.sound, config), labels[rows])
    if before is None or before.all():
        return
    if not _holds(before, np.ones_like(before), 1):  # too few are wrong for anything to be shown
        return
    few = bench.few(SCREENED_ROWS)
    both = zip(preprocessing.prepared_otherwise(few), preprocessing.prepared_otherwise(bench), strict=True)
    for on_few, one in both:
        worse = _fewer(_right(on_few, config, labels[rows]), before)
        after = None if worse else _right(one, config, labels[rows])
        name = one.name.replace("the candidate sees", "the model seems to expect")
        yield name, "prepare the suite's inputs as the model was trained", before, before if after is None else after


def _right(made: Hypothesis, config: ModelFile, labels: Array) -> Flags | None:
    """Which of the first rows, as many as it gives answers for, are right so; None where the model takes no such inputs, or answers
    all alike where labels are not: the most frequent label is no sign of understanding."""
    try:
        answers = answers_in(made.predict(), config)
    except ToolchainError:  # the model cannot be run on inputs made so: they were not
        return None
    labels = labels[: len(answers)]
    if config.task.kind in DECIDED and (labels != labels[0]).any():
        first = np.repeat(answers[:1], len(answers), axis=0)
        if agree(config.task, first, answers).all():
            return None
    return correct(config.task, answers, labels)


def _fewer(few: Flags | None, before: Flags) -> bool:
    """Whether fewer of a few rows are right than were before: where wrong answers halve, they are not."""
    return few is None or few.sum() < before[: len(few)].sum()


def _rows(source: Path, config: ModelFile, names: list[str]) -> Array:
    """Positions, in batch order, of the rows of some batches."""
    tensor = config.signature.answers[0]
    sizes = {}
    for path in Observed(source, config).files:
        with np.load(path) as outputs:
            sizes[path.name] = outputs[tensor.name].shape[tensor.batch_axis or 0]
    edges = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    return np.concatenate([np.arange(edges[name], edges[name] + sizes[name]) for name in names])
