"""Widen convolutions over one to three channels to four, the fewest that integer kernels take in one step.

A graph in onnx-ir form comes in and is changed in place; the pass says whether it changed anything. The answers stay
the same to the bit: the added channels hold the zero point and their weights are nought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compile.passes.weights import constant_dequantize, stored_value

if TYPE_CHECKING:
    import onnx_ir as ir

CHANNELS = 4
"""VNNI multiplies groups of four bytes. Below that ONNX Runtime gathers single bytes: a 3 x 3 convolution over one
channel ran at 6 billion multiply-accumulates a second, padded to four at 30 of which 22 are for nought (one thread,
AVX512-VNNI); OpenVINO, whose kernels pad by themselves, lost 2 % to it, so its build takes the padding off again."""


def pad_narrow_inputs(model: ir.Model) -> bool:
    """Pad the quantized input and the stored weights of every narrow convolution."""
    changed = False
    for node in list(model.graph):
        if node.op_type == "Conv" and is_narrow(node):
            pad_input(model.graph, node)
            pad_weights(model.graph, node)
            changed = True
    return changed


def is_narrow(convolution: ir.Node) -> bool:
    """Whether a convolution of one group reads fewer than four channels of uint8 and stored int8 weights."""
    import onnx_ir as ir

    source, weight = convolution.inputs[0], constant_dequantize(convolution.inputs[1])
    dequantize = source.producer() if source is not None else None
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or weight is None:
        return False
    zero_point = dequantize.inputs[2] if len(dequantize.inputs) > 2 else None
    channels = weight.inputs[0]
    assert channels is not None
    assert channels.const_value is not None
    return (
        zero_point is not None
        and zero_point.dtype == ir.DataType.UINT8
        and zero_point.const_value is not None
        and zero_point.const_value.size == 1
        and convolution.attributes.get_int("group", 1) == 1
        and channels.const_value.numpy().shape[1] < CHANNELS
        and weight.attributes.get_int("axis", 1) == 0
    )


def pad_input(graph: ir.Graph, convolution: ir.Node) -> None:
    """Let the convolution read its quantized input with channels of the zero point behind it."""
    import onnx_ir as ir

    source, weight = convolution.inputs[0], constant_dequantize(convolution.inputs[1])
    assert source is not None
    assert weight is not None
    dequantize, integers = source.producer(), weight.inputs[0]
    assert dequantize is not None
    assert integers is not None
    assert integers.const_value is not None
    shape = integers.const_value.numpy().shape
    rank = len(shape)
    pads = np.zeros(2 * rank, np.int64)
    pads[rank + 1] = CHANNELS - shape[1]
    amount = stored_value(graph, f"{convolution.name}_pads", pads)
    metadata = dict(convolution.metadata_props)
    padded = ir.Node(
        "",
        "Pad",
        [dequantize.inputs[0], amount, dequantize.inputs[2]],
        name=f"{convolution.name}_pad",
        metadata_props=metadata,
    )
    padded.outputs[0].name = f"{source.name}_padded_for_{convolution.name}"
    read = ir.Node(
        "",
        "DequantizeLinear",
        [padded.outputs[0], *dequantize.inputs[1:]],
        dict(dequantize.attributes),
        name=f"{dequantize.name}_{convolution.name}",
        metadata_props=metadata,
    )
    read.outputs[0].name = f"{source.name}_for_{convolution.name}"
    graph.insert_before(convolution, [padded, read])
    convolution.replace_input_with(0, read.outputs[0])


def pad_weights(graph: ir.Graph, convolution: ir.Node) -> None:
    """Let the convolution read its weights with channels of nought behind them."""
    import onnx_ir as ir

    weight = constant_dequantize(convolution.inputs[1])
    assert weight is not None
    stored = weight.inputs[0]
    assert stored is not None
    assert stored.const_value is not None
    array = stored.const_value.numpy()
    widths = [(0, 0)] * array.ndim
    widths[1] = (0, CHANNELS - array.shape[1])
    integers = stored_value(graph, f"{stored.name}_{CHANNELS}_channels", np.pad(array, widths))
    read = ir.Node(
        "",
        "DequantizeLinear",
        [integers, *weight.inputs[1:]],
        dict(weight.attributes),
        name=f"{weight.name}_{CHANNELS}_channels",
        metadata_props=dict(weight.metadata_props),
    )
    read.outputs[0].name = f"{integers.name}_for_{convolution.name}"
    graph.insert_before(convolution, read)
    convolution.replace_input_with(1, read.outputs[0])
