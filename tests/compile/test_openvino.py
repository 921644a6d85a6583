"""What OpenVINO's build takes off a graph, and what it must leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from compile.targets.openvino import take_off_padding

NOUGHT = np.zeros((1, 3, 3, 3), np.int8)


def padded(path: Path, *, behind: np.ndarray = NOUGHT, zero: int = 0, rows: int = 0) -> Path:
    """A quantized convolution over one channel with three more padded on; `behind` are the weights of those three."""
    random = np.random.default_rng(0)
    first = random.integers(-100, 100, (8, 1, 3, 3)).astype(np.int8)
    stored = {
        "scale": np.float32(0.02),
        "offset": np.uint8(7),
        "pads": np.array([0, 0, 0, 0, 0, 3, rows, 0]),
        "weights": np.concatenate([first, np.broadcast_to(behind, (8, 3, 3, 3))], axis=1),
        "scales": random.uniform(0.01, 0.02, 8).astype(np.float32),
        "zeros": np.full(8, zero, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "offset"], ["q"]),
        helper.make_node("Pad", ["q", "pads", "offset"], ["wide"]),
        helper.make_node("DequantizeLinear", ["wide", "scale", "offset"], ["d"]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["d", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def kinds(model: openvino.Model) -> list[str]:
    return [node.get_type_name() for node in model.get_ops()]


def answers(model: openvino.Model) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((2, 1, 6, 6)).astype(np.float32)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: np.ndarray = np.array(next(iter(compiled({"x": x}).values())))
    return found


def test_channels_of_nought_are_taken_off_and_the_answers_stay(tmp_path: Path) -> None:
    model = openvino.Core().read_model(padded(tmp_path / "m.onnx"))
    before = answers(model)
    assert "Pad" in kinds(model)
    take_off_padding(model)
    assert "Pad" not in kinds(model)
    np.testing.assert_array_equal(answers(model), before)


@pytest.mark.parametrize(
    "changes",
    [{"behind": np.ones((1, 3, 3, 3), np.int8)}, {"zero": 3}, {"rows": 1}],
    ids=["weights that count", "a zero point", "padding that counts"],
)
def test_what_changes_the_answers_stays(tmp_path: Path, changes: dict[str, object]) -> None:
    model = openvino.Core().read_model(padded(tmp_path / "m.onnx", **changes))  # type: ignore[arg-type]
    before = answers(model)
    take_off_padding(model)
    assert "Pad" in kinds(model)
    np.testing.assert_array_equal(answers(model), before)
