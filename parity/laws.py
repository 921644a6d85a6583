"""The laws that a candidate's outputs may break: found in one walk over both sides, a batch at a time.

In: two observations. Out: each law with its breaches, and on the way the batches that nothing is known
against, so that whoever measures need not read them a second time. The rule: a missing batch or output, another dtype
or shape, NaN, infinity, or an output that is constant where the reference is not, breaks a law, and a broken law is a FAIL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import LockstepError
from compile.signature import Tensor
from parity.observed import Observed, pieces_of
from parity.pieces import Pair

Array = NDArray[Any]
Law = tuple[str, list[str]]


@dataclass(slots=True)
class Seen:
    """What is remembered of one output of one side: how many numbers there were, its first row, whether another one came, and
    which hold NaN or infinity."""

    tensor: Tensor
    numbers: int = 0
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
        self.numbers += array.size
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


class LawBroken(LockstepError):
    """What is told where a walk comes to its end and a law was broken on the way."""


class Walk:
    """Source and candidate side by side, walked once: batches for whoever measures, and what breaks a law in them."""

    def __init__(self, source: Observed, candidate: Observed, names: Callable[[], Array] | None = None) -> None:
        """`names`: what gives the rows' own, in the answers' order; asked for only where a law is broken."""
        self.source, self.candidate, self.names = source, candidate, names
        self.lawful = self._lawful(source.config.signature.answers)
        """Both sides' batches up to the first that breaks a law; LawBroken at the end, if a law was broken."""
        self._laws: list[Law] = []

    def laws(self) -> list[Law]:
        """Each law with its breaches, whoever walked how far; an empty list of breaches means it holds."""
        try:
            for _ in self.lawful:
                pass
        except LawBroken:
            pass
        return self._laws

    def _lawful(self, tensors: tuple[Tensor, ...]) -> Iterator[Pair]:
        wanted, found = self.source.names, self.candidate.names
        if wanted != found:
            self._end([("schema", [f"{len(found)} of {len(wanted)} batches are answered"])])
        schema: list[str] = []
        sides = [{tensor.name: Seen(tensor) for tensor in tensors} for _ in (self.source, self.candidate)]
        for both in pieces_of(self._as_declared(tensors, schema), self.source.config):
            for side, batch in zip(sides, both, strict=True):
                for name, seen in side.items():
                    seen.see(batch[name])
            if not schema and all(seen.finite for side in sides for seen in side.values()):
                yield both
        if not schema and not any(seen.numbers for seen in sides[0].values()):
            schema.append("the suite is empty")
        if schema:
            self._end([("schema", schema)])
        source, other = sides
        finite, constant = list(_not_finite(source, other, self.names)), list(_stuck(source, other))
        self._end([("schema", []), ("finite", finite), ("not constant", constant)])

    def _as_declared(self, tensors: tuple[Tensor, ...], schema: list[str]) -> Iterator[Pair]:
        """Both sides' batches, one by one; the breaches of one that is not as declared are added to `schema`."""
        for number, pair in enumerate(zip(self.source.batches(), self.candidate.batches(), strict=True)):
            breaches = list(_schema(number, *pair, tensors))
            schema += breaches
            if not breaches:
                yield pair

    def _end(self, laws: list[Law]) -> None:
        self._laws = laws
        if any(breaches for _, breaches in laws):
            raise LawBroken("; ".join(breach for _, breaches in laws for breach in breaches))


def broken_laws(source: Observed, candidate: Observed) -> list[Law]:
    """Each law with its breaches, where nothing else is asked of the outputs."""
    return Walk(source, candidate).laws()


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


def _not_finite(
    source: Mapping[str, Seen], other: Mapping[str, Seen], names: Callable[[], Array] | None
) -> Iterator[str]:
    for name in source:
        if not source[name].finite:
            yield f"`{name}` holds NaN or infinity in the source itself{_where(source[name], names)}"
        if not other[name].finite:
            yield f"`{name}` holds NaN or infinity{_where(other[name], names)}"


def _where(seen: Seen, names: Callable[[], Array] | None) -> str:
    """In how many rows, and the first by its name; nothing of an output that has no rows."""
    if not seen.bad:
        return ""
    first = seen.bad[0] if names is None else names()[seen.bad[0]]
    return f" in {len(seen.bad):,} of {seen.rows:,} rows, the first `{first}`"


def _stuck(source: Mapping[str, Seen], other: Mapping[str, Seen]) -> Iterator[str]:
    for name in source:
        if other[name].constant and not source[name].constant:
            yield f"`{name}` never changes over the suite; the source's does"
