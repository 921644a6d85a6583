"""Whether an artifact answers the same rows alike: asked a second time, and asked alone.

In: both sides' answers to the first batch, and what the candidate answered to the same rows again, whole and in batches of the
least size that the model declares (`outputs/again/`, see `compile/worker.py`). Out: what breaks the law.

The rule: a second answer differs by less than answers differ from the source's anyway; rows alone are no farther from the
source's answers than in their batch. Both leave room for another order of sums, of kernels and of rounding: `AGAIN` and `ALONE`
times the energy of the error there was, and `FLOORS` of the noise floor of float32 in every number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.signature import BATCH, Tensor
from parity import pieces
from parity.observed import Observed
from parity.pieces import Batch

Array = NDArray[Any]
Floors = Mapping[str, float]
AGAIN, ALONE, FLOORS, FEW = 0.25, 16.0, 10.0, 16


def unsteady(source: Observed, candidate: Observed, floors: Floors) -> list[str]:
    """What breaks the law, of a candidate that was asked again."""
    folder = candidate.folder / "outputs" / "again"
    signature = source.config.signature
    sides = next(source.batches()), next(candidate.batches())
    whole, alone = folder / "whole.npz", sorted(folder.glob("[0-9]*.npz"))
    found = list(_failed(folder / "failed.txt"))
    for tensor in signature.answers:
        if whole.is_file():
            found += _otherwise(tensor.name, *sides, pieces.read(str(whole)), floors)
        if alone and tensor.batch_axis is not None:
            parts = [pieces.read(str(path))[tensor.name] for path in alone]
            found += _farther(tensor, *sides, parts, signature.axes[BATCH].least, floors)
    return found


def _failed(path: Path) -> Iterator[str]:
    if path.is_file():
        rows, _, error = path.read_text().partition(" ")
        yield f"rows that were answered cannot be answered in a batch of {rows}: {error}"


def _otherwise(name: str, ours: Batch, before: Batch, now: Batch, floors: Floors) -> Iterator[str]:
    """An output that is another when the whole batch is asked again."""
    one, other = before[name], now[name]
    if one.shape != other.shape:
        yield f"`{name}` has shape {other.shape} when the same batch is asked again; it had {one.shape}"
    elif _energy(one, other) > AGAIN * _energy(ours[name], one) + _room(one, floors.get(name, 0.0)):
        most = np.abs(other.astype(np.float64) - one).max()
        yield f"`{name}`: the same batch, asked again, is answered otherwise, by up to {most:.3g}"


def _farther(
    tensor: Tensor, ours: Batch, before: Batch, parts: Sequence[Array], size: int, floors: Floors
) -> Iterator[str]:
    """An output that is farther from the source's when its rows are asked alone; one whose shape depends on what it holds is
    not compared."""
    name, axis = tensor.name, tensor.batch_axis or 0
    wanted, had = (np.moveaxis(side[name], axis, 0) for side in (ours, before))
    shape = (size, *had.shape[1:])
    rows = [np.moveaxis(part, axis, 0) if part.ndim == had.ndim else part for part in parts]
    strange = [array.shape for array in rows if array.shape != shape]
    if strange:
        if all(isinstance(length, int) for place, length in enumerate(tensor.shape) if place != axis):
            yield f"`{name}` of {size} of the rows alone has shape {strange[0]}; expected {shape}"
        return
    alone, many = np.concatenate(rows), size * len(rows)
    now, then = _energy(alone, wanted[:many]), _energy(had[:many], wanted[:many])
    if now > ALONE * then + _room(alone, floors.get(name, 0.0)):
        times = f"{np.sqrt(now / then):,.3g} times as far" if then else "farther"
        yield (
            f"`{name}`: {many:,} rows, asked {size} at a time, lie {times} from the source's answers as in a batch of "
            f"{len(had):,}"
        )


def _energy(one: Array, other: Array) -> float:
    """How far apart two sides are: the sum of squares; of whole numbers how many are not equal. Infinite for what is no number."""
    if one.dtype.kind != "f":
        return float(np.count_nonzero(one != other))
    found = float(((one.astype(np.float64) - other) ** 2).sum())
    return found if np.isfinite(found) else np.inf


def _room(array: Array, floor: float) -> float:
    """What another order of sums may move: of whole numbers, which follow from such sums, a few."""
    return array.size * (FLOORS * floor) ** 2 if array.dtype.kind == "f" else array.size / FEW
