"""What a diagnosis works on: graphs, a sample of real batches, and what the sound side and the candidate answered on them.

In: folders. Out: a `Case`. The rule: whole batches are sampled, so that what depends on who shares a batch shows; first
those in which answers flipped, then others by a fixed seed; with state, the first frames of every stream.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from compile import dataset
from compile.config import ModelFile, TargetFile
from compile.errors import ConfigError
from compile.project import Project
from compile.signature import BATCH, Signature, Tensor
from compile.source import Source
from compile.worker import rows_in
from parity.answers import Flags
from parity.explain.experiment.ladder import RungName, Scale
from parity.explain.graph.simulate import Batch, Infer, answered, opened, output_names, walked, with_stream
from parity.explain.graph.smoothing import smoothing
from parity.explain.mistake.hypotheses import Array, Bench
from parity.explain.mistake.pace import PASS, Pace

if TYPE_CHECKING:
    import onnx

SAMPLE_ROWS = 512
LEAST_ROWS, MOST_NUMBERS = 16, 2**22
FEWEST_ROWS = 8
"""Four to fit on, four to score on: where a row takes a second, too."""
"""Answers of a million numbers a row are sampled less: every hypothesis goes through all of them."""
INNER_ROWS = 64
TOGETHER = 8
RUNS_INSIDE = 12
"""How often the rows are run on which inner tensors are compared."""
SEED = 0
PLACES = {"classification": "classes", "embedding": "dimensions"}
"""What the numbers of one answer are called, by the task."""

Recipe = Literal["same", "other", "unknown"]
"""Of the one that gave the artifact as found, beside the line's now: a rebuild is bit for bit what was recorded then, what
was recorded lies there and a rebuild is not that, or nobody can tell."""


@dataclass(frozen=True, slots=True)
class Case:
    """One candidate on trial. `found`: its own graph, where it has one; `fresh`: the graph that the line gives its target."""

    config: ModelFile
    target: TargetFile
    exact: onnx.ModelProto
    fresh: onnx.ModelProto
    found: onnx.ModelProto | None
    files: Sequence[Path]
    raw: Sequence[Batch] | None
    scale: Scale
    foreign: bool = False
    """Nearer to the float graph than to what the line gives this target: made by other tools."""
    recipe: Recipe = "unknown"
    groups: Sequence[Array] | None = None
    """For each file, the group that each of its rows belongs to; None where the suite tells none."""
    stands_in: bool = False
    """Whether `found` is no graph of the candidate's, but one that its constants were put in."""
    pace: Pace = field(default_factory=Pace)
    cut: int | None = None
    """How many rows of each batch are looked at, where a row is dear; None: all."""
    source: Callable[[], Source] | None = None
    """Opens the source itself: what the exported graph is compared with."""
    known: list[tuple[onnx.ModelProto, list[Batch]]] = field(default_factory=list)
    """What graphs answered before: those that are asked for again and again."""

    @property
    def batches(self) -> list[Batch]:
        return self.shortened([with_stream(path) for path in self.files])

    def shortened(self, side: Sequence[Batch]) -> list[Batch]:
        """The first rows of each batch, as many as are looked at."""
        if self.cut is None:
            return list(side)
        tensors = {t.name: t for t in (*self.config.signature.data_inputs, *self.config.signature.answers)}
        return [
            {name: first_rows(tensors.get(name), array, self.cut) for name, array in batch.items()} for batch in side
        ]

    def sound_before(self, name: RungName) -> onnx.ModelProto:
        """The graph of the rung that a broken one is compared with."""
        if name == "observation as found":
            return self.fresh if self.found is None else self.found
        float_before = name == "runtime, precision pinned" or (name == "artifact as found" and self.foreign)
        return self.exact if float_before else self.fresh

    def answers_of(self, graph: onnx.ModelProto) -> list[Batch]:
        """What a graph answers on the sample."""
        asked = (self.exact, self.fresh, self.found)
        for one, answers in self.known:
            if one is graph:
                return answers
        signature = self.config.signature
        found = answered(opened(graph, output_names(signature)), self.batches, signature)
        if any(graph is one for one in asked):
            self.known.append((graph, found))
        return found

    def answers_in(self, outputs: Path) -> list[Batch]:
        """What was answered on the sample, as it lies there."""
        return self.shortened([with_stream(outputs / path.name) for path in self.files])

    def bench(self, sound: onnx.ModelProto, found: Sequence[Batch]) -> Bench:
        """Hypotheses are tried with the graph `sound` against the answers `found`."""
        return self._bench(opened(sound, output_names(self.config.signature)), self.answers_of(sound), found, sound)

    def bench_of_source(self, infer: Infer, sound: Sequence[Batch], found: Sequence[Batch]) -> Bench:
        """The same with the source itself, which answered `sound`."""
        return self._bench(infer, sound, found, None)

    def _bench(
        self, infer: Infer, sound: Sequence[Batch], found: Sequence[Batch], graph: onnx.ModelProto | None
    ) -> Bench:
        raw = None if self.raw is None else self.shortened(self.raw)
        groups = self.groups if self.groups is None or self.cut is None else [one[: self.cut] for one in self.groups]
        places = PLACES.get(self.config.task.kind, "numbers")
        signature, pace = self.config.signature, self.pace
        return Bench(signature, infer, self.batches, sound, found, raw, graph, groups, pace, places=places)

    def between(self, sound: Sequence[Batch], found: Sequence[Batch]) -> Bench:
        """Two sides' answers beside each other, with nothing to run."""
        return Bench(self.config.signature, lambda feeds: feeds, self.batches, sound, found, pace=self.pace)

    def smoothing(self) -> dict[str, Array]:
        """What the line's own graph multiplies the channels of inner tensors by, which is no error: of each, by channel."""
        return smoothing(self.exact, self.fresh, self.feeds())

    def feeds(self, rows: int = INNER_ROWS) -> list[Batch]:
        """The first sampled batches as a graph is fed them, the state among them as the float graph reaches it."""
        signature = self.config.signature
        infer, seen = opened(self.exact, output_names(signature)), 0
        rows = self.pace.rows(rows, RUNS_INSIDE)
        found: list[Batch] = []
        for feeds, _ in walked(infer, self.batches, signature):
            found.extend(_few_at_a_time(feeds, signature))
            seen += rows_in(signature.document(), feeds)
            if seen >= rows:
                break
        return found


