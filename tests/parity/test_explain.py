"""The parts of `explain` that need no project: the weights' rule, layers put back to float, rows of answers, fitness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compile.signature import Axis, Signature, Tensor
from parity.explain.damage import restored
from parity.explain.graph.gaps import difference
from parity.explain.graph.rounding import rounded
from parity.explain.graph.simulate import Batch, opened
from parity.explain.graph.tensors import compare, decibel, noise_over_signal
from parity.explain.graph.weights import Weight
from parity.explain.mistake.hypotheses import Bench, Hypothesis, tried
from parity.explain.mistake.postprocessing import suspicions
from parity.explain.station import Explained, failover

RNG = np.random.default_rng(0)
SIGNATURE = Signature(
    (Tensor("x", "float32", ("batch", 4)),), (Tensor("y", "float32", ("batch", 5)),), {"batch": Axis(1, 8, 64)}
)


def two_layers(weights: list[np.ndarray], quantized: bool = False) -> onnx.ModelProto:
    """x @ a, relu, @ b; with `quantized`, both products read an integer copy of what they multiply."""
    nodes: list[onnx.NodeProto] = []
    stored = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    stored += [numpy_helper.from_array(np.float32(0.05), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    read = "x"
    for i, name in enumerate(("a", "b")):
        factors = [read, f"w{i}"]
        for place, factor in enumerate(factors if quantized else ()):
            stem = f"{name}_{place}"
            if place:
                integers = np.round(weights[i] / 0.05).astype(np.int8)
                stored.append(numpy_helper.from_array(integers, f"{stem}_q"))
            else:
                nodes.append(helper.make_node("QuantizeLinear", [factor, "scale", "zero"], [f"{stem}_q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{stem}_q", "scale", "zero"], [f"{stem}_d"]))
            factors[place] = f"{stem}_d"
        nodes.append(helper.make_node("MatMul", factors, ["y" if i else "hidden"], name=f"/{name}/MatMul"))
        if i == 0:
            nodes.append(helper.make_node("Relu", ["hidden"], ["relu"], name="/act/Relu"))
        read = "relu"
    value = helper.make_tensor_value_info
    ports = [value("x", TensorProto.FLOAT, ["batch", 4])], [value("y", TensorProto.FLOAT, ["batch", 5])]
    return helper.make_model(
        helper.make_graph(nodes, "g", *ports, stored), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )


@pytest.fixture
def weights() -> list[np.ndarray]:
    return [RNG.standard_normal((4, 6)).astype(np.float32), RNG.standard_normal((6, 5)).astype(np.float32)]


def test_a_layer_put_back_to_float_computes_what_the_float_graph_computes(weights: list[np.ndarray]) -> None:
    exact, quantized = two_layers(weights), two_layers(weights, quantized=True)
    feeds = {"x": RNG.standard_normal((8, 4)).astype(np.float32)}
    truth = np.maximum(feeds["x"] @ weights[0], 0) @ weights[1]
    assert np.abs(opened(quantized, ["y"])(feeds)["y"] - truth).max() > 1e-3
    both = opened(restored(exact, quantized, ["a", "b"]), ["y"])(feeds)["y"]
    np.testing.assert_allclose(both, truth, rtol=1e-5, atol=1e-6)


def test_local_noise_is_a_layers_own_and_not_what_arrives(weights: list[np.ndarray]) -> None:
    broken = [weights[0] * np.float32(1.5), weights[1]]
    found = {
        one.tensor: one
        for one in compare(two_layers(weights), two_layers(broken), [{"x": np.ones((2, 4), np.float32)}])
    }
    assert found["hidden"].local == pytest.approx(0.25)  # (1.5 - 1) squared
    assert found["y"].local == 0
    assert found["y"].noise == pytest.approx(0.25, rel=1e-5)
    assert decibel(0.25) == pytest.approx(6.0206, abs=1e-4)  # 10 log10 4


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_what_is_not_finite_is_infinitely_noisy(missing: float) -> None:
    assert noise_over_signal([np.ones(3)], [np.array([1, missing, 1])]) == np.inf


def test_weights_within_half_a_step_are_the_same_weights_and_a_factor_is_told() -> None:
    exact = RNG.standard_normal((6, 7)).astype(np.float32)
    step = 0.02
    decoded = np.round(exact / step) * step
    assert difference(Weight("m", "w", exact, 0), Weight("m", "w", decoded, step)) is None
    gap = difference(Weight("m", "w", exact, 0), Weight("m", "w", 2 * decoded, 2 * step))
    assert gap is not None
    assert gap.factor == pytest.approx(2, rel=0.01)
    assert gap.noise < 0.001
    assert difference(Weight("m", "w", exact, 0), Weight("m", "w", decoded + 0.05, step)) is not None


def test_rounding_to_bfloat16_moves_factors_by_at_most_its_last_place(weights: list[np.ndarray]) -> None:
    one = two_layers(weights)
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    exact, narrow = (opened(m, ["hidden"])({"x": x})["hidden"] for m in _with_hidden(one, rounded(one, "bfloat16")))
    bound = (np.abs(x) @ np.abs(weights[0])) * (2 * 2.0**-8 + 2.0**-16)  # the unit roundoff of 8 bits in each factor
    assert np.abs(exact - narrow).max() > 0
    assert (np.abs(exact - narrow) <= bound + 1e-6).all()


def _with_hidden(*models: onnx.ModelProto) -> list[onnx.ModelProto]:
    from parity.explain.graph.simulate import exposing

    return [exposing(model, ["hidden"]) for model in models]


def bench(found: np.ndarray, sound: np.ndarray) -> Bench:
    batches: list[Batch] = [{"x": np.zeros((len(found), 4), np.float32)}]
    return Bench(SIGNATURE, lambda feeds: feeds, batches, [{"y": sound}], [{"y": found}])


def test_noise_supports_no_hypothesis_about_outputs() -> None:
    sound = RNG.standard_normal((64, 5))
    made = bench(sound + RNG.standard_normal(sound.shape), sound)
    assert not any(trial.holds for trial in tried(made, list(suspicions(made, {}))))


def test_rows_shifted_by_three_are_told_as_such() -> None:
    sound = RNG.standard_normal((64, 5))
    made = bench(np.roll(sound, 3, axis=0), sound)
    best = tried(made, list(suspicions(made, {})))[0]
    assert best.name == "the candidate's rows of `y` are shifted by 3"
    assert best.score == pytest.approx(1)


def test_a_constant_explains_no_candidate_that_moves() -> None:
    sound = 10 * RNG.standard_normal((64, 5))
    made = bench(0.1 * RNG.standard_normal((64, 5)), sound)
    constant = Hypothesis("constant", "", lambda: [{"y": np.zeros((64, 5))}])
    assert not tried(made, [constant])[0].holds


@pytest.mark.parametrize(
    ("status", "document", "fit"),
    [
        ("PASS", {"explained": True, "cause": "quantization", "sentence": ""}, True),
        ("PASS", {"explained": True, "cause": "none", "sentence": ""}, True),
        ("PASS", {"explained": False, "cause": "unexplained", "sentence": "?"}, False),
        ("PASS", None, False),
        ("FAIL", {"explained": True, "cause": "none", "sentence": ""}, False),
    ],
)
def test_only_what_passed_and_is_explained_is_fit_for_failover(
    status: str, document: dict[str, Any] | None, fit: bool
) -> None:
    explained = None if document is None else Explained(Path(), document)
    assert failover(status, explained)[0] is fit
