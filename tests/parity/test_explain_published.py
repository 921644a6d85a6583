"""What public tools make of a file: nodes in another order, float16's end, integers that others moved or normalized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, quantize_dynamic, quantize_static

from parity.explain.experiment.quantized import unquantized
from parity.explain.graph.folding import folded, unfolded
from parity.explain.graph.gaps import difference
from parity.explain.graph.integers import floated
from parity.explain.graph.order import in_order_of
from parity.explain.graph.simulate import opened
from parity.explain.graph.weights import Weight
from tests.parity.foreign import found_for, model
from tests.parity.test_explain_integers import FEEDS, Calibrating


def forked(*, swapped: bool = False) -> onnx.ModelProto:
    """Two ways of one shape, told apart by their nodes' names alone. `swapped`: each has the other's weights."""
    rng = np.random.default_rng(3)
    stored = {name: rng.standard_normal((6, 12)).astype(np.float32) for name in ("w", "u")}
    one, other = ("u", "w") if swapped else ("w", "u")
    nodes = [
        helper.make_node("MatMul", ["x", one], ["a"], "MatMul_0"),
        helper.make_node("Relu", ["a"], ["r"], "Relu_1"),
        helper.make_node("MatMul", ["x", other], ["b"], "MatMul_2"),
        helper.make_node("Sigmoid", ["b"], ["s"], "Sigmoid_3"),
        helper.make_node("Mul", ["r", "s"], ["m"], "Mul_4"),
        helper.make_node("MatMul", ["m", "v"], ["y"], "MatMul_5"),
    ]
    return model(nodes, stored | {"v": rng.standard_normal((12, 5)).astype(np.float32)})


def turned(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same with the second way computed first."""
    nodes = list(graph.graph.node)
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    del copy.graph.node[:]
    copy.graph.node.extend([*nodes[2:4], *nodes[:2], *nodes[4:]])
    return copy


def quantized(folder: Path, of: onnx.ModelProto, form: QuantFormat) -> onnx.ModelProto:
    onnx.save(of, folder / "float.onnx")
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Calibrating(), quant_format=form)
    return onnx.load(folder / "int8.onnx")


def names(graph: onnx.ModelProto) -> list[str]:
    return [node.name for node in graph.graph.node]


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_quantized_layers_in_another_order_are_quantization(tmp_path: Path, form: QuantFormat) -> None:
    candidate = in_order_of(forked(), floated(quantized(tmp_path, turned(forked()), form)))
    cause = found_for(tmp_path, candidate, forked())
    assert cause.kind == "quantization", cause.sentence
    assert cause.second is None


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_quantized_weights_that_are_swapped_are_wrong_weights_whatever_the_order(
    tmp_path: Path, form: QuantFormat
) -> None:
    candidate = floated(quantized(tmp_path, turned(forked(swapped=True)), form))
    cause = found_for(tmp_path, in_order_of(forked(), candidate), forked())
    assert cause.kind == "stale or wrong weights", cause.sentence
    assert set(cause.modules) == {"MatMul_0", "MatMul_2"}


def test_nodes_in_the_sources_order_answer_as_before() -> None:
    found = in_order_of(forked(), turned(forked()))
    assert names(found) == names(forked())
    feeds = {"x": FEEDS["x"]}
    np.testing.assert_array_equal(opened(found, ["y"])(feeds)["y"], opened(turned(forked()), ["y"])(feeds)["y"])


def test_a_node_stays_behind_what_it_and_its_branches_read() -> None:
    """An If whose branch reads a tensor of the graph around it, before which its twin's place would put it."""
    info = helper.make_tensor_value_info
    branch = helper.make_graph([helper.make_node("Neg", ["b"], ["n"])], "g", [], [info("n", TensorProto.FLOAT, None)])
    nodes = [
        helper.make_node("Not", ["c"], ["d"], "Not_1"),
        helper.make_node("Abs", ["x"], ["b"], "Abs_2"),
        helper.make_node("If", ["d"], ["y"], "If_0", then_branch=branch, else_branch=branch),
    ]
    ports = [info("x", TensorProto.FLOAT, [2]), info("c", TensorProto.BOOL, [])]
    graph = helper.make_model(helper.make_graph(nodes, "g", ports, [info("y", TensorProto.FLOAT, [2])]))
    sound = onnx.ModelProto()
    sound.CopyFrom(graph)
    for node, number in zip(sound.graph.node, (2, 3, 1), strict=True):
        node.name = ("If_0", "Not_1", "Abs_2")[number - 1]
        node.op_type = node.name.split("_")[0]
    assert names(in_order_of(sound, graph)) == ["Not_1", "Abs_2", "If_0"]


