"""Batch normalization folded into the layer before it, where one of two graphs has it apart and the other has not.

In: an ONNX graph. Out: one that answers as it does, up to float32's rounding. The rule: only a stored convolution that nothing
else reads takes a normalization in; any other stays apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from parity.explain.graph.decoding import Stored
from parity.explain.graph.points import readers

if TYPE_CHECKING:
    import onnx

    from parity.explain.graph.weights import Array

NORMALIZATION = "BatchNormalization"


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
        if len(reading[layer.output[0]]) == 1 and set(node.input[1:]) | set(layer.input[1:]) <= stored.arrays.keys():
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


def _with(stored: Stored, layer: onnx.NodeProto, after: onnx.NodeProto) -> onnx.NodeProto:
    """w' = w k, b' = (b - mean) k + shift, with k = factor / sqrt(variance + epsilon)."""
    import onnx

    factor, shift, mean, variance = (_wide(stored.arrays, name) for name in after.input[1:5])
    epsilon = next((a.f for a in after.attribute if a.name == "epsilon"), 1e-5)
    scale = factor / np.sqrt(variance + epsilon)
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
