"""Where a candidate's graph is written otherwise than the sound one, and whether that is what makes it differ.

In: two graphs of one model. Out: `Change`s whose layers really diverge, in the candidate's order. The rule: other
operators are no finding by themselves; the module must give other numbers from the same inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compile.coverage import INTEGER_LAYERS
from compile.graph import source_module
from parity.explain.experiment.change import Change, Found, shortened
from parity.explain.experiment.wiring import indices, wires
from parity.explain.graph.integers import HIDING
from parity.explain.graph.points import QUANTIZING, SILENT, keyed, named_modules, readers

if TYPE_CHECKING:
    import onnx

NARROW_TYPES = (10, 16)
"""ONNX's numbers for float16 and bfloat16."""
WHOLE_GRAPHS = (5, 10)
"""ONNX's numbers for attributes that are graphs: the branches of an If are no setting."""
SILENT_SETTINGS = frozenset({"allowzero"})
"""What tells nothing about numbers: it is about shapes without any."""
FUNCTIONS = frozenset(
    {
        "Celu",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    }
)
"""Activations of ONNX's own, each another function than all others."""


def changes(sound: onnx.ModelProto, candidate: onnx.ModelProto) -> list[Change]:
    """Attributes that differ, then operators that one graph has and the other has not, then what reads other tensors, or other
    places of them; by module.

    An operator that draws at random explains nothing.
    """
    told = [*_attributes(sound, candidate), *_operators(sound, candidate)]
    return [*told, *wires(sound, candidate), *indices(sound, candidate)]


def _attributes(sound: onnx.ModelProto, candidate: onnx.ModelProto) -> list[Change]:
    ours, names = keyed(sound), named_modules(candidate)
    found = []
    for key, node in keyed(candidate).items():
        if key not in ours:
            continue
        found.extend(_fewer_inputs(names[node.output[0]], ours[key], node))
        one, other = _told(ours[key]), _told(node)
        for name in sorted((one.keys() | other.keys()) - SILENT_SETTINGS):
            if one.get(name) != other.get(name):
                module = names[node.output[0]]
                told = f"`{module}`: {node.op_type} has {name} {_short(other, name)}, the source's graph {_short(one, name)}"
                found.append(Change(module, "export", told))
    return found


def _fewer_inputs(module: str, ours: onnx.NodeProto, theirs: onnx.NodeProto) -> list[Change]:
    """That an operator reads less than the source's: no bias, no bound."""
    counts = [sum(1 for name in node.input if name) for node in (ours, theirs)]
    if counts[0] <= counts[1]:
        return []
    told = f"`{module}`: {theirs.op_type} reads {counts[1]} tensors, the source's graph's {counts[0]}"
    return [Change(module, "export", told)]


def _told(node: onnx.NodeProto) -> dict[str, object]:
    """A node's attributes, those that it leaves at the operator's default too."""
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, domain=node.domain)
        defaults = {name: a.default_value for name, a in schema.attributes.items() if a.default_value.name}
    except onnx.defs.SchemaError:  # an operator of another domain
        defaults = {}
    given = defaults | {a.name: a for a in node.attribute if a.type not in WHOLE_GRAPHS}
    return {name: onnx.helper.get_attribute_value(a) for name, a in given.items()}


def _short(told: Mapping[str, object], name: str) -> str:
    """An attribute as a reader can take it in; `no` where there is none."""
    value = told.get(name, "no")
    if isinstance(value, float):
        return f"{value:g}"
    return shortened(value.decode(errors="replace") if isinstance(value, bytes) else value)


def _operators(sound: onnx.ModelProto, candidate: onnx.ModelProto) -> list[Change]:
    both = _of_no_module(sound) & _of_no_module(candidate)
    ours, theirs = _by_module(sound, both), _by_module(candidate, both)
    found = _missing(sound, set(theirs))
    for module, kinds in theirs.items():
        gained, lost = kinds - ours.get(module, Counter()), ours.get(module, Counter()) - kinds
        if gained and not any(kind.startswith("Random") for kind in gained):
            told = f"`{module}` is computed by {_listed(gained)}, in the source's graph by {_listed(lost) or 'nothing'}"
            shown = _shown_by(module, gained, candidate)
            found.append(Change(module, _kind(gained, lost, candidate), told, read_by=shown, extra=module not in ours))
        elif lost and not set(lost) <= SILENT:
            told = f"`{module}` lacks {_listed(lost)}, which the source's graph has"
            found.append(
                Change(module, "export", told, _readers_of(module, sound) | _counted_to(module, sound, candidate))
            )
    return found


