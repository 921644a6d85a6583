"""Operators put in between, tensors handed to the wrong reader: what was planted is what is named, and put right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from parity.explain.experiment.inner import COARSEST, changes_that_tell
from parity.explain.experiment.ladder import Rung, Standing
from parity.explain.experiment.structure import changes
from parity.explain.graph.graft import with_modules
from parity.explain.graph.simulate import opened
from parity.explain.graph.tensors import Diverging
from tests.parity.foreign import case, found_for, model, network

RNG = np.random.default_rng(5)
FEEDS = {"x": RNG.standard_normal((8, 6)).astype(np.float32)}
STORED = {
    "w": RNG.standard_normal((6, 24)).astype(np.float32),
    "v": RNG.standard_normal((8, 5)).astype(np.float32),
}


def parted(order: tuple[str, str, str] = ("q", "k", "g"), reads: tuple[str, str] = ("q", "k")) -> onnx.ModelProto:
    """One product in three parts, that are read as q / (1 + k²) + g."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="/net/parts/MatMul"),
        helper.make_node("Split", ["a"], list(order), name="/net/parts/Split", axis=1, num_outputs=3),
        helper.make_node("Tanh", [reads[0]], ["b"], name="/net/mix/Tanh"),
        helper.make_node("Softplus", [reads[1]], ["c"], name="/net/mix/Softplus"),
        helper.make_node("Div", ["b", "c"], ["d"], name="/net/mix/Div"),
        helper.make_node("Add", ["d", "g"], ["e"], name="/net/mix/Add"),
        helper.make_node("MatMul", ["e", "v"], ["y"], name="/net/leave/MatMul"),
    ]
    return model(nodes, STORED)


def fronted(kind: str, *stored: tuple[str, np.ndarray]) -> onnx.ModelProto:
    """`network()` behind one more operator on its input."""
    candidate = network()
    candidate.graph.node[0].input[0] = "between"
    candidate.graph.node.insert(0, helper.make_node(kind, ["x", *[n for n, _ in stored]], ["between"], name="front"))
    candidate.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in stored)
    return candidate


@pytest.mark.parametrize(
    "candidate",
    [fronted("Max", ("none", np.zeros(1, np.float32))), fronted("Sin")],
    ids=["negatives cut", "another function"],
)
def test_an_operator_put_before_the_first_layer_is_named_and_taken_out(
    tmp_path: Path, candidate: onnx.ModelProto
) -> None:
    cause = found_for(tmp_path, candidate)
    assert cause.explained
    assert cause.kind == "pre/post-processing"
    assert (
        "before it reaches the model; without that it is the graph that a build from the source gives" in cause.sentence
    )


@pytest.mark.parametrize("candidate", [parted(("k", "q", "g")), parted(reads=("k", "q"))], ids=["given", "read"])
def test_tensors_handed_to_the_wrong_reader_are_named_and_handed_back(
    tmp_path: Path, candidate: onnx.ModelProto
) -> None:
    cause = found_for(tmp_path, candidate, parted())
    assert cause.kind == "export"
    assert "`net.mix`: Tanh reads `k` where the source's graph reads `q`" in cause.sentence
    assert "with the source's operators in their place 100 % of the error is gone" in cause.sentence


def test_operands_of_a_sum_may_stand_in_any_order() -> None:
    turned = parted()
    turned.graph.node[5].input[:] = ["g", "d"]
    assert changes(parted(), turned) == []
    swapped = parted()
    swapped.graph.node[4].input[:] = ["c", "b"]
    assert [one.module for one in changes(parted(), swapped)] == ["net.mix"]


def test_all_parts_of_one_product_are_given_by_one_operator() -> None:
    mended = with_modules(parted(), parted(("k", "q", "g")), ["net.parts", "net.mix"], by_name=True)
    assert mended is not None
    np.testing.assert_array_equal(opened(mended, ["y"])(FEEDS)["y"], opened(parted(), ["y"])(FEEDS)["y"])
    assert sum(node.op_type == "Split" for node in mended.graph.node) == 1


@pytest.mark.parametrize(("noise", "kind"), [(COARSEST * 2, "export"), (COARSEST / 2, "fusion")])
def test_an_operator_that_only_its_reader_shows_is_judged_by_how_far_off_that_is(
    tmp_path: Path, noise: float, kind: str
) -> None:
    candidate = network()
    candidate.graph.node[2].op_type = "Erf"
    shown = [Diverging("net.last", "MatMul", "y", noise, noise)]
    broken = Standing(Rung("artifact as found", tmp_path), None, 0, 128, 1.0, noise, 1e5, (), broke=True)
    (change,) = changes_that_tell(case(tmp_path, candidate), broken, shown, shown)
    assert (change.module, change.kind) == ("net.act", kind)


@pytest.mark.parametrize(("other", "kind"), [("Softplus", "export"), ("Tanh", "export"), ("FastGelu", "fusion")])
def test_one_function_for_another_is_no_fusion_however_near_it_is(tmp_path: Path, other: str, kind: str) -> None:
    candidate = network()
    candidate.graph.node[2].op_type = other
    near = [Diverging("net.last", "MatMul", "y", COARSEST / 2, COARSEST / 2)]
    broken = Standing(Rung("artifact as found", tmp_path), None, 0, 128, 1.0, COARSEST / 2, 1e5, (), broke=True)
    (change,) = changes_that_tell(case(tmp_path, candidate), broken, near, near)
    assert (change.module, change.kind) == ("net.act", kind)


def stepped(index: int, kind: type = np.int64) -> onnx.ModelProto:
    """One of four numbers is taken after a product."""
    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["a"], name="/net/enter/MatMul"),
        helper.make_node("Reshape", ["a", "shape"], ["b"], name="/net/fold/Reshape"),
        helper.make_node("Gather", ["b", "index"], ["c"], name="/net/last/Gather", axis=1),
        helper.make_node("MatMul", ["c", "v"], ["y"], name="/net/leave/MatMul"),
    ]
    stored = {
        "m": np.random.default_rng(6).standard_normal((6, 32)).astype(np.float32),
        "v": STORED["v"],
        "shape": np.array([-1, 4, 8], np.int64),
        "index": np.array(index, kind),
    }
    return model(nodes, stored)


def test_an_index_that_another_was_put_for_is_named_and_put_back(tmp_path: Path) -> None:
    cause = found_for(tmp_path, stepped(0), stepped(3))
    assert cause.kind == "export"
    assert "`net.last`: Gather reads 0, the source's graph's 3; with the source's operators" in cause.sentence
    assert "100 % of the error is gone" in cause.sentence


def test_the_same_index_in_other_bits_is_none_other() -> None:
    assert changes(stepped(3), stepped(3, np.int32)) == []
