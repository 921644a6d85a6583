"""Activations and normalizations that an exporter wrote out in primitive operators, and how else they may be computed.

In: a graph. Out: for each node that ends such a pattern, its ways (`Otherwise`), under the name that a reader knows. The
rule: a pattern is told by its operators and its stored constants alone; what only looks like one is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import isclose, pi, sqrt
from typing import TYPE_CHECKING

import numpy as np

from parity.explain.graph.decoding import Stored
from parity.explain.graph.points import readers
from parity.explain.mistake.activations import CURVES, FORMS, Nodes, curved
from parity.explain.mistake.hypotheses import Kind
from parity.explain.mistake.otherwise import EPSILONS, Otherwise

if TYPE_CHECKING:
    import onnx

QUICK, CUBIC = 1.702, 0.044715
"""Hendrycks and Gimpel, Gaussian Error Linear Units: the factor of the sigmoid's form, and of the cube in tanh's."""
LARGEST_EPSILON = 0.1


def written_out(model: onnx.ModelProto) -> Iterator[tuple[int, Otherwise]]:
    """The ways of every pattern in a graph, each with the place of the node that ends it."""
    known = _Graph(model)
    for place, node in enumerate(model.graph.node):
        if node.op_type == "Mul" and (found := known.gated(node)) is not None:
            yield from ((place, one) for one in _otherwise(node, *found))
        if node.op_type == "Add" and (slot := known.epsilon(node)) is not None:
            yield from ((place, one) for one in _epsilons(node, slot, known.number(node.input[slot])))


def _otherwise(node: onnx.NodeProto, function: str, given: str) -> Iterator[Otherwise]:
    for other in CURVES:
        if other != function:
            kind: Kind = "fusion" if {function, other} <= FORMS else "export"
            yield Otherwise(f"as {other}", kind, partial(curved, other, given, node.output[0]), function)


def _epsilons(node: onnx.NodeProto, slot: int, now: float) -> Iterator[Otherwise]:
    for one in EPSILONS:
        if not isclose(one, now, rel_tol=1e-3):
            yield Otherwise(f"with epsilon {one:g}", "export", partial(_with_number, node, slot, one), "normalization")


def _with_number(node: onnx.NodeProto, slot: int, number: float) -> Nodes:
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[slot] = f"{node.output[0]}__number"
    value = numpy_helper.from_array(np.array(number, np.float32))
    return [helper.make_node("Constant", [], [copy.input[slot]], value=value), copy]


class _Graph:
    """What the patterns look up: who gives a tensor, who reads it, and the single numbers that are stored."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.reading = readers(model)
        self.arrays = Stored(model).arrays

    def number(self, name: str) -> float:
        """A stored number; NaN, which equals nothing, for anything else."""
        array = self.arrays.get(name)
        return float(array.ravel()[0]) if array is not None and array.size == 1 else float("nan")

    def gives(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """The node behind a tensor, where it is one of these operators."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def times(self, name: str, factor: float) -> str | None:
        """What `name` is so many times of; None where it is not."""
        node = self.gives(name, "Mul", "Div")
        for slot in (0, 1) if node is not None else ():
            assert node is not None
            number = self.number(node.input[slot])
            if node.op_type == "Div":
                number = 1 / number if slot and number else float("nan")
            if isclose(number, factor, rel_tol=1e-4):
                return node.input[1 - slot]
        return None

    def gated(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """The activation that a product ends, and what it is of: x sigmoid(x), x (1 + erf(x / sqrt 2)) / 2 and their kin."""
        for one, other in (tuple(node.input), tuple(node.input)[::-1]):
            for gate, given in ((other, one), (other, self.times(one, 0.5))):  # a half before the product
                if given is not None and (found := self._function(gate, given, halved=given != one)) is not None:
                    return found
        return self._halved_last(node)

    def _halved_last(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """The same where the half stands behind the product."""
        whole = next((b for a, b in (tuple(node.input), tuple(node.input)[::-1]) if isclose(self.number(a), 0.5)), None)
        product = None if whole is None else self.gives(whole, "Mul")
        if product is None:
            return None
        for one, other in (tuple(product.input), tuple(product.input)[::-1]):
            if (found := self._function(other, one, halved=True)) is not None:
                return found
        return None

    def _function(self, gate: str, given: str, *, halved: bool) -> tuple[str, str] | None:
        half = None if halved else self.times(gate, 0.5)
        plus = self.gives(half or gate, "Add")
        if plus is not None and (halved or half):
            bent = next((b for a, b in ((0, 1), (1, 0)) if isclose(self.number(plus.input[a]), 1.0)), None)
            inner = None if bent is None else self.gives(plus.input[bent], "Erf", "Tanh")
            return None if inner is None else self._gelu(inner, given)
        sigmoid = None if halved else self.gives(gate, "Sigmoid", "HardSigmoid")
        if sigmoid is None:
            return None
        if sigmoid.input[0] == given:
            return ("SiLU" if sigmoid.op_type == "Sigmoid" else "HardSwish"), given
        return ("QuickGelu", given) if self.times(sigmoid.input[0], QUICK) == given else None

    def _gelu(self, inner: onnx.NodeProto, given: str) -> tuple[str, str] | None:
        if inner.op_type == "Erf":
            return ("GELU", given) if self.times(inner.input[0], sqrt(0.5)) == given else None
        summed = self.times(inner.input[0], sqrt(2 / pi))
        plus = None if summed is None else self.gives(summed, "Add")
        cubes = () if plus is None or given not in plus.input else [one for one in plus.input if one != given]
        return ("GELU by tanh", given) if any(self.times(one, CUBIC) for one in cubes) else None

    def epsilon(self, node: onnx.NodeProto) -> int | None:
        """Where a sum that goes under a root has its small stored number."""
        small = [slot for slot in (0, 1) if 0 < self.number(node.input[slot]) <= LARGEST_EPSILON]
        under = [one.op_type for one in self.reading.get(node.output[0], ())]
        rooted = bool(under) and all(kind in ("Sqrt", "Pow") for kind in under)
        return small[0] if len(small) == 1 and rooted else None
