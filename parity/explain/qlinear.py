"""Operators that take integers and give integers (QLinearConv and its like), as the float layers that they stand for.

In: a node of a graph in ONNX Runtime's QOperator form. Out: nodes that answer as it does up to float32's rounding: a
DequantizeLinear before and after the weights, the float operator, a QuantizeLinear behind it. Source: the operators'
definitions in ONNX and in ONNX Runtime's contrib operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

Parts = tuple[int, int, int]
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Form:
    """Where an operator keeps what: the slots of number, scale and zero point of its input and its weights, of its output's
    scale and zero point, of its bias; the weights' axis with a scale for each channel."""

    twin: str
    data: Parts
    weights: Parts
    out: tuple[int, int] | None
    bias: int | None
    channel: int


FORMS: Mapping[str, Form] = {
    "QLinearConv": Form("Conv", (0, 1, 2), (3, 4, 5), (6, 7), 8, 0),
    "QLinearMatMul": Form("MatMul", (0, 1, 2), (3, 4, 5), (6, 7), None, 1),
    "QGemm": Form("Gemm", (0, 1, 2), (3, 4, 5), (7, 8), 6, 1),
    "MatMulIntegerToFloat": Form("MatMul", (0, 2, 4), (1, 3, 5), None, 6, 1),
}


class Graph(Protocol):
    """What a rewriting looks up and stores."""

    stored: dict[str, Array]

    def decoded(
        self, node: onnx.NodeProto, slot: int, scale: Array, zero: Array | None, axis: int
    ) -> onnx.NodeProto | None: ...

    def store(self, name: str, array: Array) -> str: ...


def rewritten(graph: Graph, node: onnx.NodeProto, plain_name: str) -> list[onnx.NodeProto] | None:
    """The node as float operators; None where its weights or their scale are not stored."""
    from onnx import helper

    form, name = FORMS[node.op_type], node.output[0]
    slot, scale_slot, zero_slot = form.weights
    scale = graph.stored.get(node.input[scale_slot])
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    zero = graph.stored.get(given(node, zero_slot))
    decoded = None if scale is None else graph.decoded(node, slot, scale.ravel(), zero, 0 if turned else form.channel)
    if scale is None or decoded is None:
        return None
    inputs, summed = [f"{name}__x", decoded.output[0]], None
    bias = given(node, form.bias)
    if bias and form.out is None:
        summed = bias
    elif bias:
        step = graph.stored.get(node.input[form.data[1]])
        integers = graph.stored.get(bias)
        if step is None or integers is None:
            return None
        inputs.append(graph.store(f"{name}__bias", (integers * (step * scale).ravel()).astype(np.float32)))
    ends = [given(node, one) for one in form.out or ()]
    behind = bool(ends and ends[0]) or summed is not None
    twin = helper.make_node(form.twin, inputs, [f"{name}__float" if behind else name], plain_name)
    twin.attribute.extend(node.attribute)
    twin.metadata_props.extend(node.metadata_props)
    data = [one for one in (given(node, part) for part in form.data) if one]
    nodes = [helper.make_node("DequantizeLinear", data, [f"{name}__x"]), decoded, twin]
    if summed is not None:
        nodes.append(helper.make_node("Add", [twin.output[0], summed], [name]))
    elif behind:
        nodes.append(helper.make_node("QuantizeLinear", [twin.output[0], *[one for one in ends if one]], [name]))
    return nodes


def given(node: onnx.NodeProto, slot: int | None) -> str:
    """The name in a slot; empty where nothing is there."""
    return "" if slot is None or slot >= len(node.input) else str(node.input[slot])
