"""What a graph stores, and how integers among it are decoded by operators that are put in.

In: an ONNX graph. Out: its stored arrays, DequantizeLinear nodes, and the tensors that these read beside. The rule: what is
decoded stays stored as it was, so that its step is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

CONTRIB = "com.microsoft"


@dataclass
class Stored:
    """The arrays that a graph stores, and those that are to be added to it."""

    model: onnx.ModelProto
    added: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.arrays = dict(_stored(self.model))
        for node in self.model.graph.node:  # exporters write one of two equal tensors so
            if node.op_type == "Identity" and node.input[0] in self.arrays:
                self.arrays[node.output[0]] = self.arrays[node.input[0]]

    def decoded(
        self, node: onnx.NodeProto, slot: int, scale: NDArray[Any], zero: NDArray[Any] | None, axis: int
    ) -> onnx.NodeProto | None:
        """The weights in float; None where they are not stored, or have scales that no axis of theirs has as many of."""
        from onnx import helper

        weights = self.arrays.get(node.input[slot])
        many = scale.size > 1
        if weights is None or (many and (axis >= weights.ndim or weights.shape[axis] != scale.size)):
            return None
        name = f"{node.output[0]}__{slot}"
        offset = np.zeros(scale.shape, weights.dtype) if zero is None else np.broadcast_to(zero.ravel(), scale.shape)
        ends = [
            self.store(f"{name}__{what}", array if many else array.reshape(()))
            for what, array in (("scale", scale), ("zero", offset))
        ]
        decoder = helper.make_node("DequantizeLinear", [node.input[slot], *ends], [f"{name}__decoded"])
        if many:
            decoder.domain = CONTRIB  # the standard's own takes an axis from opset 13 on only
            decoder.attribute.append(helper.make_attribute("axis", axis))
        return decoder

    def zero(self, node: onnx.NodeProto, slot: int) -> NDArray[Any] | None:
        return self.arrays.get(node.input[slot]) if len(node.input) > slot else None

    def store(self, name: str, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.added.append(numpy_helper.from_array(np.array(array), name))
        return name


def _stored(model: onnx.ModelProto) -> Iterator[tuple[str, NDArray[Any]]]:
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)


SUFFIX = re.compile(r"_quant$|_Q[48]$")


def plain(name: str) -> str:
    """A node's name before it was quantized, as ONNX Runtime's tools make one from the other."""
    return SUFFIX.sub("", name)
