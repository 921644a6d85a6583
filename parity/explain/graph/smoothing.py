"""What a sound graph smooths: channels that it makes smaller, and that its next layers make as much larger.

In: the float graph, the line's own graph for a target, and the same feeds for both. Out: by tensor of the float graph, factors
for its channels (the last axis). The rule: only the line's own graph tells, never one on trial, whose scales may be its defect.
Source: Xiao et al. 2023, "SmoothQuant".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parity.explain.graph.points import matched
from parity.explain.graph.simulate import Batch
from parity.explain.graph.tensors import comparable, exposed, quantizer_ranges

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
SMOOTHED = 0.1
"""A tensor is smoothed where factors for its channels leave less than this of the energy between it and its twin."""


def smoothing(reference: onnx.ModelProto, sound: onnx.ModelProto, feeds: Sequence[Batch]) -> dict[str, Array]:
    """What a sound graph multiplies the channels of tensors by and its next layers undo: fitted, for the tensors it does so to."""
    answers = {value.name for value in reference.graph.output}
    points = [p for p in matched(reference, sound) if p.reference not in answers]
    if not points or not any(quantizer_ranges(sound)):
        return {}
    ours, theirs = exposed(reference, [p.reference for p in points]), exposed(sound, [p.candidate for p in points])
    sums: dict[str, Array] = {}
    for batch in feeds:
        exact, found = ours(batch), theirs(batch)
        for p in points:
            one, other = exact[p.reference], found[p.candidate]
            if comparable(one, other) and one.ndim > 1:
                sums[p.reference] = _added(sums.get(p.reference), _products(one, other))
    return {name: factors for name, found in sums.items() if (factors := _factors(*found)) is not None}


def _products(one: Array, other: Array) -> Array:
    """By channel: the sums of a * a, a * b and b * b, [3, channels]."""
    a, b = (side.reshape(-1, side.shape[-1]).astype(np.float64) for side in (one, other))
    return np.stack([(a * a).sum(axis=0), (a * b).sum(axis=0), (b * b).sum(axis=0)])


def _added(one: Array | None, other: Array) -> Array:
    """Both, while the last axis is as wide: an axis that is not is none of channels."""
    if one is None:
        return other
    return one + other if one.shape == other.shape else np.full((3, 1), np.nan)


def _factors(own: Array, both: Array, other: Array) -> Array | None:
    """The least squares' factor by channel; None where it does not explain what stands between the two."""
    factors = np.divide(both, own, out=np.ones_like(own), where=own > 0)
    apart, left = (own - 2 * both + other).sum(), (other - factors * both).sum()
    return factors if left < SMOOTHED * apart else None
