"""An artifact whose numbers are within rounding of the source's, and yet not those that a rebuild gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from parity.explain.experiment.case import Case, Recipe
from parity.explain.experiment.exchange import weights
from parity.explain.experiment.rebuilt import rebuilt
from parity.explain.graph.gaps import gaps
from parity.explain.graph.ir import in_graph
from parity.explain.graph.weights import weights_of
from tests.parity.foreign import RNG, WEIGHTS, case, model

INTEGERS = RNG.integers(-127, 128, (16, 5)).astype(np.int8)


def decoded(integers: np.ndarray = INTEGERS, scale: float = 0.02) -> onnx.ModelProto:
    """x @ w, then by integers of one scale."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="/net/first/MatMul"),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["v"], name="decode"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="/net/last/MatMul"),
    ]
    return model(nodes, {"w": WEIGHTS["w"], "q": integers, "scale": np.float32(scale)})  # type: ignore[dict-item]


def flipped(count: int) -> np.ndarray:
    """So many of the integers one step further on or back."""
    other = INTEGERS.copy()
    other.flat[:count] ^= 1
    return other


def tried(folder: Path, found: onnx.ModelProto, recipe: Recipe) -> Case:
    return replace(case(folder, found, decoded()), recipe=recipe)


@pytest.mark.parametrize("recipe", ["same", "unknown"])
def test_one_integer_by_one_step_is_a_changed_weight_and_counted(tmp_path: Path, recipe: Recipe) -> None:
    one = tried(tmp_path, decoded(flipped(1)), recipe)
    assert weights(one) is None
    found = rebuilt(one)
    assert found is not None
    assert found.kind == "stale or wrong weights"
    assert "1 of the 80 numbers of `net.last`" in found.sentence
    assert found.modules == ["net.last"]


def test_integers_rounded_otherwise_throughout_are_changed_only_if_the_recipe_is_the_same(tmp_path: Path) -> None:
    """A third of them by a step: what learning to round does."""
    recipes: list[Recipe] = ["same", "other", "unknown"]
    found = [rebuilt(tried(tmp_path, decoded(flipped(27)), recipe)) for recipe in recipes]
    assert [None if one is None else one.kind for one in found] == [
        "stale or wrong weights",
        "quantization",
        "quantization",
    ]


def test_another_scale_within_half_a_step_is_another_recipe(tmp_path: Path) -> None:
    found = rebuilt(tried(tmp_path, decoded(scale=0.02 * 1.003), "other"))
    assert found is not None
    assert found.kind == "quantization"
    assert "rounded by another recipe" in found.sentence


def test_the_rebuilds_own_numbers_are_no_finding(tmp_path: Path) -> None:
    assert rebuilt(tried(tmp_path, decoded(), "same")) is None


def test_an_irs_constants_stand_in_the_graph_that_it_was_compiled_from() -> None:
    """Narrower by the channels of nought that its toolchain took off; what has another kind of number is left."""
    graph = model([], {"k": np.zeros((2, 4, 3, 3), np.int8), "s": np.float32(1), "n": np.ones(2, np.float32)})  # type: ignore[dict-item]
    theirs = RNG.integers(1, 9, (2, 3, 3, 3)).astype(np.int8)
    made = in_graph(graph, {"k": theirs, "s": np.array(3, np.float32), "n": np.ones(2, np.int8)})
    k, s, n = (numpy_helper.to_array(tensor) for tensor in made.graph.initializer)
    np.testing.assert_array_equal(k, np.concatenate([theirs, np.zeros((2, 1, 3, 3), np.int8)], axis=1))
    assert s == 3
    assert n.tolist() == [1, 1]


def test_channels_of_nought_are_no_difference_and_do_not_hide_one() -> None:
    def layer(kernel: np.ndarray) -> onnx.ModelProto:
        return model([helper.make_node("Conv", ["x", "k"], ["y"], name="/net/conv/Conv")], {"k": kernel})

    narrow = RNG.standard_normal((8, 3, 3, 3)).astype(np.float32)
    wide = np.pad(narrow, [(0, 0), (0, 1), (0, 0), (0, 0)])
    assert gaps(weights_of(layer(narrow)), weights_of(layer(wide))) == []
    [(_, _, gap)] = gaps(weights_of(layer(narrow)), weights_of(layer(2 * wide)))
    assert gap.factor == pytest.approx(2)
