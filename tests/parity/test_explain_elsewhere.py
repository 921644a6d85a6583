"""Artifacts made by others, as published: branches, other names and widths, other signatures, and more than one defect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compile.errors import ConfigError, ToolchainError
from compile.signature import Signature, Tensor
from parity.explain.experiment.ladder import Rung
from parity.explain.experiment.structure import changes
from parity.explain.graph.adopt import adopted
from parity.explain.graph.branches import straightened
from parity.explain.graph.gaps import gaps
from parity.explain.graph.simulate import Batch, opened
from parity.explain.graph.weights import weights_of
from parity.explain.mistake.hypotheses import Bench, Hypothesis, affine, tried
from tests.parity.foreign import RNG, SIGNATURE, WEIGHTS, found_for, model, network, value


def branched(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The same network behind an If on the input's width, its weights in the branch; the other branch cannot be run."""
    inner = network(weights, stem="inner").graph
    good = helper.make_graph(
        list(inner.node), "good", [], [value("y", TensorProto.FLOAT, None)], list(inner.initializer)
    )
    bad = helper.make_graph(
        [helper.make_node("MatMul", ["x", "other"], ["y"])], "bad", [], [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((9, 5), np.float32), "other")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1),
        helper.make_node("Equal", ["shape", "six"], ["wide"]),
        helper.make_node("Squeeze", ["wide"], ["is_wide"]),
        helper.make_node("If", ["is_wide"], ["y"], then_branch=good, else_branch=bad),
    ]
    found = model(nodes, {"six": np.array([6], np.int64)})
    found.graph.input[0].CopyFrom(value("x", TensorProto.FLOAT, ["batch", "width"]))
    return found


def scaled(name: str, factor: float) -> dict[str, np.ndarray]:
    return WEIGHTS | {name: (WEIGHTS[name] * factor).astype(np.float32)}


def reading(candidate: onnx.ModelProto, op: str, *inputs: str, **attributes: object) -> onnx.ModelProto:
    """The candidate behind one more operator on its input."""
    for node in candidate.graph.node:
        node.input[:] = ["bent" if name == "x" else name for name in node.input]
    candidate.graph.node.insert(0, helper.make_node(op, ["x", *inputs], ["bent"], **attributes))
    return candidate


def stored(candidate: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    candidate.graph.initializer.append(numpy_helper.from_array(array, name))


def test_the_branch_that_the_suite_takes_stands_in_the_place_of_its_if() -> None:
    feeds = [{"x": RNG.standard_normal((8, 6)).astype(np.float32)}]
    flat = straightened(branched(WEIGHTS), feeds, SIGNATURE)
    assert not [node for node in flat.graph.node if node.op_type == "If"]
    np.testing.assert_array_equal(opened(flat, ["y"])(feeds[0])["y"], opened(network(), ["y"])(feeds[0])["y"])


def test_an_if_that_goes_both_ways_stays() -> None:
    """Its condition is whether the first number is positive."""
    branch = [
        helper.make_graph([helper.make_node(op, ["whole"], ["y"])], op, [], [value("y", TensorProto.FLOAT, None)])
        for op in ("Identity", "Neg")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["whole"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "nought"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch[0], else_branch=branch[1]),
    ]
    forked = model(nodes, {"wide": np.ones((6, 5), np.float32), "nought": np.float32(0)})  # type: ignore[dict-item]
    feeds = [{"x": np.full((2, 6), sign, np.float32)} for sign in (1, -1)]
    assert straightened(forked, feeds, SIGNATURE) is forked


def test_weights_inside_a_branch_are_compared_under_other_names() -> None:
    feeds = [{"x": RNG.standard_normal((8, 6)).astype(np.float32)}]
    ours = weights_of(network())
    assert gaps(ours, weights_of(straightened(branched(WEIGHTS), feeds, SIGNATURE))) == []
    other = {name: RNG.standard_normal(array.shape).astype(np.float32) for name, array in WEIGHTS.items()}
    found = gaps(ours, weights_of(straightened(branched(other), feeds, SIGNATURE)))
    assert [our[1] for our, _, _ in found] == ["MatMul", "Add", "MatMul"]


def test_a_file_in_half_precision_throughout_is_adopted_with_casts_at_its_border(tmp_path: Path) -> None:
    narrow = network({name: array.astype(np.float16) for name, array in WEIGHTS.items()})
    for port in (*narrow.graph.input, *narrow.graph.output):
        port.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(narrow, tmp_path / "half.onnx")
    graph = onnx.load(adopted(tmp_path / "half.onnx", SIGNATURE, tmp_path / "made.onnx"))
    feeds = {"x": RNG.standard_normal((8, 6)).astype(np.float32)}
    answer = opened(graph, ["y"])(feeds)["y"]
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, opened(network(), ["y"])(feeds)["y"], rtol=0.02, atol=0.02)


