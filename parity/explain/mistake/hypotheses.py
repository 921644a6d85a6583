"""Suppose that …: each hypothesis says what the candidate would answer if it were so, and rows it has not seen decide.

In: a sound graph, real batches, what the candidate answered on them. Out: for each hypothesis the share of the candidate's
error that it explains. The rule: whatever is fitted is fitted on every other row and scored on the rest; a mistake
is named where, done to the sound graph, it reproduces what the candidate answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from compile.errors import ToolchainError
from compile.signature import Signature, Tensor
from parity.explain.graph.simulate import Batch, Infer, answered
from parity.explain.mistake.pace import Pace

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
REPRODUCED = 0.9
"""The share of the error that a mistake must explain: done to the sound graph, it leaves a tenth or less (10 dB)."""
EMULATED = 0.5
"""The same where the experiment only imitates (another runtime's rounding): more explained than left, which no chance
gives in thousands of numbers."""
Kind = Literal["pre/post-processing", "runtime precision", "export", "fusion"]
FITTED = 0.98
"""The same where two constants were fitted, which bend to much that they are not."""
ALIKE = 0.999
"""The same where others look much alike (a picture once smaller, and one that was blurred)."""
INDEPENDENT = 2.0
"""What two graphs of integers may be apart that compute the same, of the energy that rounding brings to each."""
FIT, SCORE, EVERY = 0, 1, 2
"""Which of every two rows a hypothesis is fitted on, and which it is scored on; all of them."""


UNSEEN = 1e-4
"""An offset of less than this share of a tensor's deviation is no part of the story."""


def affine(factor: float, offset: float, deviation: float) -> str:
    """`× 1.1 +0.3`, without an offset that only rounding made."""
    return f"× {factor:.4g}" + (f" {offset:+.4g}" if abs(offset) >= UNSEEN * deviation else "")


@dataclass(frozen=True, slots=True)
class Bench:
    """What hypotheses are tried on: a sound graph, batches (streams among them), its answers, the candidate's answers."""

    signature: Signature
    infer: Infer
    batches: Sequence[Batch]
    sound: Sequence[Batch]
    found: Sequence[Batch]
    raw: Sequence[Batch] | None = None
    """The same batches before `preprocess`, where they have the same shapes."""
    graph: onnx.ModelProto | None = None
    """The sound graph itself, where there is one."""
    streams: Sequence[Array] | None = None
    """For each batch, the stream or the group that each of its rows belongs to, in the order of time."""
    pace: Pace = field(default_factory=Pace)
    halved: bool = True
    """Whether every other row is kept from fits; of few rows that nothing is fitted on, or of rows to fit on alone, none is."""
    places: str = "classes"
    """What the numbers along an answer's last axis are called."""

    def answers_on(self, batches: Sequence[Batch], **how: Any) -> list[Batch]:
        return answered(self.infer, batches, self.signature, **how)

    @property
    def outputs(self) -> list[Tensor]:
        """The judged outputs that are numbers."""
        return [t for t in self.signature.answers if t.dtype.startswith("float") and t.batch_axis is not None]

    @property
    def rows(self) -> int:
        return sum(len(rows_first(batch[self.outputs[0].name], self.outputs[0])) for batch in self.found)

    def few(self, rows: int) -> Bench:
        """The first batches, at least so many rows of them: for hypotheses that need many runs."""
        count, seen = 0, 0
        while count < len(self.batches) and seen < rows:
            seen += len(rows_first(self.found[count][self.outputs[0].name], self.outputs[0]))
            count += 1
        return self.of(lambda side: side[:count])

    def of(self, change: Callable[[Sequence[Any]], Sequence[Any]]) -> Bench:
        """The same with each side of its batches changed alike."""
        return replace(
            self,
            batches=change(self.batches),
            sound=change(self.sound),
            found=change(self.found),
            raw=None if self.raw is None else change(self.raw),
            streams=None if self.streams is None else change(self.streams),
        )


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """`name` as a finding ("the candidate sees `image` transposed"), `remedy` as advice, and what would be answered."""

    name: str
    remedy: str
    predict: Callable[[], list[Batch]]
    enough: float = REPRODUCED
    inputs: Callable[[Sequence[Batch]], list[Batch]] | None = None
    """What the mistake makes of the inputs, where that is all it does: such mistakes can be made one after another."""
    kind: Kind = "pre/post-processing"


@dataclass(frozen=True, slots=True)
class Trial:
    """One hypothesis after its test: the share of the error it explains on rows it was not fitted on; what is left."""

    name: str
    remedy: str
    score: float
    left: float
    enough: float
    predict: Callable[[], list[Batch]]
    kind: Kind = "pre/post-processing"

    @property
    def holds(self) -> bool:
        return self.score >= self.enough


def tried(bench: Bench, hypotheses: Sequence[Hypothesis], what: str = "hypotheses") -> list[Trial]:
    """Every hypothesis tested, the best first; one that the sound graph cannot be run under (an id past the table's end)
    is none. Where time is up the rest of them, `what` they are, is left out."""
    before = distance(bench, bench.sound)
    trials = []
    for place, one in enumerate(hypotheses):
        if bench.pace.over:
            bench.pace.left_out[what] += len(hypotheses) - place
            break
        try:
            predicted = one.predict()
        except ToolchainError:
            continue
        left = distance(bench, predicted)
        score = 1 - left / before if before and math.isfinite(before) and math.isfinite(left) else 0.0
        reproduced = min(score, followed(bench, predicted))
        trials.append(Trial(one.name, one.remedy, reproduced, left, one.enough, one.predict, one.kind))
    return sorted(trials, key=lambda trial: -trial.score)


def followed(bench: Bench, predicted: Sequence[Batch]) -> float:
    """The share of what varies from row to row in the candidate's answers that a prediction follows (R squared).

    An input left out explains a candidate that hardly moves by a constant; that is no explanation of what it answers.
    """
    least = 1.0
    part = SCORE if bench.halved else EVERY
    for tensor in bench.outputs:
        pairs = list(zip(halves(bench.found, tensor, part), halves(predicted, tensor, part), strict=True))
        if any(one.shape != other.shape for one, other in pairs):
            return 0.0
        if len({one.shape[1:] for one, _ in pairs}) > 1:  # rows of several lengths have no common mean
            continue
        one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
        moves = float(((one - one.mean(axis=0)) ** 2).sum())
        with np.errstate(over="ignore", invalid="ignore"):
            gap = one - other
            rest = float(((gap - gap.mean(axis=0)) ** 2).sum())
        if moves:
            least = min(least, 1 - rest / moves if math.isfinite(rest) else 0.0)
    return least


def distance(bench: Bench, predicted: Sequence[Batch], part: int = SCORE) -> float:
    """Error energy over the candidate's own energy, summed over its outputs, on one half of the rows."""
    total, part = 0.0, part if bench.halved else EVERY
    for tensor in bench.outputs:
        signal = noise = 0.0
        for one, other in zip(halves(bench.found, tensor, part), halves(predicted, tensor, part), strict=True):
            if one.shape != other.shape:
                return math.inf
            with np.errstate(over="ignore", invalid="ignore"):
                noise += float(((one - other) ** 2).sum())
                signal += float((one**2).sum())
        total += noise / max(signal, np.finfo(float).tiny) if math.isfinite(noise) else math.inf
    return total


def halves(batches: Sequence[Batch], tensor: Tensor, part: int) -> Iterator[Array]:
    """Every other row of one output in double precision, counted through all batches."""
    seen = 0
    for batch in batches:
        rows = rows_first(batch[tensor.name], tensor).astype(np.float64)
        yield rows if part == EVERY else rows[(part - seen) % 2 :: 2]
        seen += len(rows)


def rows_first(array: Array, tensor: Tensor) -> Array:
    return np.moveaxis(array, tensor.batch_axis or 0, 0)


def replaced(batches: Sequence[Batch], name: str, change: Callable[[Array], Array]) -> list[Batch]:
    """The batches with one array changed, still of its dtype: whole numbers are rounded and stay in their range."""
    return [batch | {name: _of_dtype(change(batch[name]), batch[name].dtype)} for batch in batches]


def _of_dtype(array: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind in "iu" and array.dtype.kind == "f":
        array = np.clip(np.rint(array), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.asarray(array, dtype, order="C")
