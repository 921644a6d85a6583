"""A candidate that others quantized: its layers back in float, and whether the error goes with that.

In: a `Case` with a candidate's graph, its integer layers in float operators. Out: what that showed, or None. The rule: it
is quantization only where the weights are the source's as far as their integers can say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from compile import percent
from parity.explain.experiment.case import Case
from parity.explain.experiment.exchange import MOST_LEFT, Exchange, saturated, share_gone
from parity.explain.experiment.stranger import integers_are_the_sources
from parity.explain.graph.gaps import facing, paired
from parity.explain.graph.points import readers
from parity.explain.graph.tensors import quantizer_ranges
from parity.explain.graph.weights import weights_of, with_arrays

if TYPE_CHECKING:
    import onnx

Bounds = Literal["kept", "at 0", "none"]
ROUNDING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
MOVING = frozenset(
    {
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that take integers as they take floats, and give the same numbers at other places."""
FAR = float(np.finfo(np.float32).max)


def quantizers(case: Case) -> Exchange | None:
    """A candidate that was quantized elsewhere, with its activations left in float and its weights as the source has them."""
    assert case.found is not None
    calibrated = dict(quantizer_ranges(case.found))
    ours, theirs = weights_of(case.exact), weights_of(case.found)
    rounds = any(node.op_type in ROUNDING for node in case.found.graph.node)
    if not (rounds or any(weight.is_integer for weight in theirs.values())) or (
        calibrated
        and calibrated == dict(quantizer_ranges(case.fresh))  # every int8 artifact answers nearer to float so
    ):
        return None
    if not integers_are_the_sources(case):
        return None
    twins = {key: twin for key, twin in paired(ours, theirs).items() if theirs[key].is_integer}
    unrounded = {key: facing(ours[twin], theirs[key], twin, key).array for key, twin in twins.items()}
    alike = {key: array for key, array in unrounded.items() if array.shape == theirs[key].array.shape}
    attempts = (with_arrays(unquantized(case.found, bounds), alike) for bounds in get_args(Bounds))
    gone = max(share_gone(case, case.exact, attempt, None) for attempt in attempts)
    if gone <= MOST_LEFT:
        return None
    sentence = (
        f"the artifact was quantized by other means than here{saturated(case, case.found)}; with its layers back in "
    )
    return Exchange(
        "quantization", f"{sentence}float {percent.whole(gone)} of the error is gone", "quantize it here", []
    )


def unquantized(model: onnx.ModelProto, bounds: Bounds) -> onnx.ModelProto:
    """The same graph in which quantizers of activations only cut off, and round no more; weights stay as they decode.

    `bounds`: where they cut off; at a least value of 0 alone, which often stands for a Relu; or not even there, as behind a SiLU,
    whose few negative numbers a range may leave out.
    """
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    reading, ranges = readers(model), dict(quantizer_ranges(model))
    opened_up: set[str] = set()
    untouched: dict[str, str] = {}
    for number, node in enumerate(copy.graph.node):
        if node.op_type == "DequantizeLinear" and node.input[0] in opened_up:
            _become(node, "Identity", [node.input[0]])
        if node.op_type == "DynamicQuantizeLinear":
            untouched[node.output[0]] = node.input[0]
        if node.op_type == "DequantizeLinear" and node.input[0] in untouched:
            _become(node, "Identity", [untouched[node.input[0]]])
        if node.op_type != "QuantizeLinear" or node.input[0] not in ranges:
            continue
        if decoded := _decoded(node.output[0], reading):
            ends = [f"end_{number}_{i}" for i in range(2)]
            low, high = ranges[node.input[0]]
            if bounds != "kept":
                low, high = (0.0 if low >= 0 and bounds == "at 0" else -FAR, FAR)
            copy.graph.initializer.extend(
                numpy_helper.from_array(np.array(end, np.float32), name)
                for end, name in zip((low, high), ends, strict=True)
            )
            _become(node, "Clip", [node.input[0], *ends])
            opened_up.update(decoded)
    del copy.graph.value_info[:]  # what was integers there is floats now
    return copy


def _decoded(name: str, reading: Mapping[str, Sequence[onnx.NodeProto]]) -> list[str] | None:
    """A tensor of integers as decoders read it, behind operators that only move it; None where anything else reads it."""
    found: list[str] = []
    for node in reading.get(name, ()):
        if node.input[0] != name or node.op_type not in MOVING | {"DequantizeLinear"}:
            return None
        moved = [[name]] if node.op_type == "DequantizeLinear" else [_decoded(out, reading) for out in node.output]
        for one in moved:
            if one is None:
                return None
            found.extend(one)
    return found


def _become(node: onnx.NodeProto, op: str, inputs: Sequence[str]) -> None:
    node.op_type = op
    node.input[:] = inputs
    del node.attribute[:]
