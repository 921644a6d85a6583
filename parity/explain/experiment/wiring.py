"""What the operators of a candidate read: other tensors, or other places of them, than the sound graph's.

In: two graphs of one model. Out: `Change`s. The rule: only what both graphs have is compared, the same operator of the same
module reading tensors that both know, or integers that both store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.coverage import INTEGER_LAYERS
from parity.explain.experiment.change import Change, shortened
from parity.explain.graph.points import keyed, named_modules, through_quantizers

if TYPE_CHECKING:
    import onnx

COMMUTING = frozenset({"Add", "Mul", "Max", "Min", "Sum", "Mean", "And", "Or", "Equal"})
"""Operators that do not mind the order of what they read."""
WHOLE_NUMBERS = (6, 7)
"""ONNX's numbers for int32 and int64: places and sizes, where eight bits would be weights."""


def wires(sound: onnx.ModelProto, candidate: onnx.ModelProto) -> Iterator[Change]:
    """Operators that both graphs have, and that read other tensors of those that both have."""
    ours, theirs, names = keyed(sound), keyed(candidate), named_modules(candidate)
    counts = [Counter(key[:2] for key in graph) for graph in (ours, theirs)]
    both = [key for key in theirs if key in ours and counts[0][key[:2]] == counts[1][key[:2]]]
    twins = {value.name: value.name for value in candidate.graph.input}
    for key in both:
        twins |= dict(zip(theirs[key].output, ours[key].output, strict=False))
    known = set(twins.values())
    origins = [{name: node for node in graph.graph.node for name in node.output} for graph in (sound, candidate)]
    for key in both:
        wanted, read = (
            [through_quantizers(name, origin) for name in graph[key].input]
            for graph, origin in zip((ours, theirs), origins, strict=True)
        )
        pairs = [
            (one, twins[other], other)
            for one, other in zip(wanted, read, strict=False)
            if other in twins and one in known
        ]
        before, after = [one for one, _, _ in pairs], [other for _, other, _ in pairs]
        if before == after or (key[1] in COMMUTING and sorted(before) == sorted(after)):
            continue
        module = names[theirs[key].output[0]]
        told = f"`{module}`: {key[1]} reads {_ticked(after)} where the source's graph reads {_ticked(before)}"
        givers = frozenset(names[given] for one, other, given in pairs if one != other and given in names)
        yield Change(module, "export", told, givers)


def _ticked(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def indices(sound: onnx.ModelProto, candidate: onnx.ModelProto) -> Iterator[Change]:
    """Operators that read other stored integers: an index, a start, an axis."""
    ours, names = keyed(sound), named_modules(candidate)
    stored = _integers(sound), _integers(candidate)
    for key, node in keyed(candidate).items():
        if key not in ours or key[1] in INTEGER_LAYERS or key[1].startswith("QLinear"):
            continue
        for one, other in zip(ours[key].input, node.input, strict=False):
            wanted, found = stored[0].get(one), stored[1].get(other)
            if wanted is not None and found is not None and not np.array_equal(wanted, found):
                module = names[node.output[0]]
                told = f"`{module}`: {key[1]} reads {shortened(found.tolist())}, the source's graph's {shortened(wanted.tolist())}"
                yield Change(module, "export", told)


def _integers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """The integers that a graph stores."""
    from onnx import numpy_helper

    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    kept |= {
        node.output[0]: a.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    }
    return {name: numpy_helper.to_array(tensor) for name, tensor in kept.items() if tensor.data_type in WHOLE_NUMBERS}
