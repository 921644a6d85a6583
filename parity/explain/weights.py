"""Are these the source's weights? Every stored tensor that an operator reads, as the number it stands for.

In: ONNX graphs, or the folders of OpenVINO's IR. Out: one `Gap` for each tensor that is not what it should be, with the
factor that explains it best. The rule: integers are compared as what they decode to, within half a step of their own scale.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parity.explain.points import keyed, named_modules

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Key = tuple[str, str, int, int]
STORED_AS = 2.0**-8
"""Relative rounding of the coarsest float in use (bfloat16): weights stored so are still the same weights."""
ENOUGH = 0.995
"""Share of a tensor's numbers that must be equal: a quantizer may clip the few outermost."""
NARROW = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
"""Formats of half the bits, and the most that cutting a number off to them takes from it; rounding takes half of that."""
ENOUGH_TO_TELL = 8
LIKE = 0.9
"""Cosine of two tensors that are one and the same trained a little further; unrelated ones are near 0."""
IR_KINDS = {"f32": "<f4", "f16": "<f2", "i8": "i1", "u8": "u1", "i32": "<i4", "i64": "<i8", "f64": "<f8"}


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor as its reader sees it: whose, under which name, its numbers, the step of its integers (or 0)."""

    module: str
    tensor: str
    array: Array
    step: float


@dataclass(frozen=True, slots=True)
class Gap:
    """A tensor that is not the reference's: `factor` times it, up to `noise` (over signal) that no factor explains."""

    module: str
    tensor: str
    factor: float
    noise: float


def weights_of(model: onnx.ModelProto) -> dict[Key, Weight]:
    """The float tensors that a graph's operators read and that no input decides, decoded."""
    producers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    wanted = {
        (*key, slot): (node, name)
        for key, node in keyed(model).items()
        for slot, name in enumerate(node.input)
        if name and _is_constant(name, producers, stored)
    }
    arrays = _evaluated(model, {name for _, name in wanted.values()}, stored)
    names = named_modules(model)
    return {
        key: Weight(names[node.output[0]], name, arrays[name], _step(name, producers, arrays, model))
        for key, (node, name) in wanted.items()
        if arrays[name].dtype.kind == "f"
    }


def _is_constant(name: str, producers: Mapping[str, onnx.NodeProto], stored: set[str]) -> bool:
    if name in stored:
        return True
    node = producers.get(name)
    return node is not None and all(_is_constant(n, producers, stored) for n in node.input if n)


def _evaluated(model: onnx.ModelProto, names: set[str], stored: set[str]) -> dict[str, Array]:
    from onnx import numpy_helper

    from parity.explain.simulate import exposing, opened

    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names}
    derived = sorted(names - stored)
    if derived:
        found |= opened(exposing(_constants_alone(model, stored), derived), derived)({})
    return found


def _constants_alone(model: onnx.ModelProto, stored: set[str]) -> onnx.ModelProto:
    """What a graph computes from nothing but what it stores."""
    import onnx

    producers = {name: node for node in model.graph.node for name in node.output}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for part in (copy.graph.node, copy.graph.input, copy.graph.output, copy.graph.value_info):
        del part[:]
    known = [n for n in model.graph.node if n.output and all(_is_constant(o, producers, stored) for o in n.output if o)]
    copy.graph.node.extend(known)
    return copy


def _step(
    name: str, producers: Mapping[str, onnx.NodeProto], arrays: Mapping[str, Array], model: onnx.ModelProto
) -> float:
    """The largest scale of the DequantizeLinear below a constant; 0 where it was stored in floating point."""
    from onnx import numpy_helper

    while (node := producers.get(name)) is not None and node.input:
        if node.op_type == "DequantizeLinear":
            scales = [t for t in model.graph.initializer if t.name == node.input[1]]
            return float(np.abs(numpy_helper.to_array(scales[0])).max()) if scales else 0.0
        name = node.input[0]
    return 0.0


def gaps(reference: Mapping[Key, Weight], candidate: Mapping[Key, Weight]) -> list[tuple[Key, Key, Gap]]:
    """The candidate's tensors that are not the reference's, each beside the one it should be (keys: ours, theirs)."""
    found = []
    for theirs, ours in paired(reference, candidate).items():
        gap = difference(reference[ours], candidate[theirs])
        if gap is not None:
            found.append((ours, theirs, gap))
    return found


def paired(reference: Mapping[Key, Weight], candidate: Mapping[Key, Weight]) -> dict[Key, Key]:
    """For each of the candidate's tensors the one of the reference that it should be: of the same operator by name, else
    the likest of its shape; and where none is like it, the one at the same place among those of its operator and shape."""
    found = {key: key for key, one in candidate.items() if key in reference and _alike(one.array, reference[key].array)}
    ours, theirs = (_by_place({k: w for k, w in side.items() if k not in found}) for side in (reference, candidate))
    for kind, keys in theirs.items():
        for place, key in enumerate(keys):
            twin = _likest(candidate[key], reference)
            unlike = twin is None or _cosine(reference[twin].array, candidate[key].array) < LIKE
            if unlike and len(ours.get(kind, ())) == len(keys):
                twin = ours[kind][place]
            if twin is not None:
                found[key] = twin
    return found


