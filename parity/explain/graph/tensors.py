"""Layer by layer: how far each inner tensor of a candidate is from the source's, and how much of that is its own doing.

In: the reference graph, the candidate graph, and the same feeds for both. Out: one `Diverging` for each tensor that both
have. `local` feeds every layer of the candidate with the reference's own tensors, all layers in one run: what is off
then, this layer did. `scales`: what the candidate multiplies the channels of the reference's tensors by (`smoothing`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import ToolchainError
from parity.explain.graph.points import Point, matched, named_modules
from parity.explain.graph.simulate import Batch, Infer, exposing, opened

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Diverging:
    """One tensor: noise over signal as it arrives, and with the reference's own tensors put in (None: not measured)."""

    module: str
    op: str
    tensor: str
    noise: float
    local: float | None

    @property
    def own(self) -> float:
        """What this layer itself does; all of it where that could not be told apart."""
        return self.noise if self.local is None else self.local


def compare(
    reference: onnx.ModelProto, candidate: onnx.ModelProto, feeds: Sequence[Batch], scales: Mapping[str, Array] = {}
) -> list[Diverging]:
    """Every tensor that both graphs have, in the order in which the candidate computes them."""
    points = matched(reference, candidate)
    if not points:
        return []
    ours, theirs = (
        exposed(reference, [p.reference for p in points]),
        exposed(candidate, [p.candidate for p in points]),
    )
    exact, arrived = _smoothed(ours(feeds[0]), scales), theirs(feeds[0])
    points = [p for p in points if comparable(exact[p.reference], arrived[p.candidate])]
    if not points:
        return []
    alone = _with_exact_inputs(candidate, points, exact, feeds[0])
    noise, local = _Noises(points), _Noises(points)
    for batch in feeds:  # one batch's tensors at a time: all of a large network's do not fit in memory
        exact = _smoothed(ours(batch), scales)
        noise.add(exact, theirs(batch))
        if alone is not None:
            local.add(exact, alone(batch | {_fed(p.candidate): exact[p.reference] for p in points}))
    return [Diverging(p.module, p.op, p.candidate, noise.of(p), None if alone is None else local.of(p)) for p in points]


def _smoothed(tensors: Batch, scales: Mapping[str, Array]) -> Batch:
    return tensors | {
        name: (tensors[name] * factors).astype(tensors[name].dtype)
        for name, factors in scales.items()
        if name in tensors
    }


def exposed(model: onnx.ModelProto, names: Sequence[str]) -> Infer:
    return opened(exposing(model, names), list(dict.fromkeys(names)))


