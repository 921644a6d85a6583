"""Passes over quantized weights: what stands between a DequantizeLinear and its user moves into the stored integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir


def transpose_dequantized_weights(model: ir.Model) -> bool:
    """Turn `weight -> DequantizeLinear -> Transpose` into `transposed weight -> DequantizeLinear`.

    Runtimes fuse an integer kernel only where DequantizeLinear feeds it directly. Returns whether anything changed.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type == "Transpose" and (source := constant_dequantize(node.inputs[0])) is not None:
            move_transpose(model.graph, source, node)
            changed = True
    return changed


def constant_dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes this value from stored integers, or None."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    stored = node.inputs[0]
    return node if stored is not None and stored.const_value is not None else None


def move_transpose(graph: ir.Graph, dequantize: ir.Node, transpose: ir.Node) -> None:
    """Replace a Transpose of dequantized integers by a DequantizeLinear of transposed ones."""
    import onnx_ir as ir

    stored, output = dequantize.inputs[0], transpose.outputs[0]
    assert stored is not None
    assert stored.const_value is not None
    array = stored.const_value.numpy()
    perm = transpose.attributes.get_ints("perm") or tuple(reversed(range(array.ndim)))
    attributes = dict(dequantize.attributes)
    scale = dequantize.inputs[1]
    if scale is not None and scale.const_value is not None and scale.const_value.size > 1:
        axis = dequantize.attributes.get_int("axis", 1) % array.ndim
        attributes["axis"] = ir.AttrInt64("axis", list(perm).index(axis))
    tensor = ir.tensor(np.ascontiguousarray(array.transpose(perm)), name=f"{stored.name}_transposed")
    weight = graph.initializers.get(tensor.name) or ir.Value(name=tensor.name, const_value=tensor)
    graph.initializers.setdefault(tensor.name, weight)
    moved = ir.Node(
        "", "DequantizeLinear", [weight, *dequantize.inputs[1:]], attributes, name=dequantize.name,
        metadata_props=dict(transpose.metadata_props),
    )
    moved.outputs[0].name = output.name
    graph.insert_before(transpose, moved)
    output.replace_all_uses_with(moved.outputs[0], replace_graph_outputs=True)
    graph.remove(transpose, safe=True)
