"""Embedding tables as eight-bit integers: a quarter of the bytes, one scale for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

SMALLEST_SHARE = 0.05
"""Of all numbers stored in the model; a smaller table (positions, types) saves too few bytes for its rounding."""

LARGEST_INT8 = 127


def store_embeddings_as_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn `Gather(float table)` into `Cast(Gather(int8 table)) * Gather(scale)`; the rest as it was.

    In this form ONNX Runtime, OpenVINO and TensorRT all read only the rows asked for. A DequantizeLinear before
    the Gather would be folded back into a float table, or make every call dequantize the whole of it.
    """
    import onnx_ir as ir

    from compile.graph import clean

    graph = ir.from_proto(model)
    stored = sum(value.const_value.size for value in graph.graph.initializers.values() if value.const_value is not None)
    least = SMALLEST_SHARE * stored
    tables = [node for node in graph.graph if node.op_type == "Gather" and is_table(node, least)]
    for node in tables:
        look_up_rows(graph.graph, node)
    return clean(ir.to_proto(graph)) if tables else model


def is_table(node: ir.Node, least: float) -> bool:
    """Whether a Gather looks rows up in a stored float table of two axes and no fewer numbers than `least`."""
    table = node.inputs[0]
    if table is None or table.const_value is None or node.attributes.get_int("axis", 0) != 0:
        return False
    weights = table.const_value
    return weights.dtype.name == "FLOAT" and len(weights.shape) == 2 and weights.size >= least


def look_up_rows(graph: ir.Graph, node: ir.Node) -> None:
    """Replace one Gather of a float table."""
    import onnx_ir as ir

    table, rows, found = node.inputs[0], node.inputs[1], node.outputs[0]
    assert table is not None
    assert table.const_value is not None
    stored, scale = quantized_rows(table.const_value.numpy())
    values = [
        graph.initializers.setdefault(name, ir.Value(name=name, const_value=ir.tensor(array, name=name)))
        for name, array in ((f"{table.name}.int8", stored), (f"{table.name}.scale", scale))
    ]
    metadata = dict(node.metadata_props)

    def add(op: str, suffix: str, inputs: list[ir.Value | None], **attributes: int) -> ir.Value:
        made = ir.Node(
            "",
            op,
            inputs,
            [ir.AttrInt64(k, v) for k, v in attributes.items()],
            name=f"{node.name}_{suffix}",
            metadata_props=metadata,
        )
        made.outputs[0].name = f"{found.name}_{suffix}"
        graph.insert_before(node, made)
        return made.outputs[0]

    picked = add("Gather", "int8", [values[0], rows], axis=0)
    numbers = add("Cast", "float", [picked], to=int(ir.DataType.FLOAT))
    scales = add("Gather", "scale", [values[1], rows], axis=0)
    result = add("Mul", "rows", [numbers, scales])
    result.name, found.name = found.name, f"{found.name}_float_table"
    found.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def quantized_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 rows and their scales, of shape (rows, 1)."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / LARGEST_INT8, 1).astype(np.float32)
    return np.rint(table / scale).astype(np.int8), scale