def test_an_input_that_the_file_does_not_have_is_taken_and_not_read(tmp_path: Path) -> None:
    """A model for one sampling rate, beside one that is told the rate."""
    onnx.save(network(), tmp_path / "theirs.onnx")
    wider = Signature((*SIGNATURE.inputs, Tensor("rate", "int64", ())), SIGNATURE.outputs, SIGNATURE.axes)
    graph = onnx.load(adopted(tmp_path / "theirs.onnx", wider, tmp_path / "made.onnx"))
    assert [port.name for port in graph.graph.input] == ["x", "rate"]
    feeds = {"x": np.ones((1, 6), np.float32), "rate": np.array(16000, np.int64)}
    np.testing.assert_array_equal(opened(graph, ["y"])(feeds)["y"], opened(network(), ["y"])(feeds)["y"])


@pytest.mark.parametrize(
    ("dtype", "shape"), [(TensorProto.INT64, ["batch", 6]), (TensorProto.FLOAT, ["batch", 7]), (TensorProto.FLOAT, [6])]
)
def test_another_signature_is_refused_and_both_are_shown(tmp_path: Path, dtype: int, shape: list[str | int]) -> None:
    theirs = network()
    theirs.graph.input[0].CopyFrom(value("tokens", dtype, shape))
    for node in theirs.graph.node:
        node.input[:] = ["tokens" if name == "x" else name for name in node.input]
    if dtype == TensorProto.INT64:
        theirs.graph.node.insert(0, helper.make_node("Cast", ["tokens"], ["wide"], to=TensorProto.FLOAT))
        theirs.graph.node[1].input[0] = "wide"
    onnx.save(theirs, tmp_path / "theirs.onnx")
    with pytest.raises(
        ConfigError, match=r"another signature: its inputs are tokens .*; the model's config has x float32"
    ):
        adopted(tmp_path / "theirs.onnx", SIGNATURE, tmp_path / "made.onnx")


def test_a_hypothesis_that_the_sound_graph_cannot_be_run_under_is_passed_over() -> None:
    """An id shifted past the table's end: that is no mistake that anybody made, and no reason to give up."""

    def past_the_end() -> list[Batch]:
        raise ToolchainError("indices element out of data bounds")

    answers = [{"y": RNG.standard_normal((8, 5)).astype(np.float32)}]
    doubled = [{"y": 2 * answers[0]["y"]}]
    bench = Bench(SIGNATURE, lambda feeds: feeds, answers, answers, doubled)
    trials = tried(bench, [Hypothesis("past", "", past_the_end), Hypothesis("twice", "", lambda: doubled)])
    assert [trial.name for trial in trials] == ["twice"]


def test_an_operator_left_out_shows_in_who_reads_it() -> None:
    [change] = changes(network(), network(relu=False))
    assert change.sentence == "the source's `net.act` is missing"
    assert "net.last" in change.modules


def test_a_module_that_ends_in_another_operator_shows_in_who_reads_it() -> None:
    other = network()
    next(n for n in other.graph.node if n.op_type == "Relu").op_type = "Abs"
    [change] = changes(network(), other)
    assert change.sentence == "`net.act` is computed by Abs, in the source's graph by Relu"
    assert change.read_by == {"net.last"}
    assert change.modules == {"net.act"}


def test_classes_in_another_order_inside_the_last_layer_are_a_label_mistake(tmp_path: Path) -> None:
    cause = found_for(tmp_path, network(WEIGHTS | {"v": WEIGHTS["v"][:, [1, 0, 2, 4, 3]]}))
    assert cause.kind == "pre/post-processing"
    assert "candidate [0, 1, 2, 3, 4] is source [1, 0, 2, 4, 3]" in cause.sentence
    assert "`net.last` holds them so" in cause.sentence
    (tmp_path / "other").mkdir()
    hidden = network(WEIGHTS | {"w": WEIGHTS["w"][:, ::-1].copy()})
    assert found_for(tmp_path / "other", hidden).kind == "stale or wrong weights"


def test_weights_cut_off_to_bfloat16_are_the_sources_own_in_fewer_bits(tmp_path: Path) -> None:
    cut = {k: (a.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).reshape(a.shape) for k, a in WEIGHTS.items()}
    cause = found_for(tmp_path, network(cut))
    assert cause.kind == "runtime precision"
    assert "stored in bfloat16" in cause.sentence
    assert cause.second is None


