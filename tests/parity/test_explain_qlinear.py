"""Artifacts whose operators read and give integers (QOperator files): made by ONNX Runtime's tools, then spoilt by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

from parity.explain.graph.integers import floated, has_integer_layers
from parity.explain.graph.simulate import opened
from tests.parity.foreign import found_for, model
from tests.parity.test_explain_integers import FEEDS, Calibrating

UNSIGNED, SIGNED = ({"activation_type": kind, "weight_type": kind} for kind in (QuantType.QUInt8, QuantType.QInt8))
HOW = [{}, UNSIGNED, SIGNED | {"per_channel": True}]


def source(seed: int = 0) -> onnx.ModelProto:
    """Convolutions, a Gemm, a product with a bias added apart, and activations that have integer operators too."""
    rng = np.random.default_rng(seed)
    shapes = {
        "k": (8, 1, 1, 3), "kb": (8,), "j": (4, 8, 1, 1), "g": (24, 16), "gb": (24,), "m": (24, 12), "mb": (12,), "v": (12, 5),
    }  # fmt: skip
    stored = {name: (rng.standard_normal(shape) / 2).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Unsqueeze", ["x", "both"], ["picture"], "lift"),
        helper.make_node("Conv", ["picture", "k", "kb"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "j"], ["d"], "narrow"),
        helper.make_node("Sigmoid", ["d"], ["s"], "sigmoid"),
        helper.make_node("Flatten", ["s"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "g", "gb"], ["h"], "gemm", transB=1),
        helper.make_node("LeakyRelu", ["h"], ["l"], "leaky", alpha=0.1),
        helper.make_node("MatMul", ["l", "m"], ["p"], "product"),
        helper.make_node("Add", ["p", "mb"], ["a"], "add"),
        helper.make_node("Mul", ["a", "a"], ["q"], "square"),
        helper.make_node("MatMul", ["q", "v"], ["y"], "head"),
    ]
    return model(nodes, stored | {"both": np.array([1, 2], np.int64)})


def quantized(folder: Path, of: onnx.ModelProto, **how: object) -> onnx.ModelProto:
    onnx.save(of, folder / "float.onnx")
    paths = folder / "float.onnx", folder / "int8.onnx"
    quantize_static(*paths, Calibrating(), quant_format=QuantFormat.QOperator, **how)  # type: ignore[arg-type]
    return onnx.load(folder / "int8.onnx")


def spoilt(graph: onnx.ModelProto, node: str, slot: int, factor: float = 1, more: int = 0) -> onnx.ModelProto:
    """One scale or zero point of one operator times a factor, or more."""
    name = next(one for one in graph.graph.node if one.name == node).input[slot]
    tensor = next(one for one in graph.graph.initializer if one.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array * factor + more).astype(array.dtype), name))
    return graph


@pytest.mark.parametrize("how", HOW)
def test_integer_operators_between_quantizers_answer_as_they_did(tmp_path: Path, how: dict[str, object]) -> None:
    theirs = quantized(tmp_path, source(), **how)
    kinds = Counter(node.op_type for node in theirs.graph.node)
    assert {"QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul", "QLinearSigmoid"} <= kinds.keys()
    twin = floated(theirs)
    assert not has_integer_layers(twin)
    np.testing.assert_array_equal(opened(twin, ["y"])(FEEDS)["y"], opened(theirs, ["y"])(FEEDS)["y"])


@pytest.mark.parametrize("how", HOW)
def test_the_source_itself_is_quantization_and_another_training_is_not(tmp_path: Path, how: dict[str, object]) -> None:
    kinds = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        theirs = quantized(tmp_path / str(seed), source(seed), **how)
        cause = found_for(tmp_path / str(seed), theirs, source())
        kinds.append((cause.kind, cause.explained))
    assert kinds == [("quantization", True), ("stale or wrong weights", True)]


@pytest.mark.parametrize(
    ("node", "slot", "factor", "more", "said"),
    [
        ("narrow_quant", 4, 2, 0, "those of `narrow` are 2 times the source's"),
        ("gemm_quant", 4, 2, 0, "those of `gemm` are 2 times the source's"),
        ("product_quant", 4, 2, 0, "those of `product` are 2 times the source's"),
        ("gemm_quant", 5, 1, 20, "1 of the artifact's 8 weight tensors are not the source's (`gemm`)"),
    ],
)
def test_one_layers_wrong_scale_or_zero_point_is_named(
    tmp_path: Path, node: str, slot: int, factor: float, more: int, said: str
) -> None:
    """What remains is what the tool's eight bits bring."""
    cause = found_for(tmp_path, spoilt(quantized(tmp_path, source()), node, slot, factor, more), source())
    assert cause.kind == "stale or wrong weights"
    assert said in cause.sentence
    assert cause.second is None or cause.second.kind == "quantization"
    assert cause.second is None or "with its layers back in float" in cause.second.sentence


def test_one_layers_stale_weights_are_named_among_integers(tmp_path: Path) -> None:
    moved = source()
    tensor = next(one for one in moved.graph.initializer if one.name == "m")
    other = np.random.default_rng(9).standard_normal((24, 12)).astype(np.float32) / 2
    tensor.CopyFrom(numpy_helper.from_array(other, "m"))
    cause = found_for(tmp_path, quantized(tmp_path, moved), source())
    assert cause.kind == "stale or wrong weights"
    assert cause.modules == ["product"]


