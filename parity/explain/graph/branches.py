"""A graph without the branches that the suite does not take, so that experiments see the operators inside an If.

In: an ONNX graph, batches of the suite. Out: a graph that answers the same on them, in which every If whose condition is
the same throughout is replaced by what it runs then. The rule: an If that goes both ways stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from compile.errors import ToolchainError
from compile.signature import Signature
from parity.explain.graph.simulate import Batch, exposing, opened, output_names, walked

if TYPE_CHECKING:
    import onnx

DEEPEST = 16
"""Branches within branches, at most: a graph that nests deeper stays as it is from there on."""


def straightened(model: onnx.ModelProto, batches: Sequence[Batch], signature: Signature) -> onnx.ModelProto:
    """The graph with every branch that these batches always take in its If's place; itself where it has none."""
    for _ in range(DEEPEST):
        taken = _taken(model, batches, signature)
        if not taken:
            break
        model = _with_branches(model, taken)
    return model


def _taken(model: onnx.ModelProto, batches: Sequence[Batch], signature: Signature) -> dict[str, bool]:
    """Which way each condition goes, where that is one way throughout."""
    asked = list(dict.fromkeys(node.input[0] for node in model.graph.node if node.op_type == "If"))
    if not asked:
        return {}
    found: dict[str, set[bool]] = {name: set() for name in asked}
    try:
        infer = opened(exposing(model, asked), [*output_names(signature), *asked])
        for _, outputs in walked(infer, batches, signature):
            for name in asked:
                found[name].add(bool(np.asarray(outputs[name]).ravel()[0]))
    except ToolchainError:  # a graph that cannot be run here shows no way
        return {}
    return {name: ways.pop() for name, ways in found.items() if len(ways) == 1}


def _with_branches(model: onnx.ModelProto, taken: dict[str, bool]) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    for number, node in enumerate(model.graph.node):
        if node.op_type != "If" or node.input[0] not in taken:
            copy.graph.node.append(node)
            continue
        wanted = "then_branch" if taken[node.input[0]] else "else_branch"
        branch = onnx.GraphProto()
        branch.CopyFrom(next(a.g for a in node.attribute if a.name == wanted))
        copy.graph.node.extend(_opened_out(branch, node, number))
        copy.graph.initializer.extend(branch.initializer)
    return copy


def _opened_out(branch: onnx.GraphProto, node: onnx.NodeProto, number: int) -> Iterator[onnx.NodeProto]:
    """A branch's nodes, its stored tensors renamed with them: two branches may use one name."""
    import onnx

    from compile.export import rename_values

    inner = {name for each in branch.node for name in each.output} | {t.name for t in branch.initializer}
    names = {name: f"{name}__branch_{number}" for name in inner}
    rename_values(branch, names)
    yield from branch.node
    for value, output in zip(branch.output, node.output, strict=True):
        yield onnx.helper.make_node("Identity", [value.name], [output])