def comparable(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype.kind == other.dtype.kind == "f"


class _Noises:
    """Energy of the difference over energy of the reference, point by point, summed over batches."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = points
        self.energies = {p.candidate: np.zeros(2) for p in points}

    def add(self, exact: Batch, found: Batch) -> None:
        for p in self.points:
            self.energies[p.candidate] += _energies(exact[p.reference], found[p.candidate])

    def of(self, point: Point) -> float:
        return _ratio(*self.energies[point.candidate])


def noise_over_signal(exact: Iterable[Array], found: Iterable[Array]) -> float:
    """sum (r - c)^2 / sum r^2 over all arrays; infinite where a number is missing or not finite."""
    return _ratio(*sum((_energies(one, other) for one, other in zip(exact, found, strict=True)), np.zeros(2)))


def _energies(one: Array, other: Array) -> Array:
    """Of the difference, of the first."""
    wide = one.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array([((wide - other) ** 2).sum(), (wide**2).sum()])


def _ratio(noise: float, signal: float) -> float:
    if not math.isfinite(noise):
        return math.inf
    return float(noise / max(signal, np.finfo(float).tiny)) if noise else 0.0


def decibel(noise: float) -> float:
    """Signal to noise in dB of a noise-to-signal ratio."""
    return math.inf if noise == 0 else -math.inf if math.isinf(noise) else -10 * math.log10(noise)


def _with_exact_inputs(candidate: onnx.ModelProto, points: Sequence[Point], exact: Batch, first: Batch) -> Infer | None:
    """The points' tensors where whoever reads one is given the reference's; None where the graph cannot be cut so."""
    cut = forced(candidate, {p.candidate: exact[p.reference].dtype for p in points})
    try:
        infer = exposed(cut, [p.candidate for p in points])
        infer(first | {_fed(p.candidate): exact[p.reference] for p in points})
    except ToolchainError:
        return None
    return infer


def forced(model: onnx.ModelProto, kinds: Mapping[str, np.dtype[Any]]) -> onnx.ModelProto:
    """The graph cut at tensors: each is still computed, but its readers read a new input `NAME__exact` instead."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.input[:] = [_fed(name) if name in kinds else name for name in node.input]
    for name, kind in kinds.items():
        value = copy.graph.input.add(name=_fed(name))
        value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(kind)
    return copy


def _fed(name: str) -> str:
    return f"{name}__exact"


@dataclass(frozen=True, slots=True)
class Saturation:
    """Values of one tensor that lie beyond what its quantizer can say: whose they are, who reads them, what share."""

    module: str
    reader: str
    share: float
    lost: float
    """Energy cut off over energy of the tensor."""


def saturations(
    reference: onnx.ModelProto, candidate: onnx.ModelProto, feeds: Sequence[Batch], scales: Mapping[str, Array] = {}
) -> list[Saturation]:
    """For every quantized activation of the candidate, how much of the reference's own tensor its range cuts off."""
    names = {p.candidate: p.reference for p in matched(reference, candidate)}
    names |= {value.name: value.name for value in candidate.graph.input}
    ranges = dict(quantizer_ranges(candidate))
    known = {name: bounds for name, bounds in ranges.items() if name in names}
    if not known:
        return []
    inputs = {value.name for value in reference.graph.input}
    inner = [names[name] for name in known if names[name] not in inputs]
    ours = exposed(reference, inner)
    modules, readers_of = named_modules(candidate), _layers_reading(candidate)
    sums = {name: np.zeros(4) for name in known}
    for batch in feeds:
        exact = batch | _smoothed(ours(batch), scales)
        for name, bounds in known.items():
            sums[name] += _cut(exact[names[name]].astype(np.float64), *bounds)
    return [
        Saturation(
            modules.get(name, name), readers_of.get(name, name), float(beyond / max(count, 1)), _ratio(lost, all_)
        )
        for name, (lost, all_, beyond, count) in sums.items()
    ]


def _cut(values: Array, low: float, high: float) -> Array:
    """Of one tensor: the energy that a range cuts off, its whole energy, how many values that meets, and of how many."""
    half = (high - low) / 510  # of a step: what only rounds is not cut off
    least = -np.inf if low >= 0 else low - half  # a range from 0 on often stands for a Relu: nothing is lost below
    beyond = values - np.clip(values, least, high + half)
    return np.array([(beyond**2).sum(), (values**2).sum(), np.count_nonzero(beyond), values.size])


def quantizer_ranges(model: onnx.ModelProto) -> Iterator[tuple[str, tuple[float, float]]]:
    """For every activation that is quantized by one scale, the least and largest value that its integers stand for."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored and node.input[1] in stored:
            scale = numpy_helper.to_array(stored[node.input[1]]).astype(np.float64)
            zero = numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 else np.zeros((), np.uint8)
            if scale.size == 1 and zero.size == 1:
                kind, offset = np.iinfo(zero.dtype), int(zero.ravel()[0])
                low, high = kind.min - offset, kind.max - offset
                yield node.input[0], (low * float(scale.ravel()[0]), high * float(scale.ravel()[0]))


def _layers_reading(model: onnx.ModelProto) -> dict[str, str]:
    """For each tensor, the module of the first operator that reads it once it is quantized."""
    from parity.explain.graph.points import SILENT, readers

    reading, names = readers(model), named_modules(model)

    def first(name: str, depth: int = 4) -> str | None:
        for node in reading.get(name, []):
            if node.op_type not in SILENT | {"Pad"}:
                return names[node.output[0]]
            if depth and (found := first(node.output[0], depth - 1)):
                return found
        return None

    return {name: module for name in reading if (module := first(name))}
