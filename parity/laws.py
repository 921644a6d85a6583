"""The laws that a candidate's outputs may break: found in one walk over both sides, a batch at a time.

In: two observations and the signature. Out: each law with its breaches. The rule: a missing batch or output, another dtype
or shape, NaN, infinity, or an output that is constant where the reference is not, breaks a law, and a broken law is a FAIL.
No code of the user is run here: it need not bear outputs that break a law.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.signature import Signature, Tensor
from parity.observed import Observed

Array = NDArray[Any]


@dataclass(slots=True)
class Seen:
    """What is remembered of one output of one side: its first row, whether another one came, and which hold NaN or infinity."""

    tensor: Tensor
    first: Array | None = None
    varies: bool = False
    rows: int = 0
    finite: bool = True
    bad: list[int] = field(default_factory=list)

    @property
    def constant(self) -> bool:
        """Whether every row is the same row or, where rows differ in shape, every number the same number."""
        return self.first is not None and not self.varies

    def see(self, array: Array) -> None:
        axis = self.tensor.batch_axis
        rows = array[None] if axis is None else np.moveaxis(array, axis, 0)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            self.finite = False
            if axis is not None:
                infinite = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
                self.bad += (self.rows + np.flatnonzero(infinite)).tolist()
        self.rows += len(rows)
        if self.varies or not len(rows):
            return
        if self.first is None:
            self.first = rows[0].copy()
            self.varies = not self.first.size
        self.varies = self.varies or not _all_like(rows, self.first)


def _all_like(rows: Array, first: Array) -> bool:
    number = first.flat[0]
    if (first == number).all():
        return bool((rows == number).all())
    return rows.shape[1:] == first.shape and bool((rows == first).all())


def broken_laws(
    reference: Observed, candidate: Observed, signature: Signature, names: Array | None = None
) -> list[tuple[str, list[str]]]:
    """Each law with its breaches; an empty list of breaches means it holds. `names` are the rows', in the answers' order."""
    if not any(array.size for batch in reference.batches() for array in batch.values()):
        return [("schema", ["the suite is empty"])]
    wanted, found = [p.name for p in reference.files], [p.name for p in candidate.files]
    if wanted != found:
        return [("schema", [f"{len(found)} of {len(wanted)} batches are answered"])]
    sides = [{tensor.name: Seen(tensor) for tensor in signature.answers} for _ in (reference, candidate)]
    schema: list[str] = []
    for number, (ours, theirs) in enumerate(zip(reference.batches(), candidate.batches(), strict=True)):
        breaches = list(_schema(number, ours, theirs, signature.answers))
        schema += breaches
        for side, batch in zip(sides, (ours, theirs), strict=True):
            for name, seen in side.items() if not breaches else ():
                seen.see(batch[name])
    if schema:
        return [("schema", schema)]
    source, other = sides
    return [
        ("schema", []),
        ("finite", list(_not_finite(source, other, names))),
        ("not constant", list(_stuck(source, other))),
    ]


def _schema(
    number: int, ours: Mapping[str, Array], theirs: Mapping[str, Array], tensors: tuple[Tensor, ...]
) -> Iterator[str]:
    """What is missing or misshapen in one batch."""
    for tensor in tensors:
        if tensor.name not in theirs:
            yield f"output `{tensor.name}` is missing in batch {number}"
        elif theirs[tensor.name].shape != ours[tensor.name].shape:
            shapes = f"{theirs[tensor.name].shape}; the source gives {ours[tensor.name].shape}"
            yield f"`{tensor.name}` in batch {number} has shape {shapes}"
        elif theirs[tensor.name].dtype != np.dtype(tensor.dtype):
            yield f"`{tensor.name}` in batch {number} is {theirs[tensor.name].dtype}; declared {tensor.dtype}"


def _not_finite(source: Mapping[str, Seen], other: Mapping[str, Seen], names: Array | None) -> Iterator[str]:
    for name in source:
        if not source[name].finite:
            yield f"`{name}` holds NaN or infinity in the source itself{_where(source[name], names)}"
        if not other[name].finite:
            yield f"`{name}` holds NaN or infinity{_where(other[name], names)}"


def _where(seen: Seen, names: Array | None) -> str:
    """In how many rows, and the first by its name; nothing of an output that has no rows."""
    if not seen.bad:
        return ""
    first = seen.bad[0] if names is None else names[seen.bad[0]]
    return f" in {len(seen.bad):,} of {seen.rows:,} rows, the first `{first}`"


def _stuck(source: Mapping[str, Seen], other: Mapping[str, Seen]) -> Iterator[str]:
    for name in source:
        if other[name].constant and not source[name].constant:
            yield f"`{name}` never changes over the suite; the source's does"
