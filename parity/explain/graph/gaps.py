"""Are these the source's weights? Each of a candidate's tensors beside the one that it should be.

In: the weights of two graphs. Out: one `Gap` for each tensor that is not what it should be, with the factor that explains
it best. The rule: integers are compared as what they decode to, within half a step of their own scale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from parity.explain.graph.weights import Array, Key, Weight

Kind = tuple[str, int, tuple[int, ...]]
"""An operator, its slot, and a shape."""
STORED_AS = 2.0**-8
"""Relative rounding of the coarsest float in use (bfloat16): weights stored so are still the same weights."""
ENOUGH = 0.995
"""Share of a tensor's numbers that must be equal: a quantizer may clip the few outermost."""
NARROW = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
"""Formats of half the bits, and the most that cutting a number off to them takes from it; rounding takes half of that."""
LEAST = 2.0**-23
"""Two of float16's smallest steps: numbers near its end are rounded to whole ones, or lifted to 1e-7, as converters do."""
SETTING = re.compile(r"constant|scalar|\bval_\d|epsilon", re.IGNORECASE)
"""How exporters name the numbers that they write into a graph; weights have their parameters' names."""
ENOUGH_TO_TELL = 8
LIKE = 0.9
"""Cosine of two tensors that are one and the same trained a little further; unrelated ones are near 0."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A tensor that is not the reference's: `factor` times it, up to `noise` (over signal) that no factor explains."""

    module: str
    tensor: str
    factor: float
    noise: float
    is_setting: bool = False
    """A single number that an exporter wrote (an epsilon, a factor of attention), no weight."""
    is_parameter: bool = False
    """Whether the tensor has a name of the source's own: that says more than the operator that reads it."""

    @property
    def tells(self) -> bool:
        """Whether the factor says it all: most of a tensor may be the reference's, and a part another."""
        return self.noise < min(0.01, (self.factor - 1) ** 2 / 4)


def gaps(reference: Mapping[Key, Weight], candidate: Mapping[Key, Weight]) -> list[tuple[Key, Key, Gap]]:
    """The candidate's tensors that are not the reference's, each beside the one it should be (keys: ours, theirs)."""
    found = []
    for theirs, ours in paired(reference, candidate).items():
        gap = difference(facing(reference[ours], candidate[theirs], ours, theirs), candidate[theirs])
        if gap is not None:
            found.append((ours, theirs, replace(gap, is_parameter=_is_parameter(reference[ours], candidate[theirs]))))
    return found


def _is_parameter(reference: Weight, candidate: Weight) -> bool:
    return reference.tensor == candidate.tensor and not candidate.is_integer and not SETTING.search(candidate.tensor)


def paired(reference: Mapping[Key, Weight], candidate: Mapping[Key, Weight]) -> dict[Key, Key]:
    """For each of the candidate's tensors the one of the reference that it should be: of the same operator by name, else
    the likest of its shape; and where none is like it, the one at the same place among those of its operator and shape, or
    of its shape where the source's graph has another operator for it (a bias that is added apart)."""
    found = {key: key for key, one in candidate.items() if key in reference and _alike(one.array, reference[key].array)}
    ours, theirs = (_by_place({k: w for k, w in side.items() if k not in found}) for side in (reference, candidate))
    shapes = _by_shape(ours)
    for kind, keys in theirs.items():
        row = next((ours[one] for one in _kinds(kind) if one in ours), shapes.get(_bare(kind[2]), []))
        for place, key in enumerate(keys):
            twin = _likest(key, candidate[key], reference)
            unlike = twin is None or not like(reference[twin], candidate[key], twin, key)
            if unlike and len(row) == len(keys):
                twin = row[place]
            if twin is not None:
                found[key] = twin
    return found


def _alike(one: Array, other: Array) -> bool:
    """Of one shape, but for channels of nought; a single number may be stored as one or as an array of one."""
    return with_channels_of(one, other).shape == other.shape or one.size == other.size == 1


def with_channels_of(one: Array, other: Array) -> Array:
    """A convolution's weights with as many input channels as another's, where those that either has more are nought."""
    if one.ndim != other.ndim or one.ndim < 3 or one.shape[:1] + one.shape[2:] != other.shape[:1] + other.shape[2:]:
        return one
    few, more = one.shape[1], other.shape[1]
    if few > more and not one[:, more:].any():
        return one[:, :more]
    if few < more and not other[:, few:].any():
        return np.pad(one, [(0, more - few) if axis == 1 else (0, 0) for axis in range(one.ndim)])
    return one


def _by_place(weights: Mapping[Key, Weight]) -> dict[Kind, list[Key]]:
    """Tensors in their order, by operator, slot and shape."""
    found: dict[Kind, list[Key]] = {}
    for key, weight in weights.items():
        found.setdefault((key[1], key[3], weight.array.shape), []).append(key)
    return found


