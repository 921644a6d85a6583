"""Every stored tensor that an operator reads, as the number it stands for; and the same graph with others in their place.

In: ONNX graphs. Out: their weights, decoded, by who reads them; or a copy that reads others. The rule: an exchange touches
what was named and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parity.explain.graph.points import keyed, named_modules

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Key = tuple[str, str, int, int]


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor as its reader sees it: whose, under which name, its numbers, the step of its integers (or 0).

    Where each channel has a step of its own, they are an array that broadcasts to the numbers.
    """

    module: str
    tensor: str
    array: Array
    step: float | Array

    @property
    def is_integer(self) -> bool:
        return bool(np.any(self.step))


def weights_of(model: onnx.ModelProto) -> dict[Key, Weight]:
    """The float tensors that a graph's operators read and that no input decides, decoded."""
    producers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    constant = _constants(model, stored)
    scales = {node.output[1] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"}
    wanted = {
        (*key, slot): (node, name)
        for key, node in keyed(model).items()
        for slot, name in enumerate(node.input)
        if not scales.intersection(node.input)  # one scale times another: no weight
        if node.output[0] not in constant  # a step on the way to one
        if name in constant
    }
    arrays = _evaluated(model, {name for _, name in wanted.values()}, stored)
    names = named_modules(model)
    return {
        key: Weight(names[node.output[0]], name, arrays[name], _step(name, producers, arrays, model))
        for key, (node, name) in wanted.items()
        if arrays[name].dtype.kind == "f"
    }


def _constants(model: onnx.ModelProto, stored: set[str]) -> set[str]:
    """The tensors that no input decides; nodes stand in the order in which they are computed."""
    found = set(stored)
    for node in model.graph.node:
        if all(name in found for name in node.input if name):
            found.update(name for name in node.output if name)
    return found


def _evaluated(model: onnx.ModelProto, names: set[str], stored: set[str]) -> dict[str, Array]:
    from onnx import numpy_helper

    from parity.explain.graph.simulate import exposing, opened

    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names}
    derived = sorted(names - stored)
    if derived:
        found |= opened(exposing(_constants_alone(model, stored), derived), derived)({})
    return found


def _constants_alone(model: onnx.ModelProto, stored: set[str]) -> onnx.ModelProto:
    """What a graph computes from nothing but what it stores."""
    import onnx

    constant = _constants(model, stored)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for part in (copy.graph.node, copy.graph.input, copy.graph.output, copy.graph.value_info):
        del part[:]
    known = [n for n in model.graph.node if n.output and all(o in constant for o in n.output if o)]
    copy.graph.node.extend(known)
    return copy


def _step(
    name: str, producers: Mapping[str, onnx.NodeProto], arrays: Mapping[str, Array], model: onnx.ModelProto
) -> float | Array:
    """The scale of the DequantizeLinear below a constant: one, one for each channel, or the largest where what lies between
    has moved the channels; 0 where it was stored in floating point."""
    from onnx import numpy_helper

    wanted = name
    while (node := producers.get(name)) is not None and node.input:
        if node.op_type == "DequantizeLinear":
            scales = [np.abs(numpy_helper.to_array(t)) for t in model.graph.initializer if t.name == node.input[1]]
            if not scales:
                return 0.0
            own = _by_channel(node, scales[0], arrays[wanted].shape) if name == wanted else None
            return float(scales[0].max()) if own is None else own
        name = node.input[0]
    return 0.0


def _by_channel(decoder: onnx.NodeProto, scales: Array, shape: tuple[int, ...]) -> Array | None:
    """Scales of each channel, to broadcast over a tensor of this shape; None where there is one scale, or blocks."""
    axis = next((a.i for a in decoder.attribute if a.name == "axis"), 1)
    if scales.ndim != 1 or scales.size < 2 or axis >= len(shape) or shape[axis] != scales.size:
        return None
    return scales.reshape([scales.size if i == axis % len(shape) else 1 for i in range(len(shape))])


def with_arrays(model: onnx.ModelProto, arrays: Mapping[Key, Array]) -> onnx.ModelProto:
    """The same graph in which these operators read these arrays: the experiment behind "it is the weights"."""
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = keyed(copy)
    before = {tensor.name: tensor.dims for tensor in copy.graph.initializer}
    for number, ((*key, slot), array) in enumerate(arrays.items(), len(before)):  # a graph may be mended again
        name = f"swapped_{number}"
        node = nodes[(key[0], key[1], key[2])]  # type: ignore[index]  # the first three of a Key
        array = array.reshape(before.get(node.input[slot], array.shape)) if array.size == 1 else array
        node.input[slot] = name
        copy.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    return copy


def with_ranges(model: onnx.ModelProto, reference: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The same graph with the reference's activation ranges, and the tensors whose range was another."""
    import onnx

    from parity.explain.graph.tensors import quantizer_ranges

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
