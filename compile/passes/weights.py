"""Passes over quantized layers: bring them to the form that every runtime computes in integers.

A graph in onnx-ir form comes in and is changed in place; each pass says whether it changed anything. The rule:
between stored integers and the layer that multiplies them stands a DequantizeLinear and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir


INPUTS_OF_GEMM = 3
"""X, W and b; DequantizeLinear has three as well: integers, scale and zero point."""


def transpose_dequantized_weights(model: ir.Model) -> bool:
    """Turn `weight -> DequantizeLinear -> Transpose` into `transposed weight -> DequantizeLinear`."""
    changed = False
    for node in list(model.graph):
        source = constant_dequantize(node.inputs[0]) if node.op_type == "Transpose" else None
        if source is None:
            continue
        perm = tuple(node.attributes.get_ints("perm") or ())
        moved = transposed_weight(model.graph, source, node, perm)
        moved.name, node.outputs[0].name = node.outputs[0].name, f"{node.outputs[0].name}_before"
        node.outputs[0].replace_all_uses_with(moved, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        changed = True
    return changed


def quantize_biases_of_float_gemms(model: ir.Model) -> bool:
    """Give a quantized Gemm that answers in float a bias of 32-bit integers, at the scale of its accumulator.

    ONNX Runtime adds such a bias itself where QuantizeLinear follows; elsewhere it would compute the Gemm in float.
    Only with uint8 activations: TensorRT, whose activations are int8, refuses integer biases.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type == "Gemm" and is_plain(node) and not feeds_quantize(node.outputs[0]):
            changed |= quantize_bias(model.graph, node)
    return changed


def is_plain(gemm: ir.Node) -> bool:
    """Whether a Gemm is X W + b, with X dequantized from uint8, W stored and dequantized, b stored in float."""
    import onnx_ir as ir

    dequantized = gemm.inputs[0].producer() if gemm.inputs[0] is not None else None
    if dequantized is None or dequantized.op_type != "DequantizeLinear" or len(dequantized.inputs) < INPUTS_OF_GEMM:
        return False
    zero_point = dequantized.inputs[2]
    bias = gemm.inputs[2] if len(gemm.inputs) == INPUTS_OF_GEMM else None
    return (
        zero_point is not None
        and zero_point.dtype == ir.DataType.UINT8
        and constant_dequantize(gemm.inputs[1]) is not None
        and bias is not None
        and bias.const_value is not None
        and all(gemm.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        and not gemm.attributes.get_int("transA", 0)
    )


def feeds_quantize(value: ir.Value) -> bool:
    """Whether all that reads a value is a QuantizeLinear, directly or behind a Relu."""
    users = [use.node for use in value.uses()]
    return bool(users) and all(
        user.op_type == "QuantizeLinear" or (user.op_type == "Relu" and feeds_quantize(user.outputs[0]))
        for user in users
    )


def quantize_bias(graph: ir.Graph, gemm: ir.Node) -> bool:
    """Replace the bias of one Gemm; False where it is wider than 32 bits hold."""
    import onnx_ir as ir

    scale = (scale_of(gemm.inputs[0]) * scale_of(gemm.inputs[1])).astype(np.float32).reshape(-1)
    bias = gemm.inputs[2]
    assert bias is not None
    assert bias.const_value is not None
    integers = np.rint(bias.const_value.numpy() / scale)
    if integers.ndim != 1 or np.abs(integers).max() > np.iinfo(np.int32).max:
        return False
    scale = scale if scale.size == 1 else np.broadcast_to(scale, integers.shape)
    stored = stored_value(graph, f"{bias.name}.int32_for_{gemm.name}", integers.astype(np.int32))
    scales = stored_value(graph, f"{bias.name}.scale_for_{gemm.name}", scale if scale.size > 1 else scale.reshape(()))
    made = ir.Node(
        "",
        "DequantizeLinear",
        [stored, scales],
        [ir.AttrInt64("axis", 0)],
        name=f"{gemm.name}_bias",
        metadata_props=dict(gemm.metadata_props),
    )
    made.outputs[0].name = f"{bias.name}_for_{gemm.name}"
    graph.insert_before(gemm, made)
    gemm.replace_input_with(2, made.outputs[0])
    return True


def scale_of(value: ir.Value | None) -> np.ndarray:
    """The scale of the DequantizeLinear behind a value."""
    node = value.producer() if value is not None else None
    assert node is not None
    scale = node.inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    return scale.const_value.numpy()


def stored_value(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initializer of this name, made if it is not there."""
    import onnx_ir as ir

    if name not in graph.initializers:
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        graph.register_initializer(ir.Value(name=name, const_value=tensor))
    return graph.initializers[name]


def constant_dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes this value from stored integers, or None."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    stored = node.inputs[0]
    return node if stored is not None and stored.const_value is not None else None


def transposed_weight(graph: ir.Graph, dequantize: ir.Node, before: ir.Node, perm: tuple[int, ...] | None) -> ir.Value:
    """The dequantized weights with their axes permuted (empty: reversed) in the file; inserted before a node."""
    import onnx_ir as ir

    stored = dequantize.inputs[0]
    assert stored is not None
    assert stored.const_value is not None
    array = stored.const_value.numpy()
    perm = perm or tuple(reversed(range(array.ndim)))
    name = f"{stored.name}_transposed_{''.join(map(str, perm))}"
    weight = stored_value(graph, name, array.transpose(perm))
    made = ir.Node(
        "",
        "DequantizeLinear",
        [weight, *dequantize.inputs[1:]],
        moved_axis(dequantize, perm),
        name=f"{dequantize.name}_{before.name}",
        metadata_props=dict(before.metadata_props),
    )
    made.outputs[0].name = f"{name}_for_{before.name}"
    graph.insert_before(before, made)
    return made.outputs[0]


def moved_axis(dequantize: ir.Node, perm: tuple[int, ...]) -> Mapping[str, ir.Attr]:
    """The attributes of a DequantizeLinear whose channels stand elsewhere after a transposition."""
    import onnx_ir as ir

    scale = dequantize.inputs[1]
    attributes = dict(dequantize.attributes)
    if scale is not None and scale.const_value is not None and scale.const_value.size > 1:
        axis = dequantize.attributes.get_int("axis", 1) % len(perm)
        attributes["axis"] = ir.AttrInt64("axis", perm.index(axis))
    return attributes
