"""Where two graphs of one model can be compared: the tensors that the same operator of the same module gives in both.

In: two ONNX graphs. Out: pairs of tensor names, in the order in which the candidate computes them. The rule: a pair is
made by what the graphs say of themselves (module and operator, node and tensor names, count), never by values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compile.graph import source_module

if TYPE_CHECKING:
    import onnx

QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
SILENT = QUANTIZING | {"Identity", "Constant", "Shape", "Cast"}
"""Operators whose results are no result of a module."""
HOLDING = frozenset({"Attention", "QAttention"})
"""Operators of ONNX Runtime's that hold the weights of several layers."""

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Point:
    """One tensor in both graphs, and whose it is in source terms."""

    module: str
    op: str
    reference: str
    candidate: str


def matched(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> list[Point]:
    """Every pair, in the candidate's order."""
    ours, theirs = keyed(reference), keyed(candidate)
    names = named_modules(reference) | named_modules(candidate)
    produced = named_modules(candidate)
    by_name = {node.name: node for node in ours.values() if node.name}
    counts = Counter(key[:2] for key in ours), Counter(key[:2] for key in theirs)
    found = []
    for key, node in theirs.items():
        twin = by_name.get(node.name) if not key[0] else None
        if twin is not None and twin.op_type != node.op_type:
            twin = None
        if twin is None and (key[0] or counts[0][key[:2]] == counts[1][key[:2]]):
            twin = ours.get(key)
        if twin is not None:
            module, name = names[node.output[0]], twin.output[0]
            same = name if name in produced and names[name] == module else node.output[0]
            found.append(Point(module, node.op_type, name, same))
    return found + _whole_modules(ours, theirs, {p.module for p in found}, names)


def keyed(model: onnx.ModelProto) -> dict[Key, onnx.NodeProto]:
    """Every computing node under its module, its operator, and its number among the like."""
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[Key, onnx.NodeProto] = {}
    for node in model.graph.node:
        if node.op_type in SILENT or not node.output:
            continue
        kind = (source_module(node) or "", node.op_type)
        found[(*kind, seen[kind])] = node
        seen[kind] += 1
    return found


def _whole_modules(
    ours: Mapping[Key, onnx.NodeProto], theirs: Mapping[Key, onnx.NodeProto], done: set[str], names: Mapping[str, str]
) -> list[Point]:
    """The last tensors of modules that are written with other operators in the two graphs."""
    last = [{key[0]: node for key, node in graph.items() if key[0]} for graph in (ours, theirs)]
    return [
        Point(module, node.op_type, last[0][module].output[0], node.output[0])
        for module, node in last[1].items()
        if module in last[0] and module not in done
    ]


def named_modules(model: onnx.ModelProto) -> dict[str, str]:
    """For every tensor the module that gave it; one without a module of its own counts to what it reads, else its node.

    A multiplying node of no module is one, under its own name: that is what `keep_float` takes.
    """
    from compile.coverage import layer_places

    found: dict[str, str] = {}
    for node in model.graph.node:
        read = next((found[name] for name in node.input if name in found), None)
        own = node.name if layer_places(node) is not None or node.op_type in HOLDING else None
        for name in node.output:
            found[name] = source_module(node) or own or read or node.name or node.op_type
    return found


def readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Who reads each tensor."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def through_quantizers(name: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    """The tensor before the QuantizeLinear and DequantizeLinear (and padding between them) that gave this one."""
    while (node := producers.get(name)) is not None and (node.op_type in QUANTIZING or node.op_type == "Pad"):
        name = node.input[0]
    return name


def layers_of(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Every node with weights, under the module it came from."""
    from compile.coverage import is_stored, layer_places

    producers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    names = named_modules(model)
    for node in model.graph.node:
        places = layer_places(node)
        if places is not None and any(is_stored(node.input[place], producers, stored) for place in places):
            yield names[node.output[0]], node
