"""A graph whose layers multiply integers, written as the float layers that they stand for.

In: an ONNX graph. Out: a graph that answers as it does up to float32's rounding, in which ConvInteger, MatMulInteger, the
QLinear operators and ONNX Runtime's dynamic ones are Conv, MatMul and LSTM behind a DequantizeLinear, so that their weights
can be compared and exchanged. The rule: an operator whose scales the graph does not store stays as it is. An LSTM's own
rounding of what it reads is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from parity.explain.graph.blocks import product_of_blocks
from parity.explain.graph.decoding import CONTRIB, Stored, plain
from parity.explain.graph.points import readers
from parity.explain.graph.qlinear import KINDS, decoded_layer, joined

if TYPE_CHECKING:
    import onnx

FLOAT_TWINS = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
CHANNEL = {"ConvInteger": 0, "MatMulInteger": 1}
"""The axis of the weights along which there may be a scale for each channel."""
ON_THE_WAY = frozenset({"Add", "Cast", "Reshape"})
"""What may stand between an integer product and the scale that it is multiplied by: a bias in integers among it."""
HIDING = frozenset({"QAttention", "QEmbedLayerNormalization", "MatMulNBits", "GatherBlockQuantized"})
"""Operators of ONNX Runtime's that hold weights in integers; what is left of them was not decoded."""
INT32 = 6
"""ONNX's number for it."""