def in_floors(case: Case, sound: Sequence[Batch], found: Sequence[Batch]) -> float:
    """The largest difference between two sides' answers, in multiples of the noise floor."""
    gaps = [
        float(np.abs(one[name].astype(np.float64) - other[name]).max(initial=0.0)) / floor
        for one, other in zip(sound, found, strict=True)
        for name, floor in case.scale.floors.items()
    ]
    return max(gaps, default=0.0)


def _few_at_a_time(feeds: Batch, signature: Signature) -> Iterator[Batch]:
    """A batch in pieces of `TOGETHER` rows, where the model takes such: all inner tensors of many rows fill a memory."""
    axes = {t.name: t.batch_axis for t in signature.inputs}
    count = next((feeds[n].shape[a] for n, a in axes.items() if a is not None), 0)
    if not count or signature.axes[BATCH].least > 1:
        yield feeds
        return
    for first in range(0, count, TOGETHER):
        rows = range(first, min(first + TOGETHER, count))
        yield {n: v if axes[n] is None else np.take(v, rows, axis=axes[n]) for n, v in feeds.items()}


def sample(
    files: Sequence[Path],
    rows: Sequence[int],
    same: Flags | None,
    *,
    stateful: bool,
    grouped: bool = False,
    most: int = SAMPLE_ROWS,
) -> list[Path]:
    """The batches to look at closely; `rows`: how many each holds, `same`: which of all rows did not flip.

    `grouped`: rows follow one another in time, so that the batches are neighbours.
    """
    flips = [0] * len(files)
    if same is not None and len(same) == sum(rows):
        edges = np.cumsum([0, *rows])
        flips = [int((~same[edges[i] : edges[i + 1]]).sum()) for i in range(len(files))]
    order = list(range(len(files)))
    if grouped and not stateful:
        order = order[_worst_start(rows, flips, most) :]
    elif not stateful:
        order = [int(i) for i in np.random.default_rng(SEED).permutation(len(files))]
        order.sort(key=lambda i: -flips[i])
    chosen: list[int] = []
    for i in order:
        if sum(rows[j] for j in chosen) >= most:
            break
        chosen.append(i)
    return [files[i] for i in sorted(chosen)]


def rows_to_sample(numbers: float, pace: Pace) -> int:
    """How many rows, of so many numbers in a row's answers: of large ones fewer say as much. Fewer where a row is dear."""
    wanted = int(min(SAMPLE_ROWS, max(LEAST_ROWS, MOST_NUMBERS // max(numbers, 1))))
    return max(FEWEST_ROWS, pace.rows(wanted, 1, PASS))


def first_rows(tensor: Tensor | None, array: Array, count: int) -> Array:
    """The first rows of one tensor of a batch; `stream` and its kin, which are no tensors, have a number a row."""
    axis = 0 if tensor is None else tensor.batch_axis
    return array if axis is None else np.take(array, range(min(count, array.shape[axis])), axis=axis)


def _worst_start(rows: Sequence[int], flips: Sequence[int], most: int) -> int:
    """Where the batches begin that hold so many rows with the most flips; the first, if they have half as many.

    At the first row of all every group begins; elsewhere the past of one is not known.
    """
    ends = np.cumsum([0, *rows])
    counts = np.cumsum([0, *flips])
    starts = [i for i in range(len(rows)) if ends[-1] - ends[i] >= min(most, ends[-1])]
    held = [counts[np.searchsorted(ends, min(ends[i] + most, ends[-1]))] - counts[i] for i in starts]
    return 0 if 2 * held[0] >= max(held) else int(np.argmax(held))


def unprocessed(project: Project, config: ModelFile, names: Sequence[str]) -> list[Batch] | None:
    """The same batches without the user's `preprocess`; None where there is none, or where the shapes do not allow it."""
    if config.preprocess is None:
        return None
    plain = config.model_copy(update={"preprocess": None})
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        try:
            dataset.write(
                made, config.signature, dataset.read(project, plain, config.suite, "suite"), config.suite.batch
            )
        except ConfigError:
            return None
        return [with_stream(made / "batches" / name) for name in names]