@pytest.mark.parametrize(("size", "differs"), [(1e-8, False), (1e-3, True)])
def test_numbers_near_float16s_end_are_the_sources_and_larger_ones_are_not(size: float, differs: bool) -> None:
    """Both sides are off by a smallest step of float16 at most, or by a tenth: onnxconverter-common lifts to 1e-7."""
    ours = np.full(64, size, np.float32)
    theirs = np.maximum(ours * 0.9, 1e-7).astype(np.float16).astype(np.float32)
    gap = difference(Weight("m", "w", ours, 0.0), Weight("m", "w", theirs, 0.0))
    assert (gap is not None) == differs


def test_tensors_without_numbers_are_no_gap() -> None:
    nothing = Weight("Resize", "roi", np.empty(0, np.float32), 0.0)
    assert difference(nothing, nothing) is None


def normalized(*, mean: float = 0.5, names: str = "Conv_{}") -> onnx.ModelProto:
    """Two convolutions, a normalization behind each, and a head."""
    rng = np.random.default_rng(5)
    stored = {
        "k": rng.standard_normal((8, 1, 1, 3)).astype(np.float32),
        "j": rng.standard_normal((4, 8, 1, 1)).astype(np.float32),
        "v": rng.standard_normal((16, 5)).astype(np.float32),
    }
    for layer, channels in (("k", 8), ("j", 4)):
        stored[f"{layer}_factor"] = rng.uniform(0.5, 2, channels).astype(np.float32)
        stored[f"{layer}_shift"] = rng.standard_normal(channels).astype(np.float32)
        stored[f"{layer}_mean"] = np.full(channels, mean, np.float32)
        stored[f"{layer}_variance"] = rng.uniform(0.01, 9, channels).astype(np.float32)
    both = {f"{layer}_out": [f"{layer}_{part}" for part in ("factor", "shift", "mean", "variance")] for layer in "kj"}
    nodes = [
        helper.make_node("Unsqueeze", ["x", "both"], ["picture"], "lift"),
        helper.make_node("Conv", ["picture", "k"], ["k_out"], names.format(0)),
        helper.make_node("BatchNormalization", ["k_out", *both["k_out"]], ["c"], "BatchNormalization_1"),
        helper.make_node("Relu", ["c"], ["r"], "Relu_2"),
        helper.make_node("Conv", ["r", "j"], ["j_out"], names.format(3)),
        helper.make_node("BatchNormalization", ["j_out", *both["j_out"]], ["d"], "BatchNormalization_4"),
        helper.make_node("Flatten", ["d"], ["f"], "Flatten_5"),
        helper.make_node("MatMul", ["f", "v"], ["y"], "MatMul_6"),
    ]
    return model(nodes, stored | {"both": np.array([1, 2], np.int64)})


def integer_convolutions(folder: Path, of: onnx.ModelProto) -> onnx.ModelProto:
    onnx.save(of, folder / "float.onnx")
    quantize_dynamic(folder / "float.onnx", folder / "int8.onnx", op_types_to_quantize=["Conv"])
    return floated(onnx.load(folder / "int8.onnx"))


def test_normalizations_behind_convolutions_of_integers_are_given_off_by_the_sources(tmp_path: Path) -> None:
    """The source's have taken them in, and its nodes have other names; only a tensor is called the same."""
    candidate = integer_convolutions(tmp_path, normalized())
    apart = unfolded(folded(normalized(names="node_{}")), candidate)
    feeds = {"x": FEEDS["x"]}
    sound = opened(normalized(), ["y"])(feeds)["y"]
    np.testing.assert_allclose(opened(apart, ["y"])(feeds)["y"], sound, rtol=1e-4, atol=1e-4)
    cause = found_for(tmp_path, in_order_of(apart, candidate), apart)
    assert cause.kind == "quantization", cause.sentence


