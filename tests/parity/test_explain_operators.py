"""Operators that were exchanged by hand: one, two at once, one that is innocent. What was planted is what is expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from parity.explain.graph.graft import with_modules
from parity.explain.graph.simulate import opened
from tests.parity.foreign import found_for, model, network

RNG = np.random.default_rng(3)
STORED = {
    name: RNG.standard_normal(shape).astype(np.float32) / 2
    for name, shape in (("w", (6, 16)), ("u", (16, 16)), ("v", (16, 5)))
}
FEEDS = {"x": RNG.standard_normal((8, 6)).astype(np.float32)}


def deep(first: str = "Tanh", second: str = "Softsign", third: str = "Relu") -> onnx.ModelProto:
    """Three activations between products."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="/net/enter/MatMul"),
        helper.make_node(first, ["a"], ["b"], name=f"/net/one/{first}"),
        helper.make_node("MatMul", ["b", "u"], ["c"], name="/net/middle/MatMul"),
        helper.make_node(second, ["c"], ["d"], name=f"/net/two/{second}"),
        helper.make_node(third, ["d"], ["e"], name=f"/net/three/{third}"),
        helper.make_node("MatMul", ["e", "v"], ["y"], name="/net/leave/MatMul"),
    ]
    return model(nodes, STORED)


def test_two_exchanged_operators_are_both_put_right(tmp_path: Path) -> None:
    cause = found_for(tmp_path, deep("Sigmoid", "Erf"), deep())
    assert cause.kind == "export"
    assert "`net.one` is computed by Sigmoid" in cause.sentence
    assert "`net.two` is computed by Erf" in cause.sentence
    assert "with the source's operators in their place 100 % of the error is gone" in cause.sentence
    assert cause.second is None


def test_an_operator_that_answers_alike_is_not_named_beside_one_that_does_not(tmp_path: Path) -> None:
    """Elu is Relu where nothing is negative: behind an absolute value."""
    cause = found_for(tmp_path, deep("Sigmoid", "Abs", "Elu"), deep("Tanh", "Abs", "Relu"))
    assert list(cause.modules) == ["net.one"]
    assert "100 % of the error is gone" in cause.sentence


def test_an_exchanged_operator_does_not_explain_what_happens_elsewhere(tmp_path: Path) -> None:
    """The last operator is another, and answers alike; what is wrong is noise behind all of them."""
    noisy = deep("Tanh", "Abs", "Elu")
    noisy.graph.node[-1].output[0] = "quiet"
    random = helper.make_node("RandomNormalLike", ["quiet"], ["noise"], scale=1.0, seed=4.0)
    noisy.graph.node.extend([random, helper.make_node("Add", ["quiet", "noise"], ["y"])])
    cause = found_for(tmp_path, noisy, deep("Tanh", "Abs", "Relu"))
    assert not cause.explained
    assert "what the model gives passes through RandomNormalLike, Add" in cause.sentence
    assert "Elu" not in cause.sentence


def test_an_operator_left_out_is_put_back_where_it_was_read(tmp_path: Path) -> None:
    cause = found_for(tmp_path, network(relu=False))
    assert cause.kind == "export"
    assert "the source's `net.act` is missing; with the source's operators in their place 100 %" in cause.sentence


def test_a_wrong_operator_over_wrong_weights_leaves_the_weights_as_the_second_cause(tmp_path: Path) -> None:
    both = deep("Sigmoid")
    tensor = next(one for one in both.graph.initializer if one.name == "v")
    tensor.CopyFrom(numpy_helper.from_array(STORED["v"] * np.float32(1.1), "v"))
    cause = found_for(tmp_path, both, deep())
    assert cause.second is not None
    assert {cause.kind, cause.second.kind} == {"export", "stale or wrong weights"}
    assert cause.explained


