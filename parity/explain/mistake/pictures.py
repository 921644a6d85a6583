"""What may go wrong with pictures before a model: their colours, their place, the normalization that most were trained with.

In: the shape of a batch of pictures, channels first or last. Out: mistakes as (said of the candidate, the remedy, the
change). The rule: only what a shape tells: an axis of three holds the colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mistake = tuple[str, str, Callable[[Array], Array]]
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Mean and deviation of RGB in 0…1 that most published image models are trained with (torchvision's)."""
LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601: what most libraries weight red, green and blue with to make grey."""
SMALLER = ((1, 2), (1, 3), (1, 4), (2, 3), (3, 4))
"""Parts of its size that a picture may have been stored or sent at."""
LEAST_SIDE = 8
"""A side so short is no picture's."""


def changes(shape: Sequence[int], axes: Sequence[int], *, floats: bool) -> Iterator[Mistake]:
    """A picture's colours in another order or gone, and the picture one pixel further on."""
    for axis in axes:
        if shape[axis] == 3:
            if floats:
                yield from _normalized(axis, len(shape))
            for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
                said = f"with its colours in the order {', '.join(map(str, order))}"
                yield said, "in the suite's order of colours", partial(np.take, indices=order, axis=axis)
            yield "in grey", "in colours", partial(_grey, axis, np.full(3, 1 / 3))
            yield "in grey (red, green, blue weighted)", "in colours", partial(_grey, axis, LUMA)
        else:
            for way in (1, -1):
                yield f"moved by {way} along axis {axis}", "where the suite has it", partial(_moved, axis, way)
    square = sides(shape)
    if square is not None and shape[square[0]] == shape[square[1]]:
        for turns, said in enumerate(("to the left", "upside down", "to the right"), 1):
            yield f"turned {said}", "upright", partial(np.rot90, k=turns, axes=square)


def sides(shape: Sequence[int]) -> tuple[int, int] | None:
    """The axes of height and width; None where they are too short for a picture's."""
    found = (1, 2) if shape[3] in (1, 3, 4) and shape[1] > shape[3] else (2, 3)
    return found if min(shape[axis] for axis in found) >= LEAST_SIDE else None


def smaller_once(shape: Sequence[int]) -> Iterator[Mistake]:
    """Resized to a part of its size and back: by taking every n-th pixel or the mean of n, then by repeating or blending."""
    axes = sides(shape)
    for (part, of), down, up in product(SMALLER if axes else (), DOWN, UP):
        assert axes is not None
        ways = [UP[up](shape[a] * part // of, shape[a]) @ DOWN[down](shape[a], shape[a] * part // of) for a in axes]
        said = f"resized to {part}/{of} of its size ({down}) and back ({up})"
        yield said, "at the suite's own size, resized once", partial(resampled, dict(zip(axes, ways, strict=True)))


def resampled(ways: dict[int, Array], array: Array) -> Array:
    found = array.astype(np.float64)
    for axis, matrix in ways.items():
        found = np.moveaxis(np.tensordot(matrix, found, axes=(1, axis)), 0, axis)
    return np.asarray(found)


def nearest(size: int, to: int) -> Array:
    """Each new pixel is the old one that its centre lies in."""
    return np.asarray(np.eye(size)[np.minimum(((np.arange(to) + 0.5) * size / to).astype(int), size - 1)])


def first(size: int, to: int) -> Array:
    """Each new pixel is the old one that its upper left corner lies in."""
    return np.asarray(np.eye(size)[(np.arange(to) * size / to + 1e-9).astype(int)])


def linear(size: int, to: int) -> Array:
    """Each new pixel blends the two old ones that its centre lies between; beyond the outermost, that one."""
    place = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
    low = np.minimum(place.astype(int), max(size - 2, 0))
    weight = (place - low)[:, None]
    return np.asarray((1 - weight) * np.eye(size)[low] + weight * np.eye(size)[np.minimum(low + 1, size - 1)])


def mean(size: int, to: int) -> Array:
    """Each new pixel is the mean of the old ones that it covers."""
    edges = np.arange(to + 1)[:, None] * size / to
    covered = np.clip(np.minimum(edges[1:], np.arange(1, size + 1)) - np.maximum(edges[:-1], np.arange(size)), 0, None)
    return np.asarray(covered / covered.sum(axis=1, keepdims=True))


Resampling = Callable[[int, int], Array]
DOWN: dict[str, Resampling] = {"nearest": nearest, "nearest, first pixels": first, "bilinear": linear, "mean": mean}
UP: dict[str, Resampling] = {"nearest": nearest, "nearest, first pixels": first, "bilinear": linear}


def _grey(axis: int, weights: Array, array: Array) -> Array:
    grey = np.tensordot(array, weights, axes=(axis, 0))
    return np.broadcast_to(np.expand_dims(grey, axis), array.shape)


def _moved(axis: int, way: int, array: Array) -> Array:
    """Every line one place further on; the one that comes free is a copy of its neighbour."""
    places = np.clip(np.arange(array.shape[axis]) - way, 0, array.shape[axis] - 1)
    return np.take(array, places, axis=axis)


def _normalized(axis: int, rank: int) -> Iterator[Mistake]:
    """ImageNet's normalization on one side alone, or of colours in the other order."""
    centre, width = (part.reshape([3 if a == axis else 1 for a in range(rank)]) for part in IMAGENET)
    yield "without ImageNet's normalization", "normalized", lambda x: x * width + centre
    yield "in 0…255, without ImageNet's normalization", "normalized", lambda x: 255 * (x * width + centre)
    yield "in -1…1, without ImageNet's normalization", "normalized", lambda x: 2 * (x * width + centre) - 1
    yield "with ImageNet's normalization", "as the suite has it", lambda x: (x - centre) / width
    yield (
        "with its colours reversed before ImageNet's normalization", "in the suite's order of colours",
        lambda x: (np.flip(x * width + centre, axis) - centre) / width,
    )  # fmt: skip
