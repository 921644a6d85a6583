"""What may go wrong with pictures before a model: their colours, their place, the normalization that most were trained with.

In: the shape of a batch of pictures, channels first or last. Out: mistakes as (said of the candidate, the remedy, the
change). The rule: only what a shape tells: an axis of three holds the colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mistake = tuple[str, str, Callable[[Array], Array]]
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Mean and deviation of RGB in 0…1 that most published image models are trained with (torchvision's)."""


def changes(shape: Sequence[int], axes: Sequence[int]) -> Iterator[Mistake]:
    """A picture's colours in another order or gone, and the picture one pixel further on."""
    for axis in axes:
        if shape[axis] == 3:
            yield from _normalized(axis, len(shape))
            for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
                said = f"with its colours in the order {', '.join(map(str, order))}"
                yield said, "in the suite's order of colours", partial(np.take, indices=order, axis=axis)
            yield "in grey", "in colours", partial(_grey, axis)
        else:
            for way in (1, -1):
                yield f"moved by {way} along axis {axis}", "where the suite has it", partial(_moved, axis, way)


def _grey(axis: int, array: Array) -> Array:
    return np.broadcast_to(array.mean(axis, keepdims=True), array.shape)


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
