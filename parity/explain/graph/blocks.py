"""Weights in four or eight bits with a scale for each block of a row (MatMulNBits), decoded by operators that are put in.

In: a node, what its graph stores. Out: the float product that it stands for, or None. The rule: as in ONNX Runtime's
description of the operator: of a byte the lower bits come first, and without zero points the middle of the range is nought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parity.explain.graph.decoding import CONTRIB, Stored, plain

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
MOST_INPUTS = 4
"""A, B, scales, zero points; what else there may be (an order of rows, a bias) is not read here."""


def product_of_blocks(tensors: Stored, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """MatMulNBits as DequantizeLinear, Reshape, Transpose and MatMul."""
    from onnx import helper

    told = {a.name: a.i for a in node.attribute}
    bits, size, rows, columns = (told.get(name, 0) for name in ("bits", "block_size", "N", "K"))
    given = [tensors.arrays.get(name) for name in node.input[1:]]
    if bits not in (4, 8) or any(array is None for array in given) or len([n for n in node.input if n]) > MOST_INPUTS:
        return None
    packed, scales, *zeros = (array for array in given if array is not None)
    blocks = -(-columns // size)
    if (
        packed.dtype != np.uint8
        or packed.size * 8 != rows * blocks * size * bits
        or (zeros and zeros[0].dtype != np.uint8)
    ):
        return None
    name = node.output[0]
    middle = np.full(rows * blocks, 1 << (bits - 1), np.uint8)
    zero = unpacked(zeros[0].reshape(rows, -1), bits)[:, :blocks].ravel() if zeros else middle
    parts = {
        "whole": unpacked(packed.reshape(rows * blocks, -1), bits), "scale": scales.ravel(), "zero": zero,
        "shape": np.array([rows, blocks * size]), "least": np.array([0]), "most": np.array([columns]), "axis": np.array([1]),
    }  # fmt: skip
    stored = {part: tensors.store(f"{name}__{part}", array) for part, array in parts.items()}
    steps = [f"{name}__{step}" for step in ("decoded", "rows", "cut", "turned")]
    read = [stored[part] for part in ("whole", "scale", "zero")]
    return [
        helper.make_node("DequantizeLinear", read, [steps[0]], domain=CONTRIB, axis=0),
        helper.make_node("Reshape", [steps[0], stored["shape"]], [steps[1]]),
        helper.make_node("Slice", [steps[1], *(stored[part] for part in ("least", "most", "axis"))], [steps[2]]),
        helper.make_node("Transpose", [steps[2]], [steps[3]], perm=[1, 0]),
        helper.make_node("MatMul", [node.input[0], steps[3]], [name], plain(node.name)),
    ]


def unpacked(packed: Array, bits: int) -> Array:
    """Rows of bytes as rows of numbers."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
