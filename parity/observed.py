"""An observation read back: outputs in the suite's order, the answers in them, and the laws it may break.

In: a folder with `outputs/NNNNN.npz`. The rule: a missing batch or output, another dtype or shape, NaN, infinity, or
an output that is constant where the reference is not, breaks a law, and a broken law is a FAIL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import user_code
from compile.config import ModelFile, TaskKind
from compile.signature import Signature, Tensor
from parity.answers import SEQUENCE_END, answers

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """Where one producer's outputs lie, and how to read answers out of them."""

    folder: Path
    config: ModelFile

    @property
    def files(self) -> list[Path]:
        return sorted((self.folder / "outputs").glob("*.npz"))

    def batches(self) -> Iterator[dict[str, Array]]:
        for path in self.files:
            with np.load(path, allow_pickle=False) as outputs:
                yield {name: outputs[name] for name in outputs.files}

    def answers(self) -> Array:
        """One answer a row, in batch order."""
        return answers_in(self.batches(), self.config)

    def results(self) -> Iterator[Array]:
        """Of every batch, the output that holds the answer, rows first, after the task's `postprocess`."""
        return results_in(self.batches(), self.config)

    def scores(self) -> Array | None:
        """A classifier's scores behind its answers, a line a row; None where the answers are all that it gives."""
        found = list(self.results())
        if self.config.task.kind != "classification" or any(o.ndim != 2 or o.shape[1] < 2 for o in found):
            return None
        return np.concatenate(found)


def read_observed(folder: Path, config: ModelFile) -> Observed:
    return Observed(folder, config)


def answers_in(batches: Iterable[dict[str, Array]], config: ModelFile) -> Array:
    """One answer a row of these outputs, in their order."""
    return joined([answers(config.task.kind, result) for result in results_in(batches, config)], config.task.kind)


def results_in(batches: Iterable[dict[str, Array]], config: ModelFile) -> Iterator[Array]:
    """Of each of these outputs, what holds the answer, rows first."""
    task = config.task
    find = user_code.function(task.postprocess, "task.postprocess") if task.postprocess else partial(_output, config)
    for outputs in batches:
        yield np.asarray(find(outputs))


def _output(config: ModelFile, outputs: dict[str, Array]) -> Array:
    name = config.task.output or config.signature.answers[0].name
    tensor = next(t for t in config.signature.answers if t.name == name)
    return np.moveaxis(outputs[name], tensor.batch_axis or 0, 0)


def broken_laws(reference: Observed, candidate: Observed, signature: Signature) -> list[tuple[str, list[str]]]:
    """Each law with its breaches; an empty list of breaches means it holds."""
    schema = _schema(reference, candidate, signature.answers)
    if schema:
        return [("schema", schema)]
    finite, constant = [], []
    for tensor in signature.answers:
        if _not_finite(reference, tensor.name):
            finite.append(f"`{tensor.name}` holds NaN or infinity in the source itself")
        if _not_finite(candidate, tensor.name):
            finite.append(f"`{tensor.name}` holds NaN or infinity")
        if _constant(candidate, tensor) and not _constant(reference, tensor):
            constant.append(f"`{tensor.name}` never changes over the suite; the source's does")
    return [("schema", []), ("finite", finite), ("not constant", constant)]


def _schema(reference: Observed, candidate: Observed, tensors: tuple[Tensor, ...]) -> list[str]:
    """What is missing or misshapen, batch by batch."""
    wanted, found = [p.name for p in reference.files], [p.name for p in candidate.files]
    if not any(array.size for batch in reference.batches() for array in batch.values()):
        return ["the suite is empty"]
    if wanted != found:
        return [f"{len(found)} of {len(wanted)} batches are answered"]
    breaches: list[str] = []
    for number, (ours, theirs) in enumerate(zip(reference.batches(), candidate.batches(), strict=True)):
        for tensor in tensors:
            if tensor.name not in theirs:
                breaches.append(f"output `{tensor.name}` is missing in batch {number}")
            elif theirs[tensor.name].shape != ours[tensor.name].shape:
                shapes = f"{theirs[tensor.name].shape}; the source gives {ours[tensor.name].shape}"
                breaches.append(f"`{tensor.name}` in batch {number} has shape {shapes}")
            elif theirs[tensor.name].dtype != np.dtype(tensor.dtype):
                breaches.append(
                    f"`{tensor.name}` in batch {number} is {theirs[tensor.name].dtype}; declared {tensor.dtype}"
                )
    return breaches


def _not_finite(observed: Observed, name: str) -> bool:
    return any(b[name].dtype.kind == "f" and not np.isfinite(b[name]).all() for b in observed.batches())


def _constant(observed: Observed, tensor: Tensor) -> bool:
    """Whether every row of an output is the same row or, where rows differ in shape, every number the same number."""
    rows = (row for batch in observed.batches() for row in _rows(batch[tensor.name], tensor))
    first = next(rows, None)
    if first is None or not first.size:
        return False
    if (first == first.flat[0]).all():
        return all(bool((row == first.flat[0]).all()) for row in rows)
    return all(np.array_equal(row, first) for row in rows)


def _rows(array: Array, tensor: Tensor) -> Array:
    return array[None] if tensor.batch_axis is None else np.moveaxis(array, tensor.batch_axis, 0)


def joined(arrays: list[Array], kind: TaskKind) -> Array:
    """All batches in one array; where they differ in width the shorter are padded: with -1 as the end of symbols is,
    with 0 where numbers are compared and padding must not count as signal (nor as a box: its score is 0)."""
    fill = SEQUENCE_END if kind in ("sequence", "classification") else 0
    if arrays[0].ndim > 1 and len({a.shape[1] for a in arrays}) > 1:
        width, rest = max(a.shape[1] for a in arrays), ((0, 0),) * (arrays[0].ndim - 2)
        arrays = [np.pad(a, ((0, 0), (0, width - a.shape[1]), *rest), constant_values=fill) for a in arrays]
    return np.concatenate(arrays)
