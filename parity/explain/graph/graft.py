"""Parts of one graph in the place of another's: the experiment behind "it is this module's operators".

In: two graphs of one model. Out: the second with some of its modules computed as the first does. The rule: what a module
gives to others is replaced, computed from what both graphs have before it; nothing else is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from parity.explain.graph.points import SILENT, matched, named_modules, readers

if TYPE_CHECKING:
    import onnx


def with_modules(
    sound: onnx.ModelProto, candidate: onnx.ModelProto, modules: Collection[str], *, by_name: bool = False
) -> onnx.ModelProto | None:
    """The candidate with these modules as the sound graph computes them; None where what they give cannot be paired.

    Modules that give another number of tensors are taken for one; one that is gone shows in those that read it. `by_name`:
    tensors are paired by their names instead, whatever module they count to.
    """
    import onnx

    given, uneven = _of_one_name(sound, candidate, modules) if by_name else _paired(sound, candidate, modules)
    if by_name and not given:
        return None
    if uneven:
        ours, theirs = _given(sound, uneven), _given(candidate, uneven)
        if len(ours) != len(theirs):  # what one graph has nothing of is taken with those that read it
            given, ours, theirs = {}, _given(sound, modules), _given(candidate, modules)
        if len(ours) != len(theirs):
            return None
        given |= dict(zip(theirs, ours, strict=True))
    names = {p.reference: p.candidate for p in matched(sound, candidate) if p.module not in modules}
    names |= {value.name: value.name for value in candidate.graph.input}
    copy = onnx.ModelProto()
    written, base = _in_one_opset(sound, candidate)
    copy.CopyFrom(base)
    del copy.graph.node[:]
    put: dict[str, onnx.NodeProto] = {}
    targets = {ours: theirs for theirs, ours in given.items()}
    for node in base.graph.node:
        wanted = [name for name in node.output if name in given]
        for name in wanted:
            parts = [one for one in grafted(written, given[name], targets, names) if one.output[0] not in put]
            put |= {one.output[0]: one for one in parts}
            copy.graph.node.extend(parts)
        if not wanted:
            copy.graph.node.append(node)
    read = {name for node in put.values() for name in node.input}
    for tensor in written.graph.initializer:
        if f"{tensor.name}__float" in read:
            copy.graph.initializer.add().CopyFrom(tensor)
            copy.graph.initializer[-1].name = f"{tensor.name}__float"
    have = {one.domain for one in copy.opset_import}
    copy.opset_import.extend(one for one in written.opset_import if one.domain not in have)
    return copy


def _paired(
    sound: onnx.ModelProto, candidate: onnx.ModelProto, modules: Collection[str]
) -> tuple[dict[str, str], set[str]]:
    """For each tensor that a module of the candidate gives the sound graph's; modules that give more or fewer there."""
    given: dict[str, str] = {}
    uneven: set[str] = set()
    for module in modules:
        ours, theirs = _given(sound, {module}), _given(candidate, {module})
        if len(ours) == len(theirs):
            given |= dict(zip(theirs, ours, strict=True))
        elif theirs:
            uneven.add(module)
    return given, uneven


def _of_one_name(
    sound: onnx.ModelProto, candidate: onnx.ModelProto, modules: Collection[str]
) -> tuple[dict[str, str], set[str]]:
    ours = set(named_modules(sound))
    return {name: name for module in modules for name in _given(candidate, {module}) if name in ours}, set()


def _in_one_opset(sound: onnx.ModelProto, candidate: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Both graphs in the newer version of the standard operators that either is written in."""
    import onnx

    versions = [next(one.version for one in graph.opset_import if not one.domain) for graph in (sound, candidate)]
    try:
        written = [
            graph if version == max(versions) else onnx.version_converter.convert_version(graph, max(versions))
            for graph, version in zip((sound, candidate), versions, strict=True)
        ]
    except RuntimeError:  # onnx raises its own kind of it for operators that it cannot convert
        return sound, candidate
    return written[0], written[1]


def _given(model: onnx.ModelProto, modules: Collection[str]) -> list[str]:
    """The tensors of some modules that others read, or that are answers."""
    names, reading = named_modules(model), readers(model)
    answers = {value.name for value in model.graph.output}

    def leaves(name: str) -> bool:
        return name in answers or any(
            names[one.output[0]] not in modules for one in reading.get(name, ()) if one.op_type not in SILENT
        )

    return [name for name, owner in names.items() if owner in modules and leaves(name)]


def grafted(
    exact: onnx.ModelProto, wanted: str, targets: Mapping[str, str], names: Mapping[str, str]
) -> Iterator[onnx.NodeProto]:
    """A graph's nodes behind the tensor `wanted`, back to tensors that another graph has too (`names`).

    `targets`: what those of its tensors are called, `wanted` among them, that stand in the place of the other graph's.
    """
    import onnx

    producers = {name: node for node in exact.graph.node for name in node.output}
    done: set[str] = set()

    def called(name: str) -> str:
        return targets.get(name, f"{name}__float") if name else ""

    def walk(name: str) -> Iterator[onnx.NodeProto]:
        node = onnx.NodeProto()
        node.CopyFrom(producers[name])
        done.update(node.output)
        for place, read in enumerate(node.input):
            if not read or read in names:
                node.input[place] = names.get(read, "")
                continue
            node.input[place] = called(read)
            if read in producers and read not in done:
                yield from walk(read)
        node.output[:] = [called(out) for out in node.output]
        node.name = f"{node.name}__float__{called(name)}"
        yield node

    return walk(wanted)