def test_a_graph_with_all_changed_modules_put_in_answers_as_the_sound_one() -> None:
    sound, candidate = deep(), deep("Sigmoid", "Erf")
    mended = with_modules(sound, candidate, ["net.one", "net.two"])
    assert mended is not None
    np.testing.assert_array_equal(opened(mended, ["y"])(FEEDS)["y"], opened(sound, ["y"])(FEEDS)["y"])
    one = with_modules(sound, candidate, ["net.one"])
    assert one is not None
    np.testing.assert_array_equal(opened(one, ["y"])(FEEDS)["y"], opened(deep("Tanh", "Erf"), ["y"])(FEEDS)["y"])


def test_operators_that_leave_nothing_are_told_before_a_likeness_around_the_model(tmp_path: Path) -> None:
    """Of small numbers erf is tanh times 1.128: answers a factor larger, but for a hundredth of the error."""
    small = STORED | {"w": STORED["w"] / 12}
    sound, candidate = deep("Tanh", "Neg", "Neg"), deep("Erf", "Neg", "Neg")
    for graph in (sound, candidate):
        tensor = next(one for one in graph.graph.initializer if one.name == "w")
        tensor.CopyFrom(numpy_helper.from_array(small["w"], "w"))
    cause = found_for(tmp_path, candidate, sound)
    assert cause.trials[0].holds
    assert "scaled behind the model" in cause.trials[0].name
    assert "`net.one` is computed by Erf" in cause.sentence
    assert cause.modules == ["net.one"]


def test_wrong_weights_and_operators_that_mend_only_together_are_both_told(tmp_path: Path) -> None:
    both = deep("Cos")
    tensor = next(one for one in both.graph.initializer if one.name == "u")
    other = np.random.default_rng(6).standard_normal((16, 16)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(other, "u"))
    cause = found_for(tmp_path, both, deep())
    assert cause.second is not None
    assert {cause.kind, cause.second.kind} == {"export", "stale or wrong weights"} or cause.kind == "fusion"
    assert "`net.one` is computed by Cos" in cause.sentence + cause.second.sentence
    assert "`u`" in cause.sentence + cause.second.sentence
    assert cause.explained


def test_noise_beside_wrong_weights_and_operators_stays_unexplained(tmp_path: Path) -> None:
    both = deep("Cos")
    tensor = next(one for one in both.graph.initializer if one.name == "u")
    other = np.random.default_rng(6).standard_normal((16, 16)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(other, "u"))
    both.graph.node[-1].output[0] = "quiet"
    random = helper.make_node("RandomNormalLike", ["quiet"], ["noise"], scale=2.0, seed=4.0)
    both.graph.node.extend([random, helper.make_node("Add", ["quiet", "noise"], ["y"])])
    assert not found_for(tmp_path, both, deep()).explained


def test_a_sum_that_is_gone_is_told_though_its_reader_now_counts_to_another_module(tmp_path: Path) -> None:
    """A residual connection left out; what is behind it (no module of its own) reads the branch instead."""

    def residual(*, whole: bool) -> onnx.ModelProto:
        add = (
            helper.make_node("Add", ["b", "d"], ["e"], name="sum")
            if whole
            else helper.make_node("Identity", ["d"], ["e"])
        )
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["a"], name="/net/enter/MatMul"),
            helper.make_node("Tanh", ["a"], ["b"], name="/net/one/Tanh"),
            helper.make_node("MatMul", ["b", "u"], ["c"], name="/net/middle/MatMul"),
            helper.make_node("Softsign", ["c"], ["d"], name="/net/two/Softsign"),
            add,
            helper.make_node("Reshape", ["e", "shape"], ["f"], name="flat"),
            helper.make_node("MatMul", ["f", "v"], ["y"], name="/net/leave/MatMul"),
        ]
        return model(nodes, STORED | {"shape": np.array([-1, 16], np.int64)})

    cause = found_for(tmp_path, residual(whole=False), residual(whole=True))
    assert cause.kind in ("export", "fusion")
    assert "`net.one` lacks Add" in cause.sentence
    assert "100 % of the error is gone" in cause.sentence
