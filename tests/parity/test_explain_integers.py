"""Artifacts that ONNX Runtime's own tool quantized dynamically: of the source, of other weights, of another network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

from parity.explain.experiment.told import Cause
from parity.explain.graph.gaps import difference, gaps
from parity.explain.graph.integers import floated, has_integer_layers
from parity.explain.graph.simulate import opened
from parity.explain.graph.weights import Weight, weights_of
from tests.parity.foreign import SIGNATURE, found_for, model, network

FEEDS = {"x": np.random.default_rng(7).standard_normal((16, 6)).astype(np.float32)}


class Calibrating(CalibrationDataReader):  # type: ignore[misc]  # untyped in ONNX Runtime
    """What the suite's own rows are like, once."""

    def __init__(self) -> None:
        self.left = [{"x": FEEDS["x"] + np.arange(6, dtype=np.float32)}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def deep(seed: int = 0, *, wide: int = 24, act: str = "Tanh") -> onnx.ModelProto:
    """A convolution, a Gemm, an LSTM over the batch and a product; the nodes' names tell no modules."""
    rng = np.random.default_rng(seed)
    shapes = {
        "k": (8, 1, 1, 3), "kb": (8,), "g": (wide, 32), "gb": (wide,),
        "W": (1, 32, wide), "R": (1, 32, 8), "B": (1, 64), "v": (8, 5),
    }  # fmt: skip
    stored = {name: (rng.standard_normal(shape) / 2).astype(np.float32) for name, shape in shapes.items()}
    axes = {"one": [1], "both": [1, 2]}
    nodes = [
        helper.make_node("Unsqueeze", ["x", "both"], ["picture"], "lift"),
        helper.make_node("Conv", ["picture", "k", "kb"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "g", "gb"], ["h"], "gemm", transB=1),
        helper.make_node(act, ["h"], ["t"], "act"),
        helper.make_node("Unsqueeze", ["t", "one"], ["steps"], "lay"),
        helper.make_node("LSTM", ["steps", "W", "R", "B"], ["states"], "lstm", hidden_size=8),
        helper.make_node("Squeeze", ["states", "both"], ["s"], "drop"),
        helper.make_node("MatMul", ["s", "v"], ["y"], "head"),
    ]
    return model(nodes, stored | {name: np.array(v, np.int64) for name, v in axes.items()})


def quantized(folder: Path, source: onnx.ModelProto, **how: object) -> onnx.ModelProto:
    onnx.save(source, folder / "float.onnx")
    quantize_dynamic(folder / "float.onnx", folder / "int8.onnx", **how)  # type: ignore[arg-type]
    return onnx.load(folder / "int8.onnx")


def said_of(folder: Path, source: onnx.ModelProto, theirs: onnx.ModelProto, **how: object) -> Cause:
    return found_for(folder, quantized(folder, theirs, **how), source)


HOW = [{"weight_type": QuantType.QInt8}, {"weight_type": QuantType.QUInt8}, {"per_channel": True}]


def test_the_tool_makes_the_operators_that_these_tests_are_about(tmp_path: Path) -> None:
    kinds = Counter(node.op_type for node in quantized(tmp_path, deep()).graph.node)
    assert {"ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM", "DynamicQuantizeLinear"} <= kinds.keys()


@pytest.mark.parametrize("how", HOW)
def test_integer_layers_in_float_operators_answer_as_they_did(tmp_path: Path, how: dict[str, object]) -> None:
    theirs = quantized(tmp_path, network(), **how)
    twin = floated(theirs)
    assert has_integer_layers(theirs)
    assert not has_integer_layers(twin)
    np.testing.assert_allclose(opened(twin, ["y"])(FEEDS)["y"], opened(theirs, ["y"])(FEEDS)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", HOW)
def test_an_lstms_integers_are_read_by_direction_and_by_channel(tmp_path: Path, how: dict[str, object]) -> None:
    """Its own rounding of what it reads is left out: nearer to what it answered than 30 dB, not equal."""
    theirs = quantized(tmp_path, deep(), **how)
    twin = floated(theirs)
    assert not has_integer_layers(twin)
    one, other = (opened(graph, ["y"])(FEEDS)["y"] for graph in (theirs, twin))
    assert ((one - other) ** 2).sum() < 1e-3 * (one**2).sum()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("source", [network, deep])
def test_the_source_itself_quantized_is_quantization(tmp_path: Path, source: type, how: dict[str, object]) -> None:
    cause = said_of(tmp_path, source(), source(), **how)
    assert cause.kind == "quantization"
    assert "with its layers back in float" in cause.sentence
    assert cause.explained
    assert cause.second is None


@pytest.mark.parametrize("how", HOW)
def test_another_seed_quantized_is_wrong_weights(tmp_path: Path, how: dict[str, object]) -> None:
    cause = said_of(tmp_path, deep(0), deep(1), **how)
    assert cause.kind == "stale or wrong weights"
    assert "8 of the artifact's" in cause.sentence
    assert "with the source's in their place 100 % of the error is gone" in cause.sentence
    assert cause.second is not None  # it was quantized as well, which the experiment bears out
    assert cause.second.kind == "quantization"


def test_weights_trained_a_little_further_are_not_called_rounding(tmp_path: Path) -> None:
    """A twentieth of their spread: twelve times half a step."""
    moved = network()
    for tensor in moved.graph.initializer:
        array = numpy_helper.to_array(tensor)
        noise = np.random.default_rng(3).standard_normal(array.shape) * array.std() / 20
        tensor.CopyFrom(numpy_helper.from_array((array + noise).astype(np.float32), tensor.name))
    assert said_of(tmp_path, network(), moved).kind == "stale or wrong weights"


def test_one_layers_scale_doubled_is_wrong_weights_of_that_layer(tmp_path: Path) -> None:
    theirs = quantized(tmp_path, network())
    scale = next(t for t in theirs.graph.initializer if t.name == "v_scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), "v_scale"))
    cause = found_for(tmp_path, theirs)
    assert cause.kind == "stale or wrong weights"
    assert "those of `net.last` are 2 times the source's" in cause.sentence


def test_another_architecture_quantized_is_another_network(tmp_path: Path) -> None:
    cause = said_of(tmp_path, network(), deep())
    assert cause.kind == "stale or wrong weights"
    assert "another network" in cause.sentence


def test_other_weights_in_another_wiring_are_not_quantization(tmp_path: Path) -> None:
    """The same shapes, so that every tensor can be exchanged; what answers is another function all the same."""
    cause = said_of(tmp_path, deep(0), deep(1, act="Softmax"))
    assert cause.kind == "stale or wrong weights"


def test_a_step_is_that_of_its_own_channel() -> None:
    """Channels of 1 and of 1/1000: what half a step of the first hides is five hundred steps of the second."""
    steps = np.array([[1.0], [1e-3]]) / 127
    ours = np.random.default_rng(0).uniform(-1, 1, (2, 64)) * np.array([[1.0], [1e-3]])
    within, beyond = (Weight("m", "w", ours + share * np.array([[0.0], [1e-3 / 127]]), steps) for share in (0.45, 0.9))
    source = Weight("m", "w", ours, 0.0)
    assert difference(source, within) is None
    assert difference(source, beyond) is not None


def test_a_gemm_and_the_matmul_that_it_became_hold_the_same_weights(tmp_path: Path) -> None:
    ours = weights_of(deep())
    assert gaps(ours, weights_of(floated(quantized(tmp_path, deep())))) == []
    other = gaps(ours, weights_of(floated(quantized(tmp_path, deep(1)))))
    assert "MatMul" in {their[1] for _, their, _ in other}
    assert ("", "LSTM", 0, 1) in {their for _, their, _ in other}


def test_an_integer_layer_whose_scale_is_not_stored_stays_as_it_is(tmp_path: Path) -> None:
    theirs = quantized(tmp_path, network())
    product = next(n for n in theirs.graph.node if n.op_type == "MatMulInteger")
    theirs.graph.node.append(helper.make_node("Identity", [product.output[0]], ["another reader"]))
    kinds = Counter(node.op_type for node in floated(theirs).graph.node)
    assert kinds["MatMulInteger"] == 1
    assert SIGNATURE.outputs[0].name in {name for node in floated(theirs).graph.node for name in node.output}


@pytest.mark.parametrize(("theirs", "kind"), [(0, "quantization"), (1, "stale or wrong weights")])
def test_a_calibrated_artifact_is_judged_by_its_weights_too(tmp_path: Path, theirs: int, kind: str) -> None:
    onnx.save(deep(theirs), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", Calibrating(), op_types_to_quantize=["Conv", "MatMul"]
    )
    assert found_for(tmp_path, onnx.load(tmp_path / "int8.onnx"), deep(0)).kind == kind
