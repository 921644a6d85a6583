"""Quantize an ONNX graph with ONNX Runtime's static quantizer, in QDQ form.

A float graph, calibration batches and a recipe come in; a clean QDQ graph goes out. It takes what neural-compressor
cannot: sources that exist only as ONNX, one-dimensional convolutions, cells of recurrent nets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.errors import ToolchainError
from compile.export import first_lines
from compile.graph import clean, source_module
from compile.passes.embeddings import store_embeddings_as_int8
from compile.quiet import quiet
from compile.signature import Signature

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from compile.recipe import Recipe

PER_CHANNEL_OPSET = 13
"""The first opset whose QuantizeLinear has an axis."""

ERRORS_ONLY = 3
"""ONNX Runtime's severity."""

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BETWEEN_CONVOLUTIONS = ("Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Concat", "Flatten")
"""What ONNX Runtime computes in integers between two integer convolutions. In a graph without convolutions (a
transformer) only the layers are quantized: everything else at eight bits costs half of the accuracy there."""


class Reader:
    """Calibration batches in the shape that ONNX Runtime's calibrator asks for; a range of them at a time, if told."""

    def __init__(self, names: Sequence[str], calibration: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.batches = [{name: batch[name] for name in names} for batch in calibration]
        self.feeds = iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """From here on, these batches."""
        self.feeds = iter(self.batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None at the end."""
        return next(self.feeds, None)


def quantize_onnx(
    graph: onnx.ModelProto,
    signature: Signature,
    calibration: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
) -> onnx.ModelProto:
    """QDQ ONNX of a float graph."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import quantize_static

    onnxruntime.set_default_logger_severity(ERRORS_ONLY)  # the quantizer's sessions warn of its own leftovers
    source = clean(at_per_channel_opset(graph))
    reader = Reader([tensor.name for tensor in signature.inputs], calibration)
    with tempfile.TemporaryDirectory() as folder, quiet():
        written = Path(folder) / "quantized.onnx"
        try:
            quantize_static(source, written, reader, **options(source, recipe))
        except Exception as error:  # any kind: the quantizer checks little of what it is given
            raise ToolchainError(f"ONNX Runtime's quantizer failed: {first_lines(error)}") from error
        quantized = clean(onnx.load(written))
    return store_embeddings_as_int8(quantized) if recipe.embeddings else quantized


def options(graph: onnx.ModelProto, recipe: Recipe) -> dict[str, Any]:
    """The keyword arguments of `quantize_static` for a recipe."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

    symmetric = recipe.dialect == "int8-symmetric"
    convolves = any(node.op_type in {"Conv", "ConvTranspose"} for node in graph.graph.node)
    return {
        "quant_format": QuantFormat.QDQ,
        "op_types_to_quantize": [*LAYERS, *(BETWEEN_CONVOLUTIONS if convolves else ())],
        "per_channel": recipe.granularity == "per_channel",
        "activation_type": QuantType.QInt8 if symmetric else QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "nodes_to_exclude": kept_float(graph, recipe.keep_float),
        "calibrate_method": CalibrationMethod.MinMax if recipe.algorithm == "minmax" else CalibrationMethod.Entropy,
        "extra_options": {
            "ActivationSymmetric": symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "CalibStridedMinMax": 1,  # batch by batch: a histogram takes arrays of one shape at a time
            "MatMulConstBOnly": True,
            "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
        },
    }


def kept_float(graph: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    """The names of the nodes whose module or own name matches one of the patterns."""
    return [
        node.name
        for node in graph.graph.node
        if any(fnmatchcase(source_module(node) or "", p) or fnmatchcase(node.name, p) for p in patterns)
    ]


def at_per_channel_opset(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph at an opset that can hold one scale for each channel."""
    import onnx

    opset = next((entry.version for entry in graph.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset >= PER_CHANNEL_OPSET:
        return graph
    try:
        return onnx.version_converter.convert_version(graph, PER_CHANNEL_OPSET)
    except Exception as error:  # the converter raises RuntimeError, ValueError and its own kinds
        raise ToolchainError(
            f"The model has opset {opset} and cannot be lifted to {PER_CHANNEL_OPSET}, the first that can hold "
            f"one scale for each channel: {first_lines(error)}. Export it again with a newer opset."
        ) from error