def _counted_to(module: str, sound: onnx.ModelProto, candidate: onnx.ModelProto) -> frozenset[str]:
    """The modules that nodes of no module, which count to this one in the sound graph, count to in the candidate."""
    names, theirs = named_modules(sound), named_modules(candidate)
    moved = {node.name for node in sound.graph.node if node.output and names[node.output[0]] == module and node.name}
    gone = [node for node in candidate.graph.node if node.name in moved and node.output and not source_module(node)]
    return frozenset(theirs[node.output[0]] for node in gone)


def _missing(sound: onnx.ModelProto, present: set[str]) -> list[Change]:
    """Modules of the source that the candidate has none of."""
    names = named_modules(sound)
    gone = [names[n.output[0]] for n in sound.graph.node if n.op_type not in SILENT and n.output]
    return [
        Change(module, "export", f"the source's `{module}` is missing", _readers_of(module, sound))
        for module in dict.fromkeys(gone)
        if module not in present
    ]


def _shown_by(module: str, gained: Counter[str], candidate: onnx.ModelProto) -> frozenset[str]:
    """The readers of a module where what it hands on comes from an operator that the source has not."""
    names, reading = named_modules(candidate), readers(candidate)
    ends = {
        node.op_type
        for node in candidate.graph.node
        if node.output and names[node.output[0]] == module
        for one in reading.get(node.output[0], ())
        if one.output and names[one.output[0]] != module
    }
    return _readers_of(module, candidate) if ends & gained.keys() else frozenset()


def _readers_of(module: str, sound: onnx.ModelProto) -> frozenset[str]:
    """The modules that read what one gives."""
    names, reading = named_modules(sound), readers(sound)
    given = [name for name, owner in names.items() if owner == module]
    return frozenset(names[one.output[0]] for name in given for one in reading.get(name, ()) if one.output)


def _of_no_module(model: onnx.ModelProto) -> set[tuple[str, str]]:
    """Name and kind of nodes that count to what they read: what is before them may be gone, and they to another module."""
    return {(node.name, node.op_type) for node in model.graph.node if node.name and not source_module(node)}


def _by_module(model: onnx.ModelProto, apart: set[tuple[str, str]]) -> Mapping[str, Counter[str]]:
    """The operators of each module but those `apart`."""
    names = named_modules(model)
    found: dict[str, Counter[str]] = {}
    for node in model.graph.node:
        if node.output and node.op_type not in {"Identity", "Constant"}:
            kinds = found.setdefault(names[node.output[0]], Counter())
            kinds[node.op_type] += (node.name, node.op_type) not in apart
    return {module: +kinds for module, kinds in found.items()}


def _kind(gained: Counter[str], lost: Counter[str], candidate: onnx.ModelProto) -> Found:
    if set(gained) <= {"Cast"} and _narrows(candidate.graph.node):
        return "runtime precision"
    if gained and lost and gained.keys() | lost.keys() <= FUNCTIONS:  # no runtime merges one function into another
        return "export"
    return "quantization" if any(map(quantizes, gained)) else "fusion"


def quantizes(operator: str) -> bool:
    """Whether an operator makes, takes or gives integers that stand for numbers."""
    integer = QUANTIZING | HIDING | {"DynamicQuantizeLinear"} | set(INTEGER_LAYERS)
    return operator in integer or operator.startswith("QLinear")


def _narrows(nodes: Sequence[Any]) -> bool:
    return any(
        a.name == "to" and a.i in NARROW_TYPES for node in nodes for a in node.attribute if node.op_type == "Cast"
    )


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} × {kind}" if count > 1 else kind for kind, count in sorted(kinds.items()))
