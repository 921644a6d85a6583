"""Defects before the artifact: what it is given is not what the source was given. Arrays in, arrays out.

A batch of inputs, a size and a seed come in; a changed batch goes out. Only float inputs are changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Batch = Mapping[str, NDArray[Any]]
Random = np.random.Generator


def wrong_scale(array: NDArray[Any], size: float, random: Random) -> NDArray[Any]:
    """Normalized with another deviation: larger by the factor 1 + 2 x size."""
    return np.asarray(array * (1 + 2 * size))


def wrong_offset(array: NDArray[Any], size: float, random: Random) -> NDArray[Any]:
    """Normalized with another mean: moved by a share of the batch's own deviation."""
    return np.asarray(array + 2 * size * array.std())


def swapped_axes(array: NDArray[Any], size: float, random: Random) -> NDArray[Any]:
    """A share of the rows with their last two axes exchanged, or reversed where there is one axis."""
    turned = np.swapaxes(array, -1, -2) if array.ndim > 2 and array.shape[-1] == array.shape[-2] else array[..., ::-1]
    hit = random.random(len(array)) < size
    return np.where(hit.reshape(-1, *(1,) * (array.ndim - 1)), turned, array)


def coarse_input(array: NDArray[Any], size: float, random: Random) -> NDArray[Any]:
    """Rounded to few levels, as a sensor or a codec of fewer bits would: 8 bits at size 0 down to 1."""
    levels = 2 ** max(1, round(8 * (1 - size)))
    low, high = array.min(), array.max()
    step = (high - low) / (levels - 1) or 1
    return np.asarray(low + np.rint((array - low) / step) * step)


Defect = Callable[[NDArray[Any], float, Random], NDArray[Any]]
DEFECTS: Mapping[str, Defect] = {
    "wrong scale of inputs": wrong_scale,
    "wrong offset of inputs": wrong_offset,
    "swapped axes": swapped_axes,
    "coarse inputs": coarse_input,
}


def planted(batch: Batch, kind: str, size: float, random: Random) -> dict[str, NDArray[Any]]:
    """The batch with one kind of defect in its float inputs."""
    return {
        name: DEFECTS[kind](array, size, random).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in batch.items()
    }
