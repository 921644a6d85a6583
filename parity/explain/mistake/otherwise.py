"""How one operator may be computed otherwise: what exporters, kernels and people are known to mistake it for.

In: a node. Out: for each way its words, the kind of cause that it would be, and the nodes that compute it so. The rule: an
operator's kind and settings tell its ways; nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import isclose, pi, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.explain.mistake.activations import CURVES, FORMS, Nodes, curved
from parity.explain.mistake.hypotheses import Kind

if TYPE_CHECKING:
    import onnx

EPSILONS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-12)
SLOPES = (0.01, 0.1, 0.2, 0.3)
Told = dict[str, Any]
"""A node's attributes by name."""


@dataclass(frozen=True, slots=True)
class Otherwise:
    """How one operator may be computed otherwise: in words, as which kind of cause, by which nodes."""

    said: str
    kind: Kind
    nodes: Callable[[], Nodes]
    of: str = ""
    """What it is a way of, where that is not the operator alone: a function written out in several."""


def ways(node: onnx.NodeProto) -> Iterator[Otherwise]:
    """Everything that one operator is known to be mistaken for."""
    import onnx

    told = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    known = WAYS.get(node.op_type)
    if known is not None:
        yield from known(node, told)
    if "pads" in told:
        yield from (_with(node, said, pads=pads) for said, pads in _pads(list(told["pads"])))


