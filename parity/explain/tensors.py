"""Layer by layer: how far each inner tensor of a candidate is from the source's, and how much of that is its own doing.

In: the reference graph, the candidate graph, and the same feeds for both. Out: one `Diverging` for each tensor that both
have. `local` feeds every layer of the candidate with the reference's own tensors, all layers in one run: what is off
then, this layer did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import ToolchainError
from parity.explain.points import Point, matched, named_modules
from parity.explain.simulate import Batch, exposing, opened

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


def compare(reference: onnx.ModelProto, candidate: onnx.ModelProto, feeds: Sequence[Batch]) -> list[Diverging]:
    """Every tensor that both graphs have, in the order in which the candidate computes them."""
    points = matched(reference, candidate)
    if not points:
        return []
    exact = list(_runs(reference, [p.reference for p in points], feeds))
    arrived = list(_runs(candidate, [p.candidate for p in points], feeds))
    points = [p for p in points if _comparable(exact[0][p.reference], arrived[0][p.candidate])]
    if not points:
        return []
    alone = _with_exact_inputs(candidate, points, exact, feeds)
    noise = {p.candidate: _noise(p, exact, arrived) for p in points}
    local = {p.candidate: None if alone is None else _noise(p, exact, alone) for p in points}
    return [Diverging(p.module, p.op, p.candidate, noise[p.candidate], local[p.candidate]) for p in points]


def _runs(model: onnx.ModelProto, names: Sequence[str], feeds: Iterable[Batch]) -> Iterator[Batch]:
    infer = opened(exposing(model, names), list(dict.fromkeys(names)))
    return (infer(batch) for batch in feeds)


def _comparable(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype.kind == other.dtype.kind == "f"


def _noise(point: Point, exact: Sequence[Batch], found: Sequence[Batch]) -> float:
    """Energy of the difference over energy of the reference; infinite where it is not finite."""
    return noise_over_signal([one[point.reference] for one in exact], [other[point.candidate] for other in found])


def noise_over_signal(exact: Iterable[Array], found: Iterable[Array]) -> float:
    """sum (r - c)^2 / sum r^2 over all arrays; infinite where a number is missing or not finite."""
    signal = noise = 0.0
    for one, other in zip(exact, found, strict=True):
        wide = one.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            noise += float(((wide - other) ** 2).sum())
        signal += float((wide**2).sum())
    if not math.isfinite(noise):
        return math.inf
    return noise / max(signal, np.finfo(float).tiny) if noise else 0.0


def decibel(noise: float) -> float:
    """Signal to noise in dB of a noise-to-signal ratio."""
    return math.inf if noise == 0 else -math.inf if math.isinf(noise) else -10 * math.log10(noise)


def _with_exact_inputs(
    candidate: onnx.ModelProto, points: Sequence[Point], exact: Sequence[Batch], feeds: Sequence[Batch]
) -> list[Batch] | None:
    """The points' tensors where whoever reads one is given the reference's; None where the graph cannot be cut so."""
    cut = forced(candidate, {p.candidate: exact[0][p.reference].dtype for p in points})
    infer_names = [p.candidate for p in points]
    try:
        infer = opened(exposing(cut, infer_names), infer_names)
        return [
            infer(batch | {_fed(p.candidate): one[p.reference] for p in points})
            for batch, one in zip(feeds, exact, strict=True)
        ]
    except ToolchainError:
        return None


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


def saturations(reference: onnx.ModelProto, candidate: onnx.ModelProto, feeds: Sequence[Batch]) -> list[Saturation]:
    """For every quantized activation of the candidate, how much of the reference's own tensor its range cuts off."""
    names = {p.candidate: p.reference for p in matched(reference, candidate)}
    names |= {value.name: value.name for value in candidate.graph.input}
    ranges = dict(quantizer_ranges(candidate))
    known = {name: bounds for name, bounds in ranges.items() if name in names}
    inputs = {value.name for value in reference.graph.input}
    inner = [names[name] for name in known if names[name] not in inputs]
    exact = [{**batch, **found} for batch, found in zip(feeds, _runs(reference, inner, feeds), strict=True)]
    modules, readers_of = named_modules(candidate), _layers_reading(candidate)
    found = []
    for name, (low, high) in known.items():
        values = np.concatenate([batch[names[name]].astype(np.float64).ravel() for batch in exact])
        half = (high - low) / 510  # of a step: what only rounds is not cut off
        least = -np.inf if low >= 0 else low - half  # a range from 0 on often stands for a Relu: nothing is lost below
        beyond = values - np.clip(values, least, high + half)
        lost = float((beyond**2).sum()) / max(float((values**2).sum()), np.finfo(float).tiny)
        share = float((beyond != 0).mean())
        found.append(Saturation(modules.get(name, name), readers_of.get(name, name), share, lost))
    return found


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
    from parity.explain.points import SILENT, readers

    reading, names = readers(model), named_modules(model)

    def first(name: str, depth: int = 4) -> str | None:
        for node in reading.get(name, []):
            if node.op_type not in SILENT | {"Pad"}:
                return names[node.output[0]]
            if depth and (found := first(node.output[0], depth - 1)):
                return found
        return None

    return {name: module for name in reading if (module := first(name))}