def _kinds(kind: Kind) -> Iterator[Kind]:
    """Where the source may have a tensor: the same place, or that of the Gemm which became this MatMul."""
    yield kind
    if kind[:2] == ("MatMul", 1):
        yield "Gemm", 1, kind[2][::-1]
        yield "Gemm", 1, kind[2]


def _by_shape(places: Mapping[Kind, list[Key]]) -> dict[tuple[int, ...], list[Key]]:
    """The same in one row for each shape, whatever reads them; only where one slot of one operator alone has that shape."""
    rows: dict[tuple[int, ...], list[list[Key]]] = {}
    for (_, _, shape), keys in places.items():
        rows.setdefault(_bare(shape), []).append(keys)
    return {shape: found[0] for shape, found in rows.items() if len(found) == 1 and shape}


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _likest(key: Key, weight: Weight, reference: Mapping[Key, Weight]) -> Key | None:
    """The reference's tensor of the same shape and the nearest direction, for graphs that name their nodes otherwise."""
    if weight.array.size < 2:
        return None
    turned = {k: facing(other, weight, k, key).array for k, other in reference.items()}
    alike = [k for k, array in turned.items() if array.shape == weight.array.shape]
    return max(alike, key=lambda k: cosine(turned[k], weight.array), default=None)


def facing(reference: Weight, candidate: Weight, ours: Key, theirs: Key) -> Weight:
    """The reference's tensor as the candidate's operator would hold it, where that is another one than the source's.

    A Gemm's matrix turned, as MatMul takes it; a bias with axes of 1 around it, as Add does; channels of nought.
    """
    one, other = reference.array, candidate.array
    if ours[1] == theirs[1]:
        return replace(reference, array=with_channels_of(one, other))
    if one.size != other.size:
        return reference
    if one.ndim == other.ndim == 2 and {ours[1], theirs[1]} == {"Gemm", "MatMul"}:
        turn = one.shape != other.shape or cosine(one.T, other) > cosine(one, other)
        return replace(reference, array=one.T, step=np.transpose(reference.step)) if turn else reference
    fits = one.shape != other.shape and _bare(one.shape) == _bare(other.shape) and not np.ndim(reference.step)
    return replace(reference, array=one.reshape(other.shape)) if fits else reference


def like(reference: Weight, candidate: Weight, ours: Key, theirs: Key) -> bool:
    """Whether two tensors are one and the same, perhaps trained a little further."""
    one = facing(reference, candidate, ours, theirs).array
    return one.shape == candidate.array.shape and cosine(one, candidate.array) >= LIKE


def cosine(one: Array, other: Array) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def difference(reference: Weight, candidate: Weight) -> Gap | None:
    """None where the candidate's numbers are the reference's as far as both are stored."""
    one, other = reference.array.astype(np.float64), candidate.array.astype(np.float64)
    room = 0.505 * (reference.step + candidate.step) + STORED_AS * np.abs(one)
    if is_narrow(candidate, "float16"):
        room = room + LEAST
    if candidate.is_integer:  # the zero point is rounded too: the outermost numbers may lie up to a step away
        room = np.where((other == other.max()) | (other == other.min()), 2 * room, room)
    if not other.size or float((np.abs(other - one) <= room).mean()) >= ENOUGH:
        return None
    energy = float((one**2).sum())
    factor = float((one * other).sum()) / energy if energy else 0.0
    rest = float(((other - factor * one) ** 2).sum()) / max(float((other**2).sum()), np.finfo(float).tiny)
    setting = candidate.array.size == 1 and bool(SETTING.search(candidate.tensor))
    return Gap(candidate.module, candidate.tensor, factor, rest, setting)


def is_narrow(weight: Weight, kind: str) -> bool:
    """Whether a tensor that is stored in float32 holds nothing that `kind` cannot say: then it went through it."""
    array = weight.array
    if weight.is_integer or array.dtype != np.float32:
        return False
    if kind == "bfloat16":
        return not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):
        return bool((array.astype(np.float16) == array).all())


def loses(reference: Weight, candidate: Weight, room: float) -> bool:
    """Whether the candidate's numbers are the reference's up to `room` (relative), and not all the same."""
    gap = np.abs(candidate.array.astype(np.float64) - reference.array)
    return bool(gap.any() and (gap <= room * np.abs(reference.array) + LEAST).all())


def is_rounded(reference: Weight, candidate: Weight) -> bool:
    """Whether the candidate's numbers are the reference's up to the energy that rounding to half the bits brings; single ones
    that are differences of larger ones may be further off."""
    if reference.array.shape != candidate.array.shape:
        return False
    one, other = reference.array.astype(np.float64), candidate.array.astype(np.float64)
    return float(((other - one) ** 2).sum()) <= STORED_AS**2 * float((one**2).sum())
