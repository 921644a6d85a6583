"""Operators that read and give integers with stored scales (QLinearConv, QGemm, …) as float ones between quantizers.

In: a node, what its graph stores. Out: the nodes that stand for it, or None. The rule: what is rounded stays rounded, by the
same scales at the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.explain.graph.decoding import Stored, plain

if TYPE_CHECKING:
    import onnx

Place = tuple[int, int, int]
"""Where an operand stands among a node's inputs, its scale, its zero point."""


@dataclass(frozen=True, slots=True)
class Kind:
    """An operator: its float twin, its operands, where the result's scale stands (None: a float), and a bias."""

    twin: str
    operands: tuple[Place, ...]
    result: int | None
    bias: int | None = None


PAIR, LONE = ((0, 1, 2), (3, 4, 5)), ((0, 1, 2),)
KINDS = {
    "QLinearConv": Kind("Conv", PAIR, 6, bias=8),
    "QLinearMatMul": Kind("MatMul", PAIR, 6),
    "QGemm": Kind("Gemm", PAIR, 7, bias=6),
    "MatMulIntegerToFloat": Kind("MatMul", ((0, 2, 4), (1, 3, 5)), None, bias=6),
    "QLinearAdd": Kind("Add", PAIR, 6),
    "QLinearMul": Kind("Mul", PAIR, 6),
    "QLinearSigmoid": Kind("Sigmoid", LONE, 3),
    "QLinearLeakyRelu": Kind("LeakyRelu", LONE, 3),
    "QLinearAveragePool": Kind("AveragePool", LONE, 3),
    "QLinearGlobalAveragePool": Kind("GlobalAveragePool", LONE, 3),
}


def decoded_layer(tensors: Stored, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Operands decoded, the float operator, its result rounded again; None where a weight's scales fit no axis of it."""
    from onnx import helper

    kind, name = KINDS[node.op_type], node.output[0]
    if any(a.name == "channels_last" and a.i for a in node.attribute):
        return None
    decoders = [_operand(tensors, node, kind, place) for place in kind.operands]
    if any(one is None for one in decoders):
        return None
    nodes = [one for one in decoders if one is not None]
    inputs = [one.output[0] for one in nodes]
    scale = _at(node, kind.result)
    whole = f"{name}__float" if scale else name
    bias = _at(node, kind.bias)
    apart = bias and node.op_type == "MatMulIntegerToFloat"
    if bias and not apart:
        decoded = _bias(tensors, node, kind)
        if decoded is None:
            return None
        nodes.append(decoded)
        inputs.append(decoded.output[0])
    twin = helper.make_node(kind.twin, inputs, [f"{whole}__product" if apart else whole], plain(node.name))
    twin.attribute.extend(a for a in node.attribute if a.name != "channels_last")
    twin.metadata_props.extend(node.metadata_props)
    nodes.append(twin)
    if apart:
        nodes.append(helper.make_node("Add", [twin.output[0], bias], [whole]))
    if scale:
        assert kind.result is not None
        nodes.append(helper.make_node("QuantizeLinear", [whole, scale, node.input[kind.result + 1]], [name]))
    return nodes


def _at(node: onnx.NodeProto, slot: int | None) -> str:
    """The name of an input; nothing where there is none."""
    return node.input[slot] if slot is not None and len(node.input) > slot else ""


def _operand(tensors: Stored, node: onnx.NodeProto, kind: Kind, place: Place) -> onnx.NodeProto | None:
    """An operand decoded: weights channel by channel, an activation by its one scale."""
    from onnx import helper

    slot, scale, zero = place
    steps = tensors.arrays.get(node.input[scale])
    if node.input[slot] in tensors.arrays and steps is not None:
        return tensors.decoded(node, slot, steps.ravel(), tensors.zero(node, zero), _channel(tensors, node, kind, slot))
    given = [name for name in (node.input[slot], node.input[scale], _at(node, zero)) if name]
    return helper.make_node("DequantizeLinear", given, [f"{node.output[0]}__{slot}__decoded"])


def _channel(tensors: Stored, node: onnx.NodeProto, kind: Kind, slot: int) -> int:
    """The axis of the weights along which there may be a scale for each channel."""
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if kind.twin == "Conv" or turned else int(tensors.arrays[node.input[slot]].ndim) - 1


def _bias(tensors: Stored, node: onnx.NodeProto, kind: Kind) -> onnx.NodeProto | None:
    """A bias in integers: its steps are the products of the operands' steps."""
    one, other = (tensors.arrays.get(node.input[scale]) for _, scale, _ in kind.operands)
    if kind.bias is None or one is None or other is None:
        return None
    return tensors.decoded(node, kind.bias, one.ravel() * other.ravel(), None, 0)
