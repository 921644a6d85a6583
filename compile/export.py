"""Torch to ONNX: one export shared by plain lowering and by quantizing.

A module or an exported program, its signature and an example come in; a float ONNX graph goes out, named and
shaped as the signature says. The rule: what the signature calls dynamic is dynamic in the graph, or it is an error.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from compile.errors import ConfigError, ToolchainError
from compile.quiet import quiet
from compile.signature import Signature, Tensor

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 20
"""The newest opset that ONNX Runtime 1.31, OpenVINO 2026.4 and TensorRT for RTX 1.7 all read."""

SMALLEST_TRACED = 2
"""torch.export takes an axis of size 0 or 1 for a constant, so a dynamic one is traced at two or more."""


def export_torch(
    model: torch.nn.Module | torch.export.ExportedProgram,
    signature: Signature,
    example: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    """Float ONNX of a torch model; every axis with least < most in the signature stays dynamic."""
    from compile.graph import clean, refuse_nan

    with quiet():
        program = trace(model, signature, example)
        graph = clean(to_onnx(program, signature))
    refuse_nan(graph)
    return graph


def trace(
    model: torch.nn.Module | torch.export.ExportedProgram,
    signature: Signature,
    example: Mapping[str, np.ndarray],
) -> torch.export.ExportedProgram:
    """The model as an exported program, in inference mode. A program that is one already comes back as it is."""
    import torch

    if isinstance(model, torch.export.ExportedProgram):
        return model
    arguments = tuple(torch.from_numpy(array) for array in widened(signature, example))
    if not isinstance(model, torch.fx.GraphModule):  # a traced graph has no training mode and refuses the call
        model.eval()
    try:
        with torch.no_grad():
            return torch.export.export(model, arguments, dynamic_shapes=dynamic_shapes(signature))
    except Exception as error:  # torch raises many kinds here, all of them about the model
        raise ToolchainError(
            f"torch.export could not trace {type(model).__name__}: {first_lines(error)}\n"
            f"Traced with {described(signature.inputs)}. An axis that the model fixes must be a number in the "
            "config's shape; control flow that depends on data must be rewritten with torch.cond or torch.where."
        ) from error


def to_onnx(program: torch.export.ExportedProgram, signature: Signature) -> onnx.ModelProto:
    """The ONNX graph of an exported program with the signature's names and axes; not cleaned yet."""
    import torch

    try:
        exported = torch.onnx.export(program, opset_version=OPSET, dynamo=True, verbose=False, external_data=False)
    except Exception as error:  # the exporter wraps failures of any kind
        raise ToolchainError(f"torch.onnx could not write the model as ONNX: {first_lines(error)}") from error
    if exported is None:
        raise ToolchainError("torch.onnx returned no model.")
    graph = exported.model_proto
    name_ports(graph, signature)
    name_axes(graph, signature)
    scope_folded_layers(graph)
    return graph


def scope_folded_layers(model: onnx.ModelProto) -> None:
    """Give a convolution that a batch norm was folded into the path of its weights: the exporter keeps the norm's."""
    from compile.graph import NAME_SCOPES

    for node in model.graph.node:
        if node.op_type not in {"Conv", "ConvTranspose"} or not node.input[1].endswith(".weight"):
            continue
        for entry in node.metadata_props:
            if entry.key == NAME_SCOPES:
                scopes = ast.literal_eval(entry.value)
                entry.value = repr([*scopes[:-2], node.input[1].removesuffix(".weight"), scopes[-1]])


def name_ports(model: onnx.ModelProto, signature: Signature) -> None:
    """Give inputs and outputs the signature's names, by position; an inner value that holds one of them yields.

    The exporter's own renaming does not look: an output called `embedding` clashes with the value of an Embedding.
    """
    ports: dict[str, str] = {}
    for kind, values, tensors in (
        ("inputs", model.graph.input, signature.inputs),
        ("outputs", model.graph.output, signature.outputs),
    ):
        if len(values) != len(tensors):
            raise ConfigError(
                f"The model has {len(values)} {kind}, the config {len(tensors)}: {described(tensors)}. List all of "
                f"them, in the order of the model's {'arguments' if kind == 'inputs' else 'results'}."
            )
        ports |= {value.name: tensor.name for value, tensor in zip(values, tensors, strict=True)}
    rename_values(model.graph, ports | {name: f"{name}_inner" for name in ports.values() if name not in ports})


def rename_values(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values of a graph and of its subgraphs, wherever they are made or read."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            rename_values(attribute.g, names)


def dynamic_shapes(signature: Signature) -> tuple[dict[int, object], ...]:
    """What `torch.export.export` wants: for each positional argument, axis index to named dimension."""
    import torch

    dims = {
        name: torch.export.Dim(name, min=axis.least, max=axis.most)
        for name, axis in signature.axes.items()
        if axis.least < axis.most
    }
    return tuple(
        {i: dims[size] for i, size in enumerate(tensor.shape) if isinstance(size, str) and size in dims}
        for tensor in signature.inputs
    )


def widened(signature: Signature, example: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The example's arrays in argument order, with every dynamic axis repeated to at least two."""
    arrays = []
    for tensor in signature.inputs:
        if tensor.name not in example:
            raise ConfigError(f"The example has no array for input {tensor.name!r}; it has {sorted(example)}.")
        array = np.asarray(example[tensor.name])
        for index, size in enumerate(tensor.shape):
            axis = signature.axes.get(size) if isinstance(size, str) else None
            if axis and axis.least < axis.most and array.shape[index] < SMALLEST_TRACED:
                array = np.repeat(array, SMALLEST_TRACED, axis=index)
        arrays.append(np.asarray(array, order="C"))
    return arrays


def name_axes(model: onnx.ModelProto, signature: Signature) -> None:
    """Write the signature's axis names into the graph's inputs and outputs; refuse a graph that contradicts it."""
    declared = [*zip(model.graph.input, signature.inputs, strict=True)]
    declared += [*zip(model.graph.output, signature.outputs, strict=True)]
    for value, tensor in declared:
        dims = value.type.tensor_type.shape.dim
        if len(dims) != len(tensor.shape):
            raise ConfigError(
                f"{tensor.name!r} has {len(dims)} axes in the model, {len(tensor.shape)} in the config "
                f"{tensor.shape}. Correct `shape` in the model's config."
            )
        for dim, size in zip(dims, tensor.shape, strict=True):
            if dim.HasField("dim_value") and is_dynamic(signature, size):
                raise ConfigError(
                    f"Axis {size!r} of {tensor.name!r} is {dim.dim_value} and nothing else in the exported model. "
                    "Export it with that axis dynamic, or write the number in the config."
                )
            if isinstance(size, int) and dim.HasField("dim_value") and dim.dim_value != size:
                raise ConfigError(
                    f"{tensor.name!r} has size {dim.dim_value} in the model, {size} in the config {tensor.shape}. "
                    "Correct `shape` in the model's config."
                )
            if isinstance(size, str) and not dim.HasField("dim_value"):
                dim.dim_param = size


def is_dynamic(signature: Signature, size: int | str) -> bool:
    """Whether a size of a shape is an axis that may vary."""
    return isinstance(size, str) and size in signature.axes and (signature.axes[size].least < signature.axes[size].most)


def described(tensors: Sequence[Tensor]) -> str:
    """`image float32 (batch, 1, 28, 28), mask bool (batch)`: for messages."""
    return ", ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors)


def first_lines(error: BaseException, count: int = 12) -> str:
    """The start of a long message; torch's run to hundreds of lines."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return "\n".join(lines[:count])
