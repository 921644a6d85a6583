"""How much of a quantized graph really is integer: layers and multiply-accumulates, counted one by one.

An ONNX graph and the sizes of its named axes come in; a `Coverage` goes out. The rule: a layer is integer only when
what it multiplies, input and weights, are both integers (through DequantizeLinear, or in an integer operator).
Products of two activations (attention) have no weights: they are listed apart and do not enter the share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from compile.errors import ToolchainError
from compile.graph import source_module

if TYPE_CHECKING:
    import onnx

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"MatMul", "Gemm"})
INTEGER_LAYERS = {
    "QLinearConv": (0, 3),
    "ConvInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "MatMulInteger": (0, 1),
    "QGemm": (0, 3),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "DynamicQuantizeLSTM": (0, 1),
}
"""Operators that compute in integers by definition, with the places of their input and their weights."""

WEIGHT_PATH = frozenset({"DequantizeLinear", "Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Mul"})
"""What may stand between stored weights and the layer that uses them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator that multiplies; `macs` are its multiply-accumulates at the sizes asked for."""

    name: str
    source_module: str | None
    op: str
    macs: int
    integer: bool

    @property
    def label(self) -> str:
        """`Conv features.0`: for messages."""
        return f"{self.op} {self.source_module or self.name}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """The layers with weights, which decide the share, and the activation products, which do not."""

    layers: tuple[Layer, ...]
    activation_products: tuple[Layer, ...] = ()

    @property
    def share(self) -> float:
        """Integer multiply-accumulates of all layers with weights, 0 to 1; 0 where there are none."""
        total = sum(layer.macs for layer in self.layers)
        return sum(layer.macs for layer in self.layers if layer.integer) / total if total else 0.0

    @property
    def float_layers(self) -> tuple[Layer, ...]:
        """The layers with weights that still compute in floating point, the heaviest first."""
        return tuple(sorted((x for x in self.layers if not x.integer), key=lambda x: (-x.macs, x.name)))


def of_qdq_graph(model: onnx.ModelProto, shapes: Mapping[str, int]) -> Coverage:
    """Every multiplying layer of a graph; `shapes` gives each named axis its size (missing ones count as 1)."""
    producers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    sizes = shapes_of_layers(model, shapes)
    weighted: list[Layer] = []
    products: list[Layer] = []
    for node in model.graph.node:
        if (places := layer_places(node)) is None:
            continue
        sources = [node.input[place] for place in places]
        constant = [is_stored(name, producers, stored) for name in sources]
        integer = node.op_type in INTEGER_LAYERS or all(is_integer(name, producers) for name in sources)
        layer = Layer(node.name, source_module(node), node.op_type, macs_of(node, sizes), integer)
        (weighted if any(constant) else products).append(layer)
    weighted += hidden_layers(model)
    return Coverage(tuple(weighted), tuple(products))


def layer_places(node: onnx.NodeProto) -> tuple[int, int] | None:
    """Where a multiplying operator takes its input and its weights; None for other operators."""
    if node.op_type in INTEGER_LAYERS:
        return INTEGER_LAYERS[node.op_type]
    return (0, 1) if node.op_type in CONVOLUTIONS | PRODUCTS | RECURRENT else None


def is_stored(name: str, producers: Mapping[str, onnx.NodeProto], stored: set[str]) -> bool:
    """Whether a value comes from weights kept in the file."""
    while name not in stored:
        node = producers.get(name)
        if node is None or node.op_type not in WEIGHT_PATH:
            return False
        if node.op_type == "Mul":
            return all(is_stored(source, producers, stored) for source in node.input)
        name = node.input[0]
    return True


def is_integer(name: str, producers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a value is the direct result of a DequantizeLinear."""
    node = producers.get(name)
    return node is not None and node.op_type == "DequantizeLinear"


def macs_of(node: onnx.NodeProto, sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of one layer, from the shapes of its output, input and weights."""
    places = layer_places(node)
    assert places is not None
    entered, weights = (sizes[node.input[place]] for place in places)
    if node.op_type in RECURRENT or node.op_type == "DynamicQuantizeLSTM":
        recurrent = sizes[node.input[places[1] + 1]]
        return prod(entered[:2]) * (prod(weights) + prod(recurrent))
    if node.op_type == "ConvTranspose":
        return prod(entered) * prod(weights[1:])
    left = sizes[node.output[0]]
    if node.op_type in {"Conv", "ConvInteger", "QLinearConv"}:
        return prod(left) * prod(weights[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(left) * (entered[0] if transposed else entered[-1])


def shapes_of_layers(model: onnx.ModelProto, shapes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shape of every value a layer touches, read from one run on zeros: inference on paper cannot follow all."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = sorted({v for n in model.graph.node if layer_places(n) for v in (*n.input[:5], n.output[0]) if v})
    if not names:
        return {}
    del probe.graph.output[:]
    for index, name in enumerate(names):
        probe.graph.node.add(op_type="Shape", name=f"shape_{index}", input=[name], output=[f"shape_{index}"])
        probe.graph.output.append(onnx.helper.make_tensor_value_info(f"shape_{index}", onnx.TensorProto.INT64, [None]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(None, zeros(model, shapes))
    except Exception as error:  # ONNX Runtime raises its own kinds, none of them public
        raise ToolchainError(f"ONNX Runtime cannot run the quantized graph: {error}") from error
    return {name: tuple(int(size) for size in shape) for name, shape in zip(names, found, strict=True)}


def zeros(model: onnx.ModelProto, shapes: Mapping[str, int]) -> dict[str, object]:
    """One array of zeros for each input of a graph."""
    import numpy as np
    import onnx

    stored = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: np.zeros(
            [dim.dim_value or shapes.get(dim.dim_param, 1) for dim in value.type.tensor_type.shape.dim],
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
        )
        for value in model.graph.input
        if value.name not in stored
    }


def hidden_layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """Layers inside If, Loop and Scan: counted as float, by the size of their stored weights, so none is missed."""
    stored = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for inner in subgraph_nodes(node):
            if layer_places(inner):
                macs = max((stored.get(name, 1) for name in inner.input), default=1)
                yield Layer(f"{node.name}/{inner.name}", source_module(inner), inner.op_type, macs, integer=False)


def subgraph_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Every node in the subgraphs of a node, at any depth."""
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield inner
            yield from subgraph_nodes(inner)
