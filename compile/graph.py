"""Passes over ONNX graphs: clean them, make them canonical, halve their precision, refuse NaN.

ONNX in, ONNX out, nothing else touched. Laws: `clean(clean(m)) == clean(m)`, and the bytes of `clean(m)` depend on
the model alone, never on the machine, the folder or the process that made it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from compile.errors import ConfigError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata the dynamo exporter writes: the path of modules from the root to the node, ending with the node."""

FOLDED_WITH_LARGE_INPUTS = frozenset({"QuantizeLinear", "Clip", "Transpose"})
"""What stands between a float weight and its DequantizeLinear in an exported quantized graph. None of them makes a
tensor larger than its input, so folding never bloats the file."""

ALLOWZERO_SINCE = 14
"""The first opset whose Reshape may say that a zero in its shape is a size of none. The optimizer says it in any."""

STABLE_AFTER = 4
"""Rounds of optimizing within which a graph stops changing (two in all that was seen)."""


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with constants folded, in canonical order, without what differs between two makings of it."""
    import onnx_ir as ir
    from onnxscript.optimizer import optimize_ir

    graph = ir.from_proto(model)
    for _ in range(STABLE_AFTER):
        optimize_ir(graph, should_fold=folds)
        if not fit_to_runtimes(graph):
            break
    drop_unknown_allowzero(graph)
    strip(graph)
    sort_from_outputs(graph.graph)
    return canonical(ir.to_proto(graph))


def fit_to_runtimes(graph: ir.Model) -> bool:
    """The passes over quantized layers; each leaves a float graph as it was. Returns whether one changed anything."""
    from compile.passes.channels import pad_narrow_inputs
    from compile.passes.weights import quantize_biases_of_float_gemms, transpose_dequantized_weights

    changes = [
        change(graph) for change in (transpose_dequantized_weights, quantize_biases_of_float_gemms, pad_narrow_inputs)
    ]
    return any(changes)


def drop_unknown_allowzero(graph: ir.Model) -> None:
    """Reshape without `allowzero` where the opset has none. The optimizer puts it beside shapes that it made constant,
    which hold sizes and at most one -1."""
    if graph.opset_imports.get("", ALLOWZERO_SINCE) < ALLOWZERO_SINCE:
        for node in graph.graph.all_nodes():
            if node.op_type == "Reshape" and node.domain == "":
                node.attributes.pop("allowzero", None)


def folds(node: ir.Node) -> bool | None:
    """Fold weights of any size through their quantization; leave the rest to the optimizer's own limits."""
    constant = all(value is None or value.const_value is not None for value in node.inputs)
    if node.op_type in FOLDED_WITH_LARGE_INPUTS and node.inputs and constant:
        return True
    return None


def strip(model: ir.Model) -> None:
    """Drop stack traces, doc strings, shapes of inner values and every metadata entry but the module path."""
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(NAME_SCOPES)
        node.metadata_props.clear()
        node.doc_string = None
        if scopes is not None:
            node.metadata_props[NAME_SCOPES] = scopes
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = value.type = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    model.graph.metadata_props.clear()
    model.graph.doc_string = model.doc_string = None
    for key in [key for key in model.metadata_props if key.startswith("pkg.")]:
        del model.metadata_props[key]


def sort_from_outputs(graph: ir.Graph) -> None:
    """Order the nodes as a walk from the outputs back meets them, which no quantizer's set order can change."""
    ordered: list[ir.Node] = []
    done: set[ir.Node] = set()
    pending = [(node, False) for node in reversed([v.producer() for v in graph.outputs]) if node is not None]
    while pending:
        node, sources_done = pending.pop()
        if node in done:
            continue
        if sources_done:
            done.add(node)
            ordered.append(node)
            continue
        pending.append((node, True))
        sources = [value.producer() for value in used_values(node)]
        pending += [(s, False) for s in reversed(sources) if s is not None and s.graph is graph and s not in done]
    nodes = ordered + [node for node in graph if node not in done]
    graph.remove(nodes)
    graph.extend(nodes)


def used_values(node: ir.Node) -> Iterator[ir.Value]:
    """The values a node reads, those read inside its subgraphs too."""
    import onnx_ir as ir

    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from used_values(inner)


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Initializers and metadata by name, attributes by name, no producer: one byte string for one model."""
    model.producer_name = "lockstep"
    model.producer_version = ""
    model.domain = ""
    del model.graph.value_info[:]
    model.graph.name = "model"
    model.graph.initializer.sort(key=lambda tensor: tensor.name)
    model.metadata_props.sort(key=lambda entry: entry.key)
    model.opset_import.sort(key=lambda opset: opset.domain)
    for node in model.graph.node:
        node.attribute.sort(key=lambda attribute: attribute.name)
    return model


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float graph in half precision, with inputs and outputs still in the dtypes of the signature."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from compile.quiet import quiet

    with quiet():
        return clean(convert_float_to_float16(model, keep_io_types=True))


def refuse_nan(model: onnx.ModelProto) -> None:
    """Raise ConfigError naming the first weights that hold NaN. Infinity stays: masks are made of it."""
    import numpy as np
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and (count := int(np.isnan(array).sum())):
            raise ConfigError(
                f"The weights {tensor.name!r} hold {count} NaN of {array.size} numbers. "
                "A model that was trained to NaN cannot be compiled: restore an earlier checkpoint."
            )


def source_module(node: onnx.NodeProto | ir.Node) -> str | None:
    """`encoder.layers.3.mlp`, the module a node came from, or None where the graph does not say."""
    import onnx

    if isinstance(node, onnx.NodeProto):
        metadata = {entry.key: entry.value for entry in node.metadata_props}
    else:
        metadata = dict(node.metadata_props)
    scopes = metadata.get(NAME_SCOPES)
    if scopes:
        modules = [name for name in ast.literal_eval(scopes)[:-1] if name]
        return modules[-1] if modules else None
    return path_in_name(node.name or "")


def path_in_name(name: str) -> str | None:
    """The module in a node's name as the TorchScript exporter writes it: `/encoder/layers.3/mlp/MatMul`."""
    if not re.fullmatch(r"(/[^/]+){2,}", name):
        return None
    return ".".join(name.split("/")[1:-1])