def test_a_file_that_the_runtime_saved_optimized_is_read_too(tmp_path: Path) -> None:
    """Two products of one input: MatMulIntegerToFloat; one behind them: DynamicQuantizeMatMul."""
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    stored = {n: rng.standard_normal(s).astype(np.float32) for n, s in (("a", (6, 16)), ("b", (6, 16)), ("v", (16, 5)))}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["one"], "/net/one/MatMul"),
        helper.make_node("MatMul", ["x", "b"], ["two"], "/net/two/MatMul"),
        helper.make_node("Mul", ["one", "two"], ["m"], "/net/mul/Mul"),
        helper.make_node("MatMul", ["m", "v"], ["y"], "/net/last/MatMul"),
    ]
    onnx.save(model(nodes, stored), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 4
    ort.InferenceSession(tmp_path / "int8.onnx", options)
    theirs = onnx.load(tmp_path / "optimized.onnx")
    assert {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"} <= {node.op_type for node in theirs.graph.node}
    twin = floated(theirs)
    assert not has_integer_layers(twin)
    np.testing.assert_allclose(opened(twin, ["y"])(FEEDS)["y"], opened(theirs, ["y"])(FEEDS)["y"], rtol=1e-5, atol=1e-5)
    assert found_for(tmp_path, theirs, model(nodes, stored)).kind == "quantization"


def attentive(seed: int = 0, *, attend: bool = True) -> onnx.ModelProto:
    """ONNX Runtime's own attention beside a softmax joined to what it reads: operators with integer forms of their own."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (6, 32), "qkv": (8, 24), "bias": (24,), "m": (64, 12), "n": (32, 12), "v": (12, 5)}
    stored = {name: (rng.standard_normal(shape) / 2).astype(np.float32) for name, shape in shapes.items()}
    attention = {"domain": "com.microsoft", "num_heads": 2}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "enter"),
        helper.make_node("Reshape", ["a", "steps"], ["s"], "lay"),
        helper.make_node("Attention", ["s", "qkv", "bias"], ["t"], "attend", **attention)
        if attend
        else helper.make_node("Tanh", ["s"], ["t"], "bend"),
        helper.make_node("Softmax", ["s"], ["p"], "soft", axis=-1),
        helper.make_node("Concat", ["p", "s"], ["j"], "join", axis=2),
        helper.make_node("Reshape", ["j", "row"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "m"], ["h"], "product"),
        helper.make_node("Reshape", ["t", "short"], ["g"], "flatten"),
        helper.make_node("MatMul", ["g", "n"], ["i"], "other"),
        helper.make_node("Add", ["h", "i"], ["k"], "sum"),
        helper.make_node("MatMul", ["k", "v"], ["y"], "head"),
    ]
    sizes = {"steps": [-1, 4, 8], "row": [-1, 64], "short": [-1, 32]}
    made = model(nodes, stored | {name: np.array(size, np.int64) for name, size in sizes.items()})
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def dynamically(folder: Path, of: onnx.ModelProto) -> onnx.ModelProto:
    onnx.save(of, folder / "float.onnx")
    kind = {"DefaultTensorType": TensorProto.FLOAT}  # shapes behind ONNX Runtime's own operators are not inferred
    quantize_dynamic(folder / "float.onnx", folder / "int8.onnx", extra_options=kind)
    return onnx.load(folder / "int8.onnx")


@pytest.mark.parametrize("how", HOW)
def test_softmax_and_concat_of_integers_answer_as_they_did(tmp_path: Path, how: dict[str, object]) -> None:
    theirs = quantized(tmp_path, attentive(attend=False), **how)  # the tool stumbles over what it cannot infer
    assert {"QLinearSoftmax", "QLinearConcat"} <= {node.op_type for node in theirs.graph.node}
    twin = floated(theirs)
    assert not [node.op_type for node in twin.graph.node if node.op_type.startswith("QLinear")]
    found = [opened(graph, ["y"])(FEEDS)["y"] for graph in (twin, theirs)]
    np.testing.assert_allclose(*found, atol=np.abs(found[1]).max() / 50)  # a step of 1/256 here or there


def test_attention_on_integers_is_read_and_anothers_weights_are_not_called_rounding(tmp_path: Path) -> None:
    kinds = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        theirs = dynamically(tmp_path / str(seed), attentive(seed))
        assert "QAttention" in {node.op_type for node in theirs.graph.node}
        twin = floated(theirs)
        assert "QAttention" not in {node.op_type for node in twin.graph.node}
        found = [opened(graph, ["y"])(FEEDS)["y"] for graph in (twin, theirs)]
        np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3)
        kinds.append(found_for(tmp_path / str(seed), theirs, attentive()).kind)
    assert kinds == ["quantization", "stale or wrong weights"]


def test_one_attentions_scale_doubled_is_named(tmp_path: Path) -> None:
    theirs = dynamically(tmp_path, attentive())
    node = next(one for one in theirs.graph.node if one.op_type == "QAttention")
    scale = next(one for one in theirs.graph.initializer if one.name == node.input[4])
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), scale.name))
    cause = found_for(tmp_path, theirs, attentive())
    assert cause.kind == "stale or wrong weights"
    assert "2 times the source's" in cause.sentence
    assert "attend" in cause.sentence
