"""Nearest neighbours among a stated part of the reference's rows, so that what is looked up costs the same for each row.

In: embeddings, batch by batch. Out: for each row which rows of the gallery are nearest. The rule: at most `GALLERY` rows are
looked up in, drawn by a fixed seed among those that count; suites that are no larger are their own gallery as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Codes = NDArray[np.int64]
GALLERY = 4_000
SEED = 20_261_126
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Gallery:
    """`units`: rows of length 1; `rows`: which observed row each is, in ascending order; `twins`: places of rows whose equal
    stands before them, and the place of the first such equal."""

    units: Array
    rows: Codes
    twins: tuple[Codes, Codes]

    def nearest(self, queries: Array, first: int, k: int) -> Codes:
        """Of each query the `k` nearest other rows by cosine, the nearest first, of equally near ones the earlier; `first`: the
        observed row of query 0. Finite numbers: a law of the judge sees to that.

        [queries, k], or fewer columns where the gallery holds fewer others.
        """
        k = max(1, min(k, len(self.rows) - 1))
        units = of_length_one(queries)
        found = [self._block(units[at : at + BLOCK], first + at, k) for at in range(0, len(units), BLOCK)]
        return self.rows[np.concatenate(found)] if found else np.zeros((0, k), np.int64)

    def _block(self, units: Array, first: int, k: int) -> Codes:
        near = units @ self.units.T
        later, firsts = self.twins
        near[:, later] = near[:, firsts]  # equal columns need not come out of a product alike in their last bit
        start, stop = np.searchsorted(self.rows, [first, first + len(units)])
        near[self.rows[start:stop] - first, np.arange(start, stop)] = -np.inf  # a row is no neighbour of itself
        if k == 1:
            return np.asarray(near.argmax(axis=1)[:, None], np.int64)
        some = _largest(near, k)
        order = np.argsort(-np.take_along_axis(near, some, axis=1), axis=1, kind="stable")
        return np.asarray(np.take_along_axis(some, order, axis=1), np.int64)


def _largest(near: Array, k: int) -> Codes:
    """Of each row the places of its k largest values, in ascending order; of those equal to the k-th the first."""
    least = np.partition(near, near.shape[1] - k, axis=1)[:, [-k]]
    there = near >= least
    if there.sum() > k * len(near):
        last = near == least
        there &= ~last | (np.cumsum(last, axis=1) <= k - (near > least).sum(axis=1, keepdims=True))
    return np.nonzero(there)[1].reshape(len(near), k)


def of_length_one(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def gallery_of(batches: Iterable[Array], counts: NDArray[np.bool_]) -> Gallery:
    """The gallery out of batches of embeddings; `counts`: the observed rows that may be in it."""
    there = np.flatnonzero(counts)
    if len(there) > GALLERY:
        there = np.sort(np.random.default_rng(SEED).choice(there, GALLERY, replace=False))
    parts, start = [], 0
    for batch in batches:
        inside = there[np.searchsorted(there, start) : np.searchsorted(there, start + len(batch))]
        parts.append(of_length_one(batch[inside - start]))
        start += len(batch)
    units = np.concatenate(parts)
    return Gallery(units, there, _twins(units))


def _twins(units: Array) -> tuple[Codes, Codes]:
    _, earliest, kind = np.unique(units, axis=0, return_index=True, return_inverse=True)
    firsts = earliest[kind.reshape(-1)]
    later = np.flatnonzero(firsts != np.arange(len(units)))
    return later, firsts[later]
