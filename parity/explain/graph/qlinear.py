"""Operators that read and give integers with stored scales (QLinearConv, QGemm, …) as float ones between quantizers.

In: a node, what its graph stores. Out: the nodes that stand for it, or None. The rule: what is rounded stays rounded, by the
same scales at the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.explain.graph.decoding import CONTRIB, Stored, plain

if TYPE_CHECKING:
    import onnx

Place = tuple[int, int, int]
"""Where an operand stands among a node's inputs, its scale, its zero point."""


@dataclass(frozen=True, slots=True)
class Kind:
    """An operator: its float twin, its operands, where the result's scale stands (None: a float), a bias in integers."""

    twin: str
    operands: tuple[Place, ...]
    result: int | None
    bias: int | None = None
    order: tuple[int, ...] = ()
    """Which inputs the twin reads, where others than the operands are among them."""
    domain: str = ""


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
    "QLinearSoftmax": Kind("Softmax", LONE, 3),
    "QLinearWhere": Kind("Where", ((1, 2, 3), (4, 5, 6)), 7, order=(0, 1, 4)),
    "QAttention": Kind("Attention", ((0, 3, 6), (1, 4, 7)), None, order=(0, 1, 2, 5, 8), domain=CONTRIB),
}
NO_SETTINGS = frozenset({"channels_last", "opset"})
"""What tells how the integers are laid out, or the version of the twin; the twin has none of it."""


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
    made = {slot: one.output[0] for (slot, _, _), one in zip(kind.operands, nodes, strict=True)}
    inputs = [made.get(slot) or _at(node, slot) for slot in kind.order or made]
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
    outputs = [f"{whole}__product" if apart else whole, *node.output[1:]]
    twin = helper.make_node(kind.twin, inputs, outputs, plain(node.name), domain=kind.domain)
    twin.attribute.extend(a for a in node.attribute if a.name not in NO_SETTINGS)
    twin.metadata_props.extend(node.metadata_props)
    nodes.append(twin)
    if apart:
        nodes.append(helper.make_node("Add", [twin.output[0], bias], [whole]))
    if scale:
        assert kind.result is not None
        nodes.append(helper.make_node("QuantizeLinear", [whole, scale, node.input[kind.result + 1]], [name]))
    return nodes


def joined(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """QLinearConcat: the result's scale and zero point, then each tensor with its own."""
    from onnx import helper

    name = node.output[0]
    parts = [list(node.input[i : i + 3]) for i in range(2, len(node.input), 3)]
    decoders = [helper.make_node("DequantizeLinear", part, [f"{name}__{i}__decoded"]) for i, part in enumerate(parts)]
    twin = helper.make_node("Concat", [one.output[0] for one in decoders], [f"{name}__float"], plain(node.name))
    twin.attribute.extend(node.attribute)
    return [*decoders, twin, helper.make_node("QuantizeLinear", [f"{name}__float", *node.input[:2]], [name])]


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
