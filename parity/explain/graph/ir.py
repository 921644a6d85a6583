"""OpenVINO's IR, which no graph here tells about: its constants, and the graph that it was compiled from with those in it.

In: the folders of two artifacts, the graph that one of them was compiled from. Out: a graph for the other, or one `Gap` for
each constant that differs. The rule: constants are known by name; that such a graph is the artifact's, its answers decide.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.explain.graph.gaps import ENOUGH_TO_TELL, LIKE, Gap, cosine, difference
from parity.explain.graph.weights import Array, Weight

if TYPE_CHECKING:
    import onnx

COMPRESSED = "_compressed"
"""What OpenVINO adds to the name of a constant that it stores in half the bits."""
IR_KINDS = {"f32": "<f4", "f16": "<f2", "i8": "i1", "u8": "u1", "i32": "<i4", "i64": "<i8", "f64": "<f8"}


def is_ir(folder: Path | None) -> bool:
    """Whether an OpenVINO IR lies there."""
    return folder is not None and bool(list(folder.glob("*.xml")))


def ir_constants(folder: Path) -> dict[str, Array]:
    """The constants of an OpenVINO IR by name, read from its two files."""
    [description] = sorted(folder.glob("*.xml"))[:1]
    data = description.with_suffix(".bin").read_bytes()
    return dict(_constants(ElementTree.parse(description).getroot(), data))


def ir_layers(folder: Path) -> list[tuple[str | None, str | None]]:
    """Kind and name of every layer, in the file's order."""
    [description] = sorted(folder.glob("*.xml"))[:1]
    return [(one.get("type"), one.get("name")) for one in ElementTree.parse(description).getroot().iter("layer")]


def _constants(root: ElementTree.Element, data: bytes) -> Iterator[tuple[str, Array]]:
    for layer in root.iter("layer"):
        facts = layer.find("data")
        if layer.get("type") == "Const" and facts is not None and facts.get("element_type") in IR_KINDS:
            start, size = int(facts.get("offset", 0)), int(facts.get("size", 0))
            kind = np.dtype(IR_KINDS[facts.get("element_type", "")])
            shape = [int(part) for part in facts.get("shape", "").split(",") if part.strip()]
            name = str(layer.get("name")).removesuffix(COMPRESSED)
            yield name, np.frombuffer(data[start : start + size], kind).reshape(shape)


def in_graph(graph: onnx.ModelProto, constants: Mapping[str, Array]) -> onnx.ModelProto:
    """The graph with an IR's constants in the place of its own of the same name and kind, else of the likest.

    Channels of nought, which this toolchain takes off again, stay as the graph has them. Where the IR stores all floats in half
    the bits, those that are not found among them are rounded so.
    """
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    stored = {tensor.name for tensor in copy.graph.initializer}
    unnamed = [array for name, array in constants.items() if name not in stored]
    floats = [array.dtype for array in constants.values() if array.dtype.kind == "f"]
    halved = bool(floats) and set(floats) == {np.dtype(np.float16)}
    for tensor in copy.graph.initializer:
        ours = numpy_helper.to_array(tensor).copy()
        theirs = constants[tensor.name] if tensor.name in constants else _likest(ours, unnamed)
        if theirs is None and halved and ours.dtype == np.float32:
            theirs = ours.astype(np.float16)
        if theirs is None or theirs.ndim != ours.ndim or not _alike(theirs.dtype, ours.dtype):
            continue
        if all(one <= other for one, other in zip(theirs.shape, ours.shape, strict=True)):
            ours[tuple(slice(size) for size in theirs.shape)] = theirs
            tensor.CopyFrom(numpy_helper.from_array(ours, tensor.name))
    return copy


def _likest(ours: Array, constants: Sequence[Array]) -> Array | None:
    """The constant of nearly the same direction, turned and shaped as ours: those that the toolchain folds lose their names."""
    found: Array | None = None
    for array in constants if ours.size >= ENOUGH_TO_TELL and ours.dtype == np.float32 else ():
        for turned in (array, array.T):
            fits = array.size == ours.size and _alike(array.dtype, ours.dtype) and _bare(turned) == _bare(ours)
            if fits and cosine(ours, turned) >= max(LIKE, 0.0 if found is None else cosine(ours, found)):
                found = turned.reshape(ours.shape)
    return found


def _alike(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether numbers of one kind may stand for those of the other: floats of any width do for each other."""
    return one == other or one.kind == other.kind == "f"


def _bare(array: Array) -> tuple[int, ...]:
    return tuple(size for size in array.shape if size != 1)


def ir_gaps(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], names: Mapping[str, str]
) -> list[tuple[Gap, bool]]:
    """The constants of one IR that differ from those of the same name in another, and whether each holds many numbers.

    `names`: whose each one is.
    """
    found = []
    for name, array in candidate.items():
        if name in reference and reference[name].shape == array.shape and array.size:
            ours, theirs = (Weight(names.get(name, name), name, a, 0.0) for a in (reference[name], array))
            if (gap := difference(ours, theirs)) is not None:
                found.append((gap, array.size > 1))
    return found
