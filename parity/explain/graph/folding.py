"""Batch normalization folded into the layer before it, where one of two graphs has it apart and the other has not.

In: an ONNX graph. Out: one that answers as it does, up to float32's rounding. The rule: only a stored convolution that nothing
else reads takes a normalization in; any other stays apart. Where integers between the two are in the way of that, the other
graph's convolution gives off the same normalization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from parity.explain.graph.decoding import Stored
from parity.explain.graph.points import QUANTIZING, readers

if TYPE_CHECKING:
    import onnx

    from parity.explain.graph.weights import Array

NORMALIZATION = "BatchNormalization"
NOUGHT = 1e-4
"""A bias so small beside what the normalization takes off is what float32's rounding left of none."""


def folded_alike(graphs: Sequence[onnx.ModelProto]) -> list[onnx.ModelProto]:
    """The graphs with their normalizations folded, where some have them and some have none."""
    apart = [any(node.op_type == NORMALIZATION for node in graph.graph.node) for graph in graphs]
    if all(apart):
        return list(graphs)
    return [folded(graph) if has else graph for graph, has in zip(graphs, apart, strict=True)]


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with each normalization in the convolution that it reads, where that is stored and read by it alone."""
    import onnx

    stored, reading = Stored(model), readers(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    outputs = {value.name for value in model.graph.output}
    taken: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        layer = producers.get(node.input[0]) if node.op_type == NORMALIZATION else None
        if layer is None or layer.op_type != "Conv" or layer.output[0] in outputs:
            continue
        if len(reading[layer.output[0]]) == 1 and _are_floats(stored.arrays, [*node.input[1:], *layer.input[1:]]):
            taken[layer.output[0]] = node
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    gone = {node.output[0] for node in taken.values()}
    for node in model.graph.node:
        if node.output and node.output[0] in taken:
            copy.graph.node.append(_with(stored, node, taken[node.output[0]]))
        elif not (node.output and node.output[0] in gone):
            copy.graph.node.append(node)
    copy.graph.initializer.extend(stored.added)
    return copy


def _are_floats(arrays: Mapping[str, Array], names: Sequence[str]) -> bool:
    """Whether all of these are stored, in float32: half of it would be rounded again."""
    return all(name in arrays and arrays[name].dtype == np.float32 for name in names)


def unfolded(model: onnx.ModelProto, other: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the other's normalizations apart, behind stored convolutions that give tensors of the same names."""
    import onnx

    theirs = Stored(other).arrays
    apart = {node.output[0]: node for node in other.graph.node if node.op_type == NORMALIZATION}
    in_integers = any(node.op_type in QUANTIZING for node in other.graph.node)
    if not (apart and in_integers) or any(node.op_type == NORMALIZATION for node in model.graph.node):
        return model
    stored = Stored(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    for node in model.graph.node:
        after = apart.get(node.output[0]) if node.op_type == "Conv" else None
        known = (
            after is not None and set(after.input[1:]) <= theirs.keys() and set(node.input[1:]) <= stored.arrays.keys()
        )
        copy.graph.node.extend(_without(stored, node, after, theirs) if after is not None and known else [node])
    copy.graph.initializer.extend(stored.added)
    return copy


def _without(
    stored: Stored, layer: onnx.NodeProto, after: onnx.NodeProto, theirs: Mapping[str, Array]
) -> list[onnx.NodeProto]:
    """w = w' / k, b = (b' - shift) / k + mean, and the normalization: the other way of `_with`. A channel that the normalization
    makes nought of keeps none of its weights."""
    import onnx

    shift, mean = (_wide(theirs, name) for name in after.input[2:4])
    scale = _scale(after, theirs)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    weights = _wide(stored.arrays, layer.input[1])
    bias = _wide(stored.arrays, layer.input[2]) if len(layer.input) > 2 else np.zeros_like(mean)
    made = [weights * inverse.reshape([-1] + [1] * (weights.ndim - 1)), (bias - shift) * inverse + mean * (scale != 0)]
    if np.abs(made[1]).max() <= NOUGHT * np.abs(mean).max():  # the convolution had no bias before
        made.pop()
    own, normalization = onnx.NodeProto(), onnx.NodeProto()
    own.CopyFrom(layer)
    normalization.CopyFrom(after)
    kept = [stored.store(f"{layer.output[0]}__{i}", one.astype(np.float32)) for i, one in enumerate(made)]
    own.input[:] = [layer.input[0], *kept]
    own.output[:] = [f"{layer.output[0]}__apart"]
    read = [stored.store(f"{layer.output[0]}__{name}", theirs[name]) for name in after.input[1:5]]
    normalization.input[:] = [own.output[0], *read]
    normalization.output[:] = list(layer.output)
    return [own, normalization]


def _scale(after: onnx.NodeProto, arrays: Mapping[str, Array]) -> Array:
    """What a normalization multiplies each channel by."""
    epsilon = next((a.f for a in after.attribute if a.name == "epsilon"), 1e-5)
    found: Array = _wide(arrays, after.input[1]) / np.sqrt(_wide(arrays, after.input[4]) + epsilon)
    return found


def _with(stored: Stored, layer: onnx.NodeProto, after: onnx.NodeProto) -> onnx.NodeProto:
    """w' = w k, b' = (b - mean) k + shift, with k = factor / sqrt(variance + epsilon)."""
    import onnx

    shift, mean = (_wide(stored.arrays, name) for name in after.input[2:4])
    scale = _scale(after, stored.arrays)
    weights = _wide(stored.arrays, layer.input[1])
    bias = _wide(stored.arrays, layer.input[2]) if len(layer.input) > 2 else np.zeros_like(mean)
    made = {
        "weight": weights * scale.reshape([-1] + [1] * (weights.ndim - 1)),
        "bias": (bias - mean) * scale + shift,
    }
    copy = onnx.NodeProto()
    copy.CopyFrom(layer)
    names = [stored.store(f"{after.output[0]}__{what}", array.astype(np.float32)) for what, array in made.items()]
    copy.input[:] = [layer.input[0], *names]
    copy.output[:] = [after.output[0]]
    return copy


def _wide(arrays: Mapping[str, Array], name: str) -> Array:
    return arrays[name].astype(np.float64)
