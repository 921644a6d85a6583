"""The vendors' own quantizers as their documentation recommends them, on the same graph and the same data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import onnx

from bench.runtimes import Batch
from compile.quantize_onnx import Reader
from compile.quiet import quiet


def onnxruntime_static(
    graph: onnx.ModelProto, calibration: Sequence[Batch], written: Path, *, operators: Sequence[str] | None = None
) -> Path:
    """`quantize_static`: QDQ, per channel, uint8 activations, int8 weights (its advice for CPUs with VNNI).

    The graph comes folded and cleaned already, so its optional pre-processing, which fails on dynamic shapes and
    external data here, would add nothing.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    reader = Reader([value.name for value in graph.graph.input], calibration)
    with quiet():
        quantize_static(
            copy.deepcopy(graph),  # it moves the weights of what it is given out to a file
            written,
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=None if operators is None else list(operators),
        )
    return written


def onnxruntime_defaults(
    graph: onnx.ModelProto, calibration: Sequence[Batch], written: Path, *, operators: Sequence[str] | None = None
) -> Path:
    """`quantize_static` as it comes: int8 activations and weights, one scale for each tensor."""
    from onnxruntime.quantization import quantize_static

    reader = Reader([value.name for value in graph.graph.input], calibration)
    with quiet():
        quantize_static(
            copy.deepcopy(graph),
            written,
            reader,
            op_types_to_quantize=None if operators is None else list(operators),
        )
    return written


def nncf_quantized(graph: Path, calibration: Sequence[Batch], written: Path, *, transformer: bool) -> Path:
    """`nncf.quantize` of the OpenVINO model, with the transformer preset where it is one."""
    import nncf
    import openvino

    with quiet():
        quantized = nncf.quantize(
            openvino.Core().read_model(graph),
            nncf.Dataset(list(calibration)),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            subset_size=len(calibration),
        )
    openvino.save_model(quantized, written, compress_to_fp16=False)
    return written
