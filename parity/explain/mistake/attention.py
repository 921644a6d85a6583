"""Attention whose scores are scaled otherwise, or whose mask is ignored: told from the answers alone.

In: a graph. Out: for the product that gives the scores, and for what masks them, its ways (`Otherwise`). The rule: what stands
between a product and the softmax that it reaches is a scale where it is one stored number, else a mask or a bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from math import isclose, sqrt
from typing import TYPE_CHECKING

import numpy as np

from parity.explain.graph.decoding import Stored
from parity.explain.mistake.activations import Nodes
from parity.explain.mistake.otherwise import Otherwise

if TYPE_CHECKING:
    import onnx

    from parity.explain.graph.weights import Array

PASSING = frozenset({"Reshape", "Transpose", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Unsqueeze"})
JOINING = frozenset({"Mul", "Div", "Add", "Where"})
DEEPEST = 8
Path = list[tuple[int, int]]
"""From a softmax up to a product: the place of each operator, and the slot that the scores come by."""


def attentions(model: onnx.ModelProto) -> Iterator[tuple[int, Otherwise]]:
    """The ways of every attention in a graph, each with the place of the node that is another then."""
    known, sizes = _Graph(model), _inner_sizes(model)
    for node in model.graph.node:
        way = known.up(node.input[0]) if node.op_type == "Softmax" else None
        if way is None:
            continue
        product = model.graph.node[way[-1][0]]
        scale = known.scale(way)
        root = sizes.get(product.input[0], 0.0)
        usual = scale if not isclose(scale, 1.0, rel_tol=1e-6) else 1 / sqrt(root) if root else 1.0
        for said, factor in (
            ("without the scale of its scores", 1 / usual),
            ("with the scale of its scores twice", usual),
        ):
            if not isclose(factor, 1.0, rel_tol=1e-6):
                told = f"{said} ({usual:.4g})"
                yield way[-1][0], Otherwise(told, "export", partial(_times, product, factor), "attention")
        for place, slot in way[:-1]:
            masks = model.graph.node[place]
            if masks.op_type == "Where" or (masks.op_type == "Add" and not known.is_number(masks.input[1 - slot])):
                said = (
                    "without its mask"
                    if masks.op_type == "Where"
                    else "without what is added to its scores (a mask, a bias)"
                )
                yield place, Otherwise(said, "export", partial(_only, masks, slot), "attention")


def _times(node: onnx.NodeProto, factor: float) -> Nodes:
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    made = node.output[0]
    copy.output[0], name = f"{made}__scores", f"{made}__factor"
    number = numpy_helper.from_array(np.array(factor, np.float32))
    return [
        copy,
        helper.make_node("Constant", [], [name], value=number),
        helper.make_node("Mul", [copy.output[0], name], [made]),
    ]


def _only(node: onnx.NodeProto, slot: int) -> Nodes:
    from onnx import helper

    return [helper.make_node("Identity", [node.input[slot]], [node.output[0]])]


def _inner_sizes(model: onnx.ModelProto) -> Mapping[str, float]:
    """The last size of each tensor, where the graph tells it."""
    import onnx

    try:
        told = onnx.shape_inference.infer_shapes(model).graph
    except (ValueError, RuntimeError):  # onnx raises its own kinds of them; operators of other domains may stop it
        return {}
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*told.value_info, *told.input)}
    return {name: float(dims[-1].dim_value) for name, dims in shapes.items() if dims and dims[-1].dim_value > 1}


class _Graph:
    """Who gives a tensor, and the numbers that are stored."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.producers = {name: place for place, node in enumerate(self.nodes) for name in node.output}
        self.arrays: Mapping[str, Array] = Stored(model).arrays

    def is_number(self, name: str) -> bool:
        return name in self.arrays and self.arrays[name].size == 1

    def up(self, name: str, depth: int = DEEPEST) -> Path | None:
        """The way from a tensor up to the product that it comes from; None where that is none of two computed tensors."""
        place = self.producers.get(name)
        if place is None or not depth:
            return None
        node = self.nodes[place]
        if node.op_type == "MatMul":
            return [(place, 0)] if not set(node.input) & self.arrays.keys() else None
        slots = (0,) if node.op_type in PASSING else (1, 2) if node.op_type == "Where" else (0, 1)
        for slot in slots if node.op_type in PASSING | JOINING else ():
            if (further := self.up(node.input[slot], depth - 1)) is not None:
                return [(place, slot), *further]
        return None

    def scale(self, way: Path) -> float:
        """What the scores are multiplied by: behind their product, and before it on either side."""
        product = self.nodes[way[-1][0]]
        found = self._factor([(self.nodes[place], slot) for place, slot in way[:-1]])
        for name in product.input:
            place = self.producers.get(name)
            for _ in range(DEEPEST):
                if place is None or self.nodes[place].op_type not in PASSING | {"Mul", "Div"}:
                    break
                node = self.nodes[place]
                slot = 1 if self.is_number(node.input[0]) else 0
                found *= self._factor([(node, slot)])
                place = self.producers.get(node.input[slot])
        return found

    def _factor(self, steps: list[tuple[onnx.NodeProto, int]]) -> float:
        found = 1.0
        for node, slot in steps:
            if node.op_type in ("Mul", "Div") and self.is_number(node.input[1 - slot]):
                number = float(self.arrays[node.input[1 - slot]].ravel()[0])
                if number > 0:
                    found *= number if node.op_type == "Mul" else 1 / number
        return found