def _softmax(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    axes = (axis for axis in (-1, -2, -3, -4) if axis != told.get("axis", -1))
    return (_with(node, f"along axis {axis}", axis=axis) for axis in axes)


def _gelu(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    other = "tanh" if told.get("approximate", b"none") == b"none" else "none"
    yield _with(node, f"with approximate={other}", "fusion", approximate=other)
    yield Otherwise("by a sigmoid (QuickGelu)", "fusion", _as("QuickGelu", node))
    yield from (Otherwise(f"as {one}", "export", _as(one, node)) for one in CURVES if one not in FORMS)


def _erf(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    yield Otherwise("by tanh (the approximate GELU)", "fusion", partial(_by_tanh, node))


def _rectified(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    yield Otherwise("with slope 0.01", "export", partial(_one, node, "LeakyRelu", alpha=0.01))
    yield Otherwise("as ReLU6", "export", _as("ReLU6", node))
    yield Otherwise("not at all (left out)", "export", partial(_one, node, "Identity"))


def _swish(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    own = "HardSwish" if node.op_type == "HardSwish" else "SiLU"
    yield from (Otherwise(f"as {one}", "export", _as(one, node)) for one in CURVES if one != own)


def _hard(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    slope = 0.2 if isclose(told.get("alpha", 0.2), 1 / 6, rel_tol=1e-3) else 1 / 6
    yield _with(node, f"with slope {slope:.4g}", alpha=slope)
    yield Otherwise("as a sigmoid", "export", partial(_one, node, "Sigmoid"))


def _normalization(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    others = (one for one in EPSILONS if not isclose(one, told.get("epsilon", 1e-5), rel_tol=1e-3))
    return (_with(node, f"with epsilon {one:g}", epsilon=one) for one in others)


def _average(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    counted = told.get("count_include_pad", 0)
    said = "with its padding left out of the mean" if counted else "with its padding in the mean"
    yield _with(node, said, count_include_pad=int(not counted))


def _slope(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    return (_with(node, f"with slope {one:g}", alpha=one) for one in SLOPES)


def _clip(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    if len(node.input) > 2:
        yield Otherwise("without its upper bound", "export", partial(_unbounded, node))


def _pad(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    return (_with(node, f"by {mode}", mode=mode) for mode in ("constant", "reflect", "edge"))


def _conv(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    if any(told.get("pads", ())):
        for mode in ("reflect", "edge"):
            yield Otherwise(f"with its padding by {mode}", "export", partial(_padded, node, told["pads"], mode))


def _padded(node: onnx.NodeProto, pads: Sequence[int], mode: str) -> Nodes:
    """The operator without padding of its own behind a Pad over all axes."""
    from onnx import helper, numpy_helper

    half, name = len(pads) // 2, f"{node.output[0]}__padded"
    widths = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    [copy] = _set(node, {"pads": [0] * len(pads)})
    copy.input[0] = name
    return [
        helper.make_node("Constant", [], [f"{name}__widths"], value=numpy_helper.from_array(widths)),
        helper.make_node("Pad", [node.input[0], f"{name}__widths"], [name], mode=mode),
        copy,
    ]


def _resize(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    for mode, place in product(("nearest", "linear", "cubic"), ("half_pixel", "align_corners", "asymmetric")):
        settings = {"mode": mode, "coordinate_transformation_mode": place, "nearest_mode": "floor"}
        yield _with(node, f"with mode {mode}, coordinates {place}", "export", **settings)


def _gru(node: onnx.NodeProto, told: Told) -> Iterator[Otherwise]:
    before = int(not told.get("linear_before_reset", 0))
    yield _with(node, f"with linear_before_reset {before}", linear_before_reset=before)


WAYS: dict[str, Callable[[Any, Told], Iterator[Otherwise]]] = {
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Gelu": _gelu,
    "Erf": _erf,
    "Relu": _rectified,
    "HardSwish": _swish,
    "Swish": _swish,
    "HardSigmoid": _hard,
    "LayerNormalization": _normalization,
    "BatchNormalization": _normalization,
    "InstanceNormalization": _normalization,
    "GroupNormalization": _normalization,
    "RMSNormalization": _normalization,
    "SimplifiedLayerNormalization": _normalization,
    "AveragePool": _average,
    "LeakyRelu": _slope,
    "Clip": _clip,
    "Conv": _conv,
    "Pad": _pad,
    "Resize": _resize,
    "GRU": _gru,
}


def _pads(pads: list[int]) -> Iterator[tuple[str, list[int]]]:
    """The same padding at other sides of every axis; first stands what is before each, then what is after."""
    half = len(pads) // 2
    before, after = pads[:half], pads[half:]
    none, both = [0] * half, [one + other for one, other in zip(before, after, strict=True)]
    ways = {
        "with its padding on the other sides": [*after, *before],
        "with all its padding before (causal)": [*both, *none],
        "with all its padding after (as SAME pads an even size)": [*none, *both],
    }
    seen = [pads]
    for said, other in ways.items():
        if other not in seen:
            seen.append(other)
            yield said, other


def _with(node: onnx.NodeProto, said: str, kind: Kind = "export", **attributes: Any) -> Otherwise:
    return Otherwise(said, kind, partial(_set, node, attributes))


def _set(node: onnx.NodeProto, attributes: dict[str, Any]) -> Nodes:
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    copy.attribute.extend(a for a in node.attribute if a.name not in attributes)
    copy.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in attributes.items())
    return [copy]


def _unbounded(node: onnx.NodeProto) -> Nodes:
    [copy] = _set(node, {})
    copy.input[2] = ""
    return [copy]


def _one(node: onnx.NodeProto, op: str, **attributes: Any) -> Nodes:
    """Another operator in the place of one that reads a single tensor."""
    from onnx import helper

    return [helper.make_node(op, [node.input[0]], [node.output[0]], **attributes)]


def _as(function: str, node: onnx.NodeProto) -> Callable[[], Nodes]:
    return partial(curved, function, node.input[0], node.output[0])


def _by_tanh(node: onnx.NodeProto) -> Nodes:
    """erf(z / sqrt 2) as tanh(sqrt(2 / pi) (z + 0.044715 z^3)): Hendrycks and Gimpel, Gaussian Error Linear Units."""
    from onnx import helper, numpy_helper

    given, made = node.input[0], node.output[0]
    linear, cubic = 2 / sqrt(pi), 4 * 0.044715 / sqrt(pi)
    factors = (("linear", linear), ("cubic", cubic))
    constants = [
        helper.make_node("Constant", [], [f"{made}__{n}"], value=numpy_helper.from_array(np.array(v, np.float32)))
        for n, v in factors
    ]
    return [
        *constants,
        helper.make_node("Mul", [given, given], [f"{made}__square"]),
        helper.make_node("Mul", [f"{made}__square", f"{made}__cubic"], [f"{made}__bent"]),
        helper.make_node("Add", [f"{made}__bent", f"{made}__linear"], [f"{made}__factor"]),
        helper.make_node("Mul", [f"{made}__factor", given], [f"{made}__inner"]),
        helper.make_node("Tanh", [f"{made}__inner"], [made]),
    ]