def test_one_wrong_layer_has_no_second_cause(tmp_path: Path) -> None:
    cause = found_for(tmp_path, network(scaled("w", 1.5)))
    assert cause.kind == "stale or wrong weights"
    assert cause.second is None


def test_wrong_weights_under_a_swapped_input_are_both_named(tmp_path: Path) -> None:
    both = reading(network(scaled("v", 1.6)), "Gather", "order", axis=1)
    stored(both, "order", np.array([5, 1, 2, 3, 4, 0], np.int64))
    cause = found_for(tmp_path, both)
    assert cause.second is not None
    assert {cause.kind, cause.second.kind} == {"pre/post-processing", "stale or wrong weights"}
    assert "columns 0 and 5 swapped" in cause.sentence + cause.second.sentence
    assert "1.6 times" in cause.sentence + cause.second.sentence
    assert cause.explained


def test_two_mistakes_around_the_model_are_both_named(tmp_path: Path) -> None:
    """Columns swapped and ten times as large: neither alone reproduces the answers."""
    both = reading(reading(network(), "Gather", "order", axis=1), "Mul", "ten")
    both.graph.node[1].output[0] = "turned"
    both.graph.node[0].output[0] = "larger"
    both.graph.node[1].input[0] = "larger"
    both.graph.node[2].input[0] = "turned"
    stored(both, "order", np.array([5, 1, 2, 3, 4, 0], np.int64))
    stored(both, "ten", np.float32(10))  # type: ignore[arg-type]
    cause = found_for(tmp_path, both)
    assert cause.kind == "pre/post-processing"
    assert "`x` passes through Mul, Gather before it reaches the model" in cause.sentence
    assert cause.explained


def test_noise_beneath_wrong_weights_is_a_second_cause_that_nothing_explains(tmp_path: Path) -> None:
    noisy = network(scaled("w", 2.0))
    noisy.graph.node[-1].output[0] = "quiet"
    stored(noisy, "steps", np.float32(0.5))  # type: ignore[arg-type]
    noisy.graph.node.extend(
        [
            helper.make_node("RandomNormalLike", ["quiet"], ["noise"], scale=1.0, seed=4.0),
            helper.make_node("Add", ["quiet", "noise"], ["y"]),
        ]
    )
    cause = found_for(tmp_path, noisy)
    assert cause.kind == "stale or wrong weights"
    assert cause.second is not None
    assert cause.second.kind == "unexplained"
    assert not cause.explained


@pytest.mark.parametrize("rounds", [True, False])
def test_quantization_beneath_weights_that_are_far_off_is_told_though_it_is_little_beside_them(
    tmp_path: Path, rounds: bool
) -> None:
    """Thirty times too large: what eight bits round is a hundred-thousandth of that error."""
    far = network(WEIGHTS | {"v": np.random.default_rng(4).standard_normal((16, 5)).astype(np.float32) * 30})
    if rounds:
        far.graph.node.insert(3, helper.make_node("DynamicQuantizeLinear", ["r"], ["q", "scale", "zero"]))
        far.graph.node.insert(4, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]))
        far.graph.node[5].input[0] = "d"
    cause = found_for(tmp_path, far)
    assert cause.kind == "stale or wrong weights"
    assert (cause.second is not None) is rounds
    assert cause.second is None or cause.second.kind == "quantization"
    assert cause.explained


def test_a_network_of_other_shapes_is_called_another_network(tmp_path: Path) -> None:
    other = {name: RNG.standard_normal(shape) for name, shape in (("w", (6, 40)), ("b", (40,)), ("v", (40, 5)))}
    cause = found_for(tmp_path, network({name: array.astype(np.float32) for name, array in other.items()}))
    assert cause.kind == "stale or wrong weights"
    assert "another network: 3 of its 3 weight tensors" in cause.sentence


def test_what_cannot_be_run_is_never_called_healthy() -> None:
    from parity.explain.diagnose import _finding, _unanswered

    ran = Rung("compiled artifact", Path("outputs"))
    crashed = Rung("artifact as found", None, "Got invalid dimensions for input")
    found = _unanswered([ran, crashed])
    assert found is not None
    document = json.loads(json.dumps(_finding(found)))
    assert document["cause"] == "unexplained"
    assert not document["explained"]
    assert "Got invalid dimensions" in document["sentence"]
    assert _unanswered([ran, Rung("artifact as found", Path("outputs"))]) is None


def test_an_offset_that_only_rounding_made_is_not_told() -> None:
    assert affine(1.1, -1.022e-9, 3.0) == "× 1.1"
    assert affine(0.5, -0.2, 1.0) == "× 0.5 -0.2"
