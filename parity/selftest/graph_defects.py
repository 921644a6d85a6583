"""Defects of an artifact, planted in the graph it is compiled from: what is compiled, hashed and run is already wrong.

A float or QDQ graph, a size and a seed come in; a changed graph goes out. A size of 0 would change nothing; 1 is gross.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Random = np.random.Generator
LEAST_WEIGHTS = 16
"""A constant with fewer numbers is a bound, a shape or a scale, not a layer's weights."""


def weight_scale(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """One layer's weights too large by the factor 1 + 2 x size."""
    _change_one(graph, random, lambda w: w * (1 + 2 * size))


def corrupted_weights(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """A share of one layer's weights replaced by others of the same layer."""

    def corrupted(w: Array) -> Array:
        hit = random.random(w.shape) < size
        return np.where(hit, random.permutation(w.ravel()).reshape(w.shape), w)

    _change_one(graph, random, corrupted)


def dead_weights(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """A share of one layer's weights lost: 0."""
    _change_one(graph, random, lambda w: np.where(random.random(w.shape) < size, 0, w))


def reordered_channels(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """A share of one layer's rows stand in another's place."""

    def reordered(w: Array) -> Array:
        count = max(2, round(size * len(w)))
        chosen = random.choice(len(w), min(count, len(w)), replace=False)
        changed = w.copy()
        changed[chosen] = w[np.roll(chosen, 1)]
        return changed

    _change_one(graph, random, reordered)


def stale_weights(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """Every layer's weights moved as another training would: by noise of a share of their own spread."""
    _change_all(graph, lambda w: w + size * w.std() * random.standard_normal(w.shape))


def coarse_weights(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """All weights rounded to a shorter mantissa than declared: 10 bits (half precision) at size 0 down to 1 bit."""
    bits = max(1, round(10 * (1 - size)))

    def rounded(w: Array) -> Array:
        fraction, exponent = np.frexp(w)
        return np.asarray(np.ldexp(np.round(fraction * 2**bits) / 2**bits, exponent))

    _change_all(graph, rounded)


def flipped_sign(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """A share of one layer's weights with the wrong sign."""
    _change_one(graph, random, lambda w: np.where(random.random(w.shape) < size / 2, -w, w))


def activation_scale(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """One activation's quantization scale is wrong where it is taken back to numbers."""
    _scale_activation(graph, random, 1 + 2 * size, both=False)


def saturated_activation(graph: onnx.ModelProto, size: float, random: Random) -> None:
    """One activation was calibrated on too small a range: it is cut off."""
    _scale_activation(graph, random, 1 / (1 + 15 * size), both=True)


Defect = Callable[["onnx.ModelProto", float, Random], None]
OF_WEIGHTS: Mapping[str, Defect] = {
    "weight scale": weight_scale,
    "corrupted weights": corrupted_weights,
    "dead weights": dead_weights,
    "reordered channels": reordered_channels,
    "stale weights": stale_weights,
    "coarse weights": coarse_weights,
    "flipped sign": flipped_sign,
}
OF_ACTIVATIONS: Mapping[str, Defect] = {
    "activation scale": activation_scale,
    "saturated activation": saturated_activation,
}
"""Only quantized graphs have these."""


def defects(graph: onnx.ModelProto) -> dict[str, Defect]:
    """What can be planted in this graph."""
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    return {**OF_WEIGHTS, **(OF_ACTIVATIONS if quantized else {})}


def _weights(graph: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The stored weights of layers: of two axes or more, not small."""
    kinds = {np.dtype(k) for k in ("float32", "int8", "uint8")}
    found = []
    for tensor in graph.graph.initializer:
        if len(tensor.dims) > 1 and int(np.prod(tensor.dims)) >= LEAST_WEIGHTS and _dtype(tensor) in kinds:
            found.append(tensor)
    return found


def _dtype(tensor: onnx.TensorProto) -> np.dtype[Any]:
    from onnx import helper

    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))


def _change_one(graph: onnx.ModelProto, random: Random, change: Callable[[Array], Array]) -> None:
    found = _weights(graph)
    _store(found[int(random.integers(len(found)))], change)


def _change_all(graph: onnx.ModelProto, change: Callable[[Array], Array]) -> None:
    for tensor in _weights(graph):
        _store(tensor, change)


def _store(tensor: onnx.TensorProto, change: Callable[[Array], Array]) -> None:
    """Change a tensor in place; integer weights stay integers of their own range."""
    from onnx import numpy_helper

    was = numpy_helper.to_array(tensor)
    now = change(was.astype(np.float64))
    if was.dtype.kind in "iu":
        info = np.iinfo(was.dtype)
        now = np.clip(np.rint(now), info.min, info.max)
    tensor.CopyFrom(numpy_helper.from_array(now.astype(was.dtype), tensor.name))


def _scale_activation(graph: onnx.ModelProto, random: Random, factor: float, *, both: bool) -> None:
    """Multiply the scale of one activation's DequantizeLinear, and of its QuantizeLinear with `both`."""
    from onnx import numpy_helper

    stored = {t.name: t for t in graph.graph.initializer}
    pairs = _activations(graph)
    quantize, dequantize = pairs[int(random.integers(len(pairs)))]
    for node in (quantize, dequantize) if both else (dequantize,):
        scale = numpy_helper.to_array(stored[node.input[1]])
        name = f"{node.input[1]}_planted_{node.name}"
        graph.graph.initializer.append(numpy_helper.from_array((scale * factor).astype(scale.dtype), name))
        node.input[1] = name


def _activations(graph: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Every QuantizeLinear of an activation with the first DequantizeLinear that takes it back."""
    stored = {t.name for t in graph.graph.initializer}
    back: dict[str, onnx.NodeProto] = {}
    for node in graph.graph.node:
        if node.op_type == "DequantizeLinear":
            back.setdefault(node.input[0], node)
    quantized = [n for n in graph.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in stored]
    return [(n, back[n.output[0]]) for n in quantized if n.output[0] in back and n.input[1] in stored]
