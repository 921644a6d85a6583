"""An ONNX file from elsewhere, made to fit the signature of the model that it is explained against.

In: a file and a signature. Out: the same network under the signature's names and dtypes; ConfigError where it is of another
signature. The rule: only names and the width of numbers are adapted, at the border alone; what it computes is the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compile.errors import ConfigError
from compile.signature import Signature, Tensor

if TYPE_CHECKING:
    import onnx

Pair = tuple["onnx.ValueInfoProto", Tensor]


def adopted(graph: Path, signature: Signature, made: Path) -> Path:
    """The file's network with the signature's inputs and outputs: by name, else by position.

    An input that it does not have is taken and not read; outputs that nobody asked for are left out.
    """
    import onnx

    from compile.export import rename_values
    from compile.source import read_onnx

    model = read_onnx(graph, f"--artifact {graph}")
    stored = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in stored]
    inputs = _paired(graph, "inputs", given, signature.inputs)
    outputs = _paired(graph, "outputs", list(model.graph.output), signature.outputs)
    names = {value.name: tensor.name for value, tensor in (*inputs, *outputs) if value.name != tensor.name}
    taken = _inner_names(model) & set(names.values()) - set(names)
    _keep(model, outputs)
    rename_values(model.graph, names | {name: f"{name}_inner" for name in taken})
    for tensor in signature.inputs:
        if tensor.name not in {paired.name for _, paired in inputs}:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, _type_of(tensor), tensor.shape))
    for value in (*model.graph.input, *model.graph.output):
        wanted = next((t for t in (*signature.inputs, *signature.outputs) if t.name == value.name), None)
        if wanted is not None and value.type.tensor_type.elem_type != _type_of(wanted):
            _cast(model, value, _type_of(wanted))
    onnx.save(model, made)
    return made


def _paired(graph: Path, kind: str, values: Sequence[onnx.ValueInfoProto], tensors: Sequence[Tensor]) -> list[Pair]:
    """Each of the file's inputs or outputs with the one of the signature that it is."""
    by_name = {tensor.name: tensor for tensor in tensors}
    known = [(value, by_name[value.name]) for value in values if value.name in by_name]
    whole = len(known) == (len(values) if kind == "inputs" else len(tensors))
    pairs = known if known and whole else list(zip(values, tensors, strict=False))
    fits = all(_may_stand_for(value, tensor) for value, tensor in pairs)
    if not fits or not pairs or (pairs is not known and len(values) != len(tensors)):
        ours = ", ".join(f"{t.name} {t.dtype} [{', '.join(map(str, t.shape))}]" for t in tensors)
        theirs = ", ".join(map(_told, values))
        raise ConfigError(
            f"--artifact {graph}: another signature: its {kind} are {theirs}; the model's config has {ours}. What takes or "
            "gives something else cannot be compared: is it another model?"
        )
    return pairs


def _may_stand_for(value: onnx.ValueInfoProto, tensor: Tensor) -> bool:
    """The same kind of number, as many axes, and no fixed size against another."""
    found = value.type.tensor_type
    if _dtype(value).kind != np.dtype(tensor.dtype).kind:
        return False
    if not found.HasField("shape"):
        return True
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in found.shape.dim]
    return len(sizes) == len(tensor.shape) and all(
        size is None or isinstance(part, str) or size == part for size, part in zip(sizes, tensor.shape, strict=True)
    )


def _told(value: onnx.ValueInfoProto) -> str:
    sizes = [
        str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim
    ]
    return f"{value.name} {_dtype(value)} [{', '.join(sizes)}]"


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[np.generic]:
    import onnx

    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _type_of(tensor: Tensor) -> int:
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)))


def _keep(model: onnx.ModelProto, outputs: Sequence[Pair]) -> None:
    """The graph's outputs, no more than these, in the signature's order or the file's."""
    kept = [value for value, _ in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _cast(model: onnx.ModelProto, value: onnx.ValueInfoProto, wanted: int) -> None:
    """An input or output in another width of the same kind of number: cast at the border."""
    import onnx

    from compile.export import rename_values

    outer, inner, narrow = value.name, f"{value.name}__as_stored", value.type.tensor_type.elem_type
    enters = any(one.name == outer for one in model.graph.input)
    rename_values(model.graph, {outer: inner})
    value.name, value.type.tensor_type.elem_type = outer, wanted
    if enters:
        model.graph.node.insert(0, onnx.helper.make_node("Cast", [outer], [inner], to=narrow))
    else:
        model.graph.node.append(onnx.helper.make_node("Cast", [inner], [outer], to=wanted))


def _inner_names(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.output} | {t.name for t in model.graph.initializer}
