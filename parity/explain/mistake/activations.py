"""Activations that are taken for one another, each as nodes that any version of the operators has.

In: a name, a tensor. Out: nodes that compute it. The rule: a name here is the function itself, not how somebody rounds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

Nodes = list["onnx.NodeProto"]
CONTRIB = "com.microsoft"


def curved(function: str, given: str, made: str) -> Nodes:
    """The nodes that compute `made` as a function of `given`."""
    return CURVES[function](given, made)


def _contrib(op: str, **attributes: Any) -> Callable[[str, str], Nodes]:
    def nodes(given: str, made: str) -> Nodes:
        from onnx import helper

        return [helper.make_node(op, [given], [made], domain=CONTRIB, **attributes)]

    return nodes


def _gated(*gates: tuple[str, dict[str, Any]]) -> Callable[[str, str], Nodes]:
    """x times what these operators in turn make of x."""

    def nodes(given: str, made: str) -> Nodes:
        from onnx import helper

        names = [given, *(f"{made}__gate_{place}" for place in range(len(gates)))]
        steps = [helper.make_node(op, [names[i]], [names[i + 1]], **told) for i, (op, told) in enumerate(gates)]
        return [*steps, helper.make_node("Mul", [given, names[-1]], [made])]

    return nodes


def _relu(given: str, made: str) -> Nodes:
    from onnx import helper

    return [helper.make_node("Relu", [given], [made])]


def _relu_6(given: str, made: str) -> Nodes:
    from onnx import helper, numpy_helper

    six = numpy_helper.from_array(np.array(6, np.float32))
    return [
        helper.make_node("Constant", [], [f"{made}__six"], value=six),
        helper.make_node("Relu", [given], [f"{made}__positive"]),
        helper.make_node("Min", [f"{made}__positive", f"{made}__six"], [made]),
    ]


CURVES: Mapping[str, Callable[[str, str], Nodes]] = {
    "GELU": _contrib("Gelu"),
    "GELU by tanh": _contrib("FastGelu"),
    "QuickGelu": _contrib("QuickGelu", alpha=1.702),
    "SiLU": _contrib("QuickGelu", alpha=1.0),
    "HardSwish": _gated(("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5})),
    "Mish": _gated(("Softplus", {}), ("Tanh", {})),
    "ReLU": _relu,
    "ReLU6": _relu_6,
}
FORMS = frozenset({"GELU", "GELU by tanh", "QuickGelu"})
"""Forms of one function: what stands for another among them rounds otherwise, and is no other function."""
