"""An observation read back: outputs in the suite's order, the answers in them, and the laws it may break.

In: a folder with `outputs/NNNNN.npz`. The rule: a missing batch or output, another dtype or shape, NaN, infinity, or
an output that is constant where the reference is not, breaks a law, and a broken law is a FAIL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import user_code
from compile.config import ModelFile
from compile.signature import Signature, Tensor
from parity.answers import answers

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
        task = self.config.task
        find = user_code.function(task.postprocess, "task.postprocess") if task.postprocess else self._output
        found = [answers(task.kind, np.asarray(find(outputs))) for outputs in self.batches()]
        return _joined(found)

    def _output(self, outputs: dict[str, Array]) -> Array:
        name = self.config.task.output or self.config.signature.answers[0].name
        tensor = next(t for t in self.config.signature.answers if t.name == name)
        return np.moveaxis(outputs[name], tensor.batch_axis or 0, 0)


def read_observed(folder: Path, config: ModelFile) -> Observed:
    return Observed(folder, config)


def broken_laws(reference: Observed, candidate: Observed, signature: Signature) -> list[tuple[str, list[str]]]:
    """Each law with its breaches; an empty list of breaches means it holds."""
    schema = _schema(reference, candidate, signature.answers)
    if schema:
        return [("schema", schema)]
    finite, constant = [], []
    for tensor in signature.answers:
        if _not_finite(candidate, tensor.name):
            finite.append(f"`{tensor.name}` holds NaN or infinity where the source is finite")
        if _constant(candidate, tensor.name) and not _constant(reference, tensor.name):
            constant.append(f"`{tensor.name}` never changes over the suite; the source's does")
    return [("schema", []), ("finite", finite), ("not constant", constant)]


def _schema(reference: Observed, candidate: Observed, tensors: tuple[Tensor, ...]) -> list[str]:
    """What is missing or misshapen, batch by batch."""
    wanted, found = [p.name for p in reference.files], [p.name for p in candidate.files]
    if not wanted:
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


def _constant(observed: Observed, name: str) -> bool:
    """Whether every number of an output equals the first one of its batch row and never changes from row to row."""
    low, high = np.inf, -np.inf
    for batch in observed.batches():
        low, high = min(low, float(batch[name].min(initial=np.inf))), max(high, float(batch[name].max(initial=-np.inf)))
    return low == high


def _joined(arrays: list[Array]) -> Array:
    """All batches in one array; sequences of different lengths are padded with -1."""
    if arrays[0].ndim == 2 and len({a.shape[1] for a in arrays}) > 1:
        width = max(a.shape[1] for a in arrays)
        arrays = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=-1) for a in arrays]
    return np.concatenate(arrays)