def _alike(one: Array, other: Array) -> bool:
    """Of one shape; a single number may be stored as one or as an array of one."""
    return one.shape == other.shape or one.size == other.size == 1


def _by_place(weights: Mapping[Key, Weight]) -> dict[tuple[str, int, tuple[int, ...]], list[Key]]:
    """Tensors in their order, by operator, slot and shape."""
    found: dict[tuple[str, int, tuple[int, ...]], list[Key]] = {}
    for key, weight in weights.items():
        found.setdefault((key[1], key[3], weight.array.shape), []).append(key)
    return found


def _likest(weight: Weight, reference: Mapping[Key, Weight]) -> Key | None:
    """The reference's tensor of the same shape and the nearest direction, for graphs that name their nodes otherwise."""
    if weight.array.size < 2:
        return None
    alike = [key for key, other in reference.items() if other.array.shape == weight.array.shape]
    return max(alike, key=lambda key: _cosine(reference[key].array, weight.array), default=None)


def _cosine(one: Array, other: Array) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def difference(reference: Weight, candidate: Weight) -> Gap | None:
    """None where the candidate's numbers are the reference's as far as both are stored."""
    one, other = reference.array.astype(np.float64), candidate.array.astype(np.float64)
    room = 0.505 * (reference.step + candidate.step) + STORED_AS * np.abs(one)
    if float((np.abs(other - one) <= room).mean()) >= ENOUGH:
        return None
    energy = float((one**2).sum())
    factor = float((one * other).sum()) / energy if energy else 0.0
    rest = float(((other - factor * one) ** 2).sum()) / max(float((other**2).sum()), np.finfo(float).tiny)
    return Gap(candidate.module, candidate.tensor, factor, rest)


def is_narrow(weight: Weight, kind: str) -> bool:
    """Whether a tensor that is stored in float32 holds nothing that `kind` cannot say: then it went through it."""
    array = weight.array
    if weight.step or array.dtype != np.float32 or array.size < ENOUGH_TO_TELL:
        return False
    if kind == "bfloat16":
        return not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):
        return bool((array.astype(np.float16) == array).all())


def loses(reference: Weight, candidate: Weight, room: float) -> bool:
    """Whether the candidate's numbers are the reference's up to `room` (relative), and not all the same."""
    gap = np.abs(candidate.array.astype(np.float64) - reference.array)
    return bool(gap.any() and (gap <= room * np.abs(reference.array) + 2.0**-24).all())


def with_arrays(model: onnx.ModelProto, arrays: Mapping[Key, Array]) -> onnx.ModelProto:
    """The same graph in which these operators read these arrays: the experiment behind "it is the weights"."""
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = keyed(copy)
    before = {tensor.name: tensor.dims for tensor in copy.graph.initializer}
    for number, ((*key, slot), array) in enumerate(arrays.items()):
        name = f"swapped_{number}"
        node = nodes[(key[0], key[1], key[2])]  # type: ignore[index]  # the first three of a Key
        array = array.reshape(before.get(node.input[slot], array.shape)) if array.size == 1 else array
        node.input[slot] = name
        copy.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    return copy


def with_ranges(model: onnx.ModelProto, reference: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The same graph with the reference's activation ranges, and the tensors whose range was another."""
    import onnx

    from parity.explain.tensors import quantizer_ranges

    ours, theirs = dict(quantizer_ranges(reference)), dict(quantizer_ranges(model))
    other = [name for name, bounds in theirs.items() if name in ours and not np.allclose(ours[name], bounds, rtol=1e-6)]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in reference.graph.initializer}
    used = {
        name
        for node in model.graph.node
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}
        for name in node.input[1:]
    }
    for tensor in copy.graph.initializer:
        if tensor.name in used and tensor.name in stored and list(tensor.dims) in ([], [1]):
            tensor.CopyFrom(stored[tensor.name])
    return copy, other


def ir_constants(folder: Path) -> dict[str, Array]:
    """The constants of an OpenVINO IR by name, read from its two files."""
    [description] = sorted(folder.glob("*.xml"))[:1]
    data = description.with_suffix(".bin").read_bytes()
    return dict(_constants(ElementTree.parse(description).getroot(), data))


def _constants(root: ElementTree.Element, data: bytes) -> Iterator[tuple[str, Array]]:
    for layer in root.iter("layer"):
        facts = layer.find("data")
        if layer.get("type") == "Const" and facts is not None and facts.get("element_type") in IR_KINDS:
            start, size = int(facts.get("offset", 0)), int(facts.get("size", 0))
            kind = np.dtype(IR_KINDS[facts.get("element_type", "")])
            yield str(layer.get("name")), np.frombuffer(data[start : start + size], kind)


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