def floated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in float operators; the graph itself where it has no integer layers that could be read."""
    import onnx

    wanted = {*FLOAT_TWINS, *KINDS, "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "QLinearConcat", "MatMulNBits"}
    if not any(node.op_type in wanted for node in model.graph.node):
        return model
    known = _Graph(model)
    nodes = [one for node in model.graph.node for one in known.rewritten(node)]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(known.tensors.added)
    if not any(one.domain == CONTRIB for one in copy.opset_import):
        copy.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return copy


def has_integer_layers(model: onnx.ModelProto) -> bool:
    """Whether operators are left that multiply integers: then their weights are not known."""
    from compile.coverage import INTEGER_LAYERS

    return any(node.op_type in INTEGER_LAYERS or node.op_type in HIDING for node in model.graph.node)


@dataclass
class _Graph:
    """What a rewriting looks up, and the tensors that it adds."""

    model: onnx.ModelProto

    def __post_init__(self) -> None:
        self.producers = {name: node for node in self.model.graph.node for name in node.output}
        self.reading = readers(self.model)
        self.tensors = Stored(self.model)

    def rewritten(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        found: list[onnx.NodeProto] | None = None
        if node.op_type in FLOAT_TWINS:
            found = self._product(node)
        elif node.op_type in KINDS:
            found = decoded_layer(self.tensors, node)
        elif node.op_type == "QLinearConcat":
            found = joined(node)
        elif node.op_type == "MatMulNBits":
            found = product_of_blocks(self.tensors, node)
        elif node.op_type == "DynamicQuantizeMatMul":
            found = self._whole_product(node)
        elif node.op_type == "DynamicQuantizeLSTM":
            found = self._lstm(node)
        return [node] if found is None else found

    def _product(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """Decode both sides, multiply in float, and round to the integers that the operators behind it expect."""
        from onnx import helper

        source, weights = self.producers.get(node.input[0]), self.tensors.arrays.get(node.input[1])
        if source is None or source.op_type != "DynamicQuantizeLinear" or weights is None:
            return None
        scale = self._weight_scale(node.output[0], source.output[1])
        if scale is None:
            return None
        name, axis = node.output[0], CHANNEL[node.op_type]
        decoded = self.tensors.decoded(node, 1, scale, self.tensors.zero(node, 3), axis)
        if decoded is None:
            return None
        shape = [-1, *[1] * (weights.ndim - 2)] if axis == 0 and scale.size > 1 else [-1] if scale.size > 1 else []
        step = self.tensors.store(f"{name}__step", scale.reshape(shape))
        twin = helper.make_node(
            FLOAT_TWINS[node.op_type], [f"{name}__x", decoded.output[0]], [f"{name}__float"], plain(node.name)
        )
        twin.attribute.extend(node.attribute)
        twin.metadata_props.extend(node.metadata_props)
        return [
            helper.make_node("DequantizeLinear", list(source.output), [f"{name}__x"]),
            decoded,
            twin,
            helper.make_node("Mul", [source.output[1], step], [f"{name}__steps"]),
            helper.make_node("Div", [f"{name}__float", f"{name}__steps"], [f"{name}__exact"]),
            helper.make_node("Round", [f"{name}__exact"], [f"{name}__whole"]),
            helper.make_node("Cast", [f"{name}__whole"], [name], to=INT32),
        ]

    def _weight_scale(self, name: str, of_input: str) -> NDArray[Any] | None:
        """What the integers are multiplied by further on, without the input's own scale."""
        for _ in range(len(ON_THE_WAY) + 1):
            following = self.reading.get(name, [])
            if len(following) != 1:
                return None
            [node] = following
            if node.op_type == "Mul":
                other = node.input[1] if node.input[0] == name else node.input[0]
                factors = list(self._factors(other))
                scales = [self.tensors.arrays[one] for one in factors if one in self.tensors.arrays]
                return scales[0].ravel() if len(scales) == 1 and of_input in factors and len(factors) == 2 else None
            if node.op_type not in ON_THE_WAY:
                return None
            name = node.output[0]
        return None

    def _factors(self, name: str) -> Iterator[str]:
        node = self.producers.get(name)
        if node is not None and node.op_type == "Mul":
            yield from self._factors(node.input[0])
            yield from self._factors(node.input[1])
        elif node is not None and node.op_type in ("Reshape", "Unsqueeze", "Identity"):
            yield from self._factors(node.input[0])
        else:
            yield name

    def _whole_product(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """DynamicQuantizeMatMul: A, B, B's scale, B's zero point, bias; A is rounded and decoded on the way."""
        from onnx import helper

        scale, name = self.tensors.arrays.get(node.input[2]), node.output[0]
        decoded = None if scale is None else self.tensors.decoded(node, 1, scale.ravel(), self.tensors.zero(node, 3), 1)
        if decoded is None:
            return None
        bias = node.input[4] if len(node.input) > 4 else ""
        product = f"{name}__float" if bias else name
        parts = [f"{name}__{part}" for part in ("whole", "scale", "zero")]
        return [
            helper.make_node("DynamicQuantizeLinear", [node.input[0]], parts),
            helper.make_node("DequantizeLinear", parts, [f"{name}__x"]),
            decoded,
            helper.make_node("MatMul", [f"{name}__x", decoded.output[0]], [product], plain(node.name)),
            *([helper.make_node("Add", [product, bias], [name])] if bias else []),
        ]

    def _lstm(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """DynamicQuantizeLSTM: an LSTM's eight inputs, weights turned, then scale and zero point of both of its weights."""
        from onnx import helper

        inputs, decoders = list(node.input[:8]), []
        for slot, place in ((1, 8), (2, 10)):
            scale, weights = self.tensors.arrays.get(node.input[place]), self.tensors.arrays.get(node.input[slot])
            if scale is None or weights is None:
                return None
            of_gates = scale.ndim == 2 and len(scale) == 1  # one for each row of the only direction
            decoded = self.tensors.decoded(
                node, slot, scale.ravel(), self.tensors.zero(node, place + 1), 2 if of_gates else 0
            )
            if decoded is None:
                return None
            inputs[slot] = decoded.output[0]
            decoded.input[0] = self.tensors.store(f"{decoded.output[0]}__turned", weights.transpose(0, 2, 1))
            for attribute in decoded.attribute:
                attribute.i = (0, 2, 1)[attribute.i]
            decoders.append(decoded)
        twin = helper.make_node("LSTM", inputs, list(node.output), plain(node.name))
        twin.attribute.extend(node.attribute)
        return [*decoders, twin]
