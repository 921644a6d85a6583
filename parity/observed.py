"""An observation read back: outputs in the suite's order, and the answers in them.

In: a folder with `outputs/NNNNN.npz`. Out: a batch at a time; only what is asked for as a whole is ever held as one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import user_code
from compile.config import ModelFile, TaskKind
from parity import pieces
from parity.answers import SEQUENCE_END, answers
from parity.pieces import Pair

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """Where one producer's outputs lie, and how to read answers out of them."""

    folder: Path
    config: ModelFile

    @property
    def names(self) -> list[str]:
        """Of the batches' files, in the suite's order."""
        outputs = self.folder / "outputs"
        return sorted(name for name in os.listdir(outputs) if name.endswith(".npz")) if outputs.is_dir() else []

    @property
    def files(self) -> list[Path]:
        return [self.folder / "outputs" / name for name in self.names]

    def batches(self) -> Iterator[dict[str, Array]]:
        outputs = self.folder / "outputs"
        return (pieces.read(os.path.join(outputs, name)) for name in self.names)

    def answers(self) -> Array:
        """One answer a row, in batch order."""
        return answers_in(self.batches(), self.config)

    def results(self) -> Iterator[Array]:
        """Of every batch, the output that holds the answer, rows first, after the task's `postprocess`."""
        return results_in(self.batches(), self.config)


def read_observed(folder: Path, config: ModelFile) -> Observed:
    return Observed(folder, config)


def answers_in(batches: Iterable[dict[str, Array]], config: ModelFile) -> Array:
    """One answer a row of these outputs, in their order."""
    return joined([answers(config.task.kind, result) for result in results_in(batches, config)], config.task.kind)


def results_in(batches: Iterable[dict[str, Array]], config: ModelFile) -> Iterator[Array]:
    """Of each of these outputs, what holds the answer, rows first."""
    return map(finder(config), batches)


def finder(config: ModelFile) -> Callable[[dict[str, Array]], Array]:
    """What finds the answer in a batch of outputs: the task's `postprocess`, or the named output, rows first."""
    task, signature = config.task, config.signature
    if task.postprocess:
        find = user_code.function(task.postprocess, "task.postprocess")
        return lambda outputs: np.asarray(find(outputs))
    name = task.output or signature.answers[0].name
    axis = next(t for t in signature.answers if t.name == name).batch_axis or 0
    return lambda outputs: np.moveaxis(outputs[name], axis, 0)


def joined(arrays: list[Array], kind: TaskKind) -> Array:
    """All batches in one array; where they differ in width the shorter are padded: with -1 as the end of symbols is,
    with 0 where numbers are compared and padding must not count as signal (nor as a box: its score is 0)."""
    fill = SEQUENCE_END if kind in ("sequence", "classification") else 0
    if arrays[0].ndim > 1 and len({a.shape[1] for a in arrays}) > 1:
        width, rest = max(a.shape[1] for a in arrays), ((0, 0),) * (arrays[0].ndim - 2)
        arrays = [np.pad(a, ((0, 0), (0, width - a.shape[1]), *rest), constant_values=fill) for a in arrays]
    return np.concatenate(arrays)


def pieces_of(pairs: Iterable[Pair], config: ModelFile) -> Iterable[Pair]:
    """Pairs in pieces that are worth the walk; the user's code is given batches as they were observed, and no others."""
    return pairs if config.task.postprocess else pieces.merged(pairs, config.signature.answers)
