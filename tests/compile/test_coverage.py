"""Multiply-accumulates and integer layers, against counts by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compile.coverage import Coverage, Layer, of_qdq_graph
from compile.errors import ToolchainError

node = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str], weights: dict[str, np.ndarray], outputs: Sequence[str]
) -> onnx.ModelProto:
    """A graph of one float input x."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


SCALES = {"s": np.float32(0.1), "z": np.uint8(0), "zw": np.int8(0)}
QUANTIZED_X = [node("QuantizeLinear", ["x", "s", "z"], ["xq"]), node("DequantizeLinear", ["xq", "s", "z"], ["xd"])]


def test_convolutions_and_transposed_convolutions_by_hand() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["a", "d"], ["b"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        node("ConvTranspose", ["b", "t"], ["y"], name="up", strides=[2, 2]),
    ]
    weights = {"w": floats(8, 3, 3, 3), "d": floats(8, 1, 3, 3), "t": floats(8, 4, 2, 2)}
    counted = of_qdq_graph(model(nodes, ["batch", 3, 16, 16], weights, ["y"]), {"batch": 2})
    assert {layer.name: layer.macs for layer in counted.layers} == {
        "conv": 2 * 8 * 8 * 8 * 3 * 3 * 3,
        "depthwise": 2 * 8 * 8 * 8 * 1 * 3 * 3,
        "up": 2 * 8 * 8 * 8 * 4 * 2 * 2,
    }


def test_products_by_hand_with_dynamic_axes() -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], name="m")]
    counted = of_qdq_graph(model(nodes, ["batch", "length", 6], {"w": floats(6, 5)}, ["y"]), {"batch": 2, "length": 7})
    assert [layer.macs for layer in counted.layers] == [2 * 7 * 6 * 5]


def test_an_lstm_by_hand() -> None:
    nodes = [node("LSTM", ["x", "w", "r"], ["y"], name="lstm", hidden_size=4)]
    weights = {"w": floats(1, 16, 3), "r": floats(1, 16, 4)}
    counted = of_qdq_graph(model(nodes, ["length", 2, 3], weights, ["y"]), {"length": 5})
    assert [(layer.op, layer.macs, layer.integer) for layer in counted.layers] == [
        ("LSTM", 5 * 2 * 16 * (3 + 4), False)
    ]


def test_a_layer_is_integer_only_when_input_and_weights_are() -> None:
    nodes = [
        *QUANTIZED_X,
        node("DequantizeLinear", ["wq", "s", "zw"], ["wd"]),
        node("MatMul", ["xd", "wd"], ["a"], name="both"),
        node("MatMul", ["xd", "w"], ["b"], name="only input"),
        node("MatMul", ["x", "wd"], ["c"], name="only weights"),
    ]
    weights = {"w": floats(4, 4), "wq": np.ones((4, 4), np.int8)} | SCALES
    counted = of_qdq_graph(model(nodes, ["batch", 4], weights, ["a", "b", "c"]), {"batch": 1})
    assert {layer.name: layer.integer for layer in counted.layers} == {
        "both": True,
        "only input": False,
        "only weights": False,
    }
    assert counted.share == pytest.approx(1 / 3)


def test_a_float_operation_between_integers_and_layer_makes_it_float() -> None:
    nodes = [
        *QUANTIZED_X,
        node("DequantizeLinear", ["wq", "s", "zw"], ["wd"]),
        node("Transpose", ["wd"], ["wt"]),
        node("MatMul", ["xd", "wt"], ["y"], name="m"),
    ]
    counted = of_qdq_graph(model(nodes, ["batch", 4], {"wq": np.ones((4, 4), np.int8)} | SCALES, ["y"]), {"batch": 1})
    assert [layer.integer for layer in counted.layers] == [False]


def test_products_of_activations_are_apart_and_do_not_count() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["q"], name="weighted"),
        node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["q", "k"], ["y"], name="attention"),
    ]
    counted = of_qdq_graph(model(nodes, ["batch", 5, 4], {"w": floats(4, 4)}, ["y"]), {"batch": 1})
    assert [layer.name for layer in counted.layers] == ["weighted"]
    assert [(layer.name, layer.macs) for layer in counted.activation_products] == [("attention", 5 * 5 * 4)]


def test_a_layer_inside_a_branch_is_not_missed() -> None:
    def branch(name: str) -> onnx.GraphProto:
        inner = node("MatMul", ["x", "w"], [name], name=name)
        return helper.make_graph([inner], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    nodes = [node("If", ["c"], ["y"], name="if", then_branch=branch("yes"), else_branch=branch("no"))]
    counted = of_qdq_graph(model(nodes, ["batch", 4], {"w": floats(4, 4), "c": np.array(True)}, ["y"]), {"batch": 1})
    assert {(layer.name, layer.integer) for layer in counted.layers} == {("if/yes", False), ("if/no", False)}


def test_the_share_weighs_layers_by_their_work_and_nothing_is_no_share() -> None:
    counted = Coverage((Layer("a", "m.a", "Conv", 900, True), Layer("b", None, "Gemm", 100, False)))
    assert counted.share == 0.9
    assert [layer.label for layer in counted.float_layers] == ["Gemm b"]
    assert Coverage(()).share == 0.0


def test_a_graph_that_cannot_run_is_a_toolchain_error() -> None:
    broken = model([node("MatMul", ["x", "w"], ["y"], name="m")], ["batch", 3], {"w": floats(4, 4)}, ["y"])
    with pytest.raises(ToolchainError, match="cannot run"):
        of_qdq_graph(broken, {"batch": 1})