def test_another_normalization_behind_convolutions_of_integers_is_no_quantization(tmp_path: Path) -> None:
    candidate = integer_convolutions(tmp_path, normalized(mean=-2))
    apart = unfolded(folded(normalized()), candidate)
    cause = found_for(tmp_path, in_order_of(apart, candidate), apart)
    assert cause.kind != "quantization", cause.sentence


@pytest.mark.parametrize(("operator", "moves"), [("Split", True), ("Not", False)])
def test_integers_that_are_only_moved_are_left_in_float_too(operator: str, moves: bool) -> None:
    """A Split gives the same numbers at other places; what others give is left as it is."""
    stored = {"s": np.float32(0.5), "z": np.uint8(0), "v": np.ones((3, 5), np.float32)}
    ways = ["h", "unread"] if moves else ["h"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node(operator, ["q"], ways),
        helper.make_node("DequantizeLinear", ["h", "s", "z"], ["g"]),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    kinds = [node.op_type for node in unquantized(model(nodes, stored), "none").graph.node]
    assert kinds == (["Clip", "Split", "Identity", "MatMul"] if moves else [node.op_type for node in nodes])


@pytest.mark.parametrize(("moved", "said"), [(0.0, "quantization"), (0.5, "stale or wrong weights")])
def test_a_range_that_leaves_out_a_silus_negative_numbers_is_quantization(
    tmp_path: Path, moved: float, said: str
) -> None:
    """Its least value is 0, as one is that stands for a Relu; the source has none."""
    rng = np.random.default_rng(11)
    stored = {"w": rng.standard_normal((6, 16)) / 9, "v": rng.standard_normal((16, 5))}
    stored = {name: array.astype(np.float32) for name, array in stored.items()}
    ways = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "MatMul_0"),
        helper.make_node("Sigmoid", ["h"], ["s"], "Sigmoid_1"),
        helper.make_node("Mul", ["h", "s"], ["m"], "Mul_2"),
        helper.make_node("MatMul", ["m", "v"], ["y"], "MatMul_3"),
    ]
    sound = model(ways, stored)
    between = [
        helper.make_node("QuantizeLinear", ["m", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
    ]
    other = {"v": (stored["v"] + moved * rng.standard_normal((16, 5))).astype(np.float32)}
    ends = {"step": np.float32(0.01), "zero": np.uint8(0)}
    last = helper.make_node("MatMul", ["d", "v"], ["y"], "MatMul_3")
    cause = found_for(tmp_path, model([*ways[:3], *between, last], stored | ends | other), sound)
    assert cause.kind == said, cause.sentence


@pytest.mark.parametrize(
    ("moved", "said"), [(0.0, {"runtime precision"}), (0.02, {"stale or wrong weights", "export"})]
)
def test_a_file_in_half_precision_whose_normalizations_stand_apart(
    tmp_path: Path, moved: float, said: set[str]
) -> None:
    """Folded, a bias is the difference of numbers that were each rounded: no number of float16 any more."""
    narrow = normalized(mean=3)
    for tensor in narrow.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            other = array * (1 + moved * np.random.default_rng(1).uniform(-1, 1, array.shape))
            tensor.CopyFrom(numpy_helper.from_array(other.astype(np.float16), tensor.name))
    enters, leaves = ({"to": to} for to in (TensorProto.FLOAT16, TensorProto.FLOAT))
    narrow.graph.node[0].input[0], narrow.graph.node[-1].output[0] = "halved", "answer"
    narrow.graph.node.insert(0, helper.make_node("Cast", ["x"], ["halved"], **enters))
    narrow.graph.node.append(helper.make_node("Cast", ["answer"], ["y"], **leaves))
    cause = found_for(tmp_path, narrow, folded(normalized(mean=3)))
    assert cause.kind in said, cause.sentence
