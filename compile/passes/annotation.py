"""Tell neural-compressor what each traced operator is, and where ONNX Runtime needs integers besides.

A traced torch graph comes in and gets metadata, no other change. The rule: a convolution runs in integers only where
its result is quantized too, whatever reads it; neural-compressor leaves that out before sums, means and outputs.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def label_layers(traced: torch.fx.GraphModule, *, fuse_sums: bool) -> None:
    """Label each operator with the layer class it is.

    neural-compressor's annotator finds layers by the module class they came from: it misses functional calls,
    re-imported programs and graphs changed by a pass. `fuse_sums`: let it take Conv + Add (+ Relu) for one operator,
    as TensorRT does. Linear + Add is never one: a transformer's residual stream at eight bits costs accuracy and
    makes no runtime faster.
    """
    import torch

    kinds = layer_kinds()
    sums = {torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor} if fuse_sums else set()
    for node in traced.graph.nodes:
        node.meta.pop("torch_fn", None)
        if node.op == "call_function":
            adds = node.target in sums and any(is_convolution(source) for source in node.all_input_nodes)
            kind = operator.add if adds else kinds.get(node.target, node.target)
            node.meta["source_fn_stack"] = [(node.name, kind)]


def layer_kinds() -> dict[Any, Any]:
    """The layer class that neural-compressor's annotator knows each operator by."""
    import torch

    aten, nn = torch.ops.aten, torch.nn
    return {
        aten.conv2d.default: nn.Conv2d,
        aten.linear.default: nn.Linear,
        aten.relu.default: nn.ReLU,
        aten.relu_.default: nn.ReLU,
        aten.relu6.default: nn.ReLU6,
        aten.hardtanh.default: nn.Hardtanh,
        aten.hardtanh_.default: nn.Hardtanh,
    }


def is_convolution(node: torch.fx.Node) -> bool:
    """Whether a node is a two-dimensional convolution, the only kind that neural-compressor takes."""
    import torch

    return node.target is torch.ops.aten.conv2d.default


def quantize_results_of_convolutions(traced: torch.fx.GraphModule, activations: Any) -> None:
    """Ask for integers wherever the result of a convolution, or of a sum of such results, is read.

    `activations` is the vendor's specification of an activation. Readers that neural-compressor quantizes by itself
    (layers, pooling) are left to it; a Relu belongs to the operator before it.
    """
    import torch
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import _X86InductorQuantizationAnnotation

    aten = torch.ops.aten
    kinds = layer_kinds()
    sums = {aten.add.Tensor, aten.add_.Tensor}
    pooling = {aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.cat.default}
    integer: set[torch.fx.Node] = set()
    for node in traced.graph.nodes:
        read = [source for source in node.all_input_nodes if source in integer]
        if is_convolution(node) or (read and node.target in kinds | dict.fromkeys(pooling) and not is_layer(node)):
            integer.add(node)
        if not read or node.target in kinds or node.target in pooling or is_shape(node):
            continue
        if node.target in sums:
            read = [source for source in node.all_input_nodes if source.op == "call_function"]
            integer.add(node)
        node.meta["quantization_annotation"] = _X86InductorQuantizationAnnotation(
            input_qspec_map=dict.fromkeys(read, activations),
            _annotated=True,
            _is_output_of_quantized_pattern=node.target in sums,
        )


def is_layer(node: torch.fx.Node) -> bool:
    """Whether a node is a layer with weights."""
    import torch

    return node.target in {torch.ops.aten.conv2d.default, torch.ops.aten.linear.default}


def is_shape(node: torch.fx.Node) -> bool:
    """Whether a node reads a tensor's size, not its numbers."""
    import torch

    value = node.meta.get("val")
    return node.op == "call_function" and not isinstance(value, torch.Tensor)
