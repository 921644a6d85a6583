"""A model that exists only as ONNX, for the line to take as its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write_ocr(path: Path) -> None:
    """An ONNX recognizer with dynamic width and no torch behind it: convolutions, height pooled away, an LSTM, a head."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(np.float32), name)

    initializers = [
        weight("c1", 8, 1, 3, 3),
        weight("c2", 16, 8, 3, 3),
        weight("w", 1, 128, 16),
        weight("r", 1, 128, 32),
        weight("head", 32, 20),
        numpy_helper.from_array(np.array([2]), "two"),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "c1"], ["a"], "conv1", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "c2"], ["c"], "conv2", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("ReduceMean", ["c", "two"], ["d"], keepdims=0),
        helper.make_node("Transpose", ["d"], ["e"], perm=[2, 0, 1]),
        helper.make_node("LSTM", ["e", "w", "r"], ["f", "", ""], "lstm", hidden_size=32),
        helper.make_node("Squeeze", ["f", "one"], ["g"]),
        helper.make_node("Transpose", ["g"], ["h"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["h", "head"], ["symbols"], "head"),
    ]
    initializers.append(numpy_helper.from_array(np.array([1]), "one"))
    graph = helper.make_graph(
        nodes,
        "ocr",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 32, "W"])],
        [helper.make_tensor_value_info("symbols", TensorProto.FLOAT, ["N", "T", 20])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
