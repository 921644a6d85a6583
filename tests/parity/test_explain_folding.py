"""Normalizations that one exporter folds into the layer before and another leaves apart."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from parity.explain.graph.folding import folded, folded_alike
from parity.explain.graph.gaps import gaps
from parity.explain.graph.simulate import opened
from parity.explain.graph.weights import weights_of
from tests.parity.foreign import model

RNG = np.random.default_rng(2)
STORED = {
    "k": RNG.standard_normal((5, 6, 1)), "g": RNG.uniform(0.5, 2, 5), "s": RNG.standard_normal(5),
    "m": RNG.standard_normal(5), "r": RNG.uniform(0.1, 2, 5),
}  # fmt: skip


def network(*, shared: bool = False) -> onnx.ModelProto:
    """A convolution, a normalization and, if `shared`, somebody else who reads the convolution."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["wide"]),
        helper.make_node("Conv", ["wide", "k"], ["c"], name="/net/conv/Conv"),
        helper.make_node("BatchNormalization", ["c", "g", "s", "m", "same"], ["n"], epsilon=1e-3),
        helper.make_node("Identity", ["r"], ["same"]),
        helper.make_node("Add", ["n", "c"] if shared else ["n", "n"], ["t"]),
        helper.make_node("Squeeze", ["t", "last"], ["y"]),
    ]
    nodes.insert(0, nodes.pop(3))
    stored = {name: array.astype(np.float32) for name, array in STORED.items()}
    return model(nodes, stored | {"last": np.array([2], np.int64)})


def test_a_folded_normalization_answers_as_it_did() -> None:
    feeds = {"x": RNG.standard_normal((8, 6)).astype(np.float32)}
    before, after = network(), folded(network())
    assert "BatchNormalization" not in {node.op_type for node in after.graph.node}
    np.testing.assert_allclose(
        opened(after, ["y"])(feeds)["y"], opened(before, ["y"])(feeds)["y"], rtol=1e-4, atol=1e-5
    )


def test_a_convolution_that_another_reads_keeps_its_normalization_apart() -> None:
    assert "BatchNormalization" in {node.op_type for node in folded(network(shared=True)).graph.node}


def test_only_where_the_other_graph_has_none_are_they_folded_and_wrong_ones_show_then() -> None:
    assert [len(graph.graph.node) for graph in folded_alike([network(), network()])] == [6, 6]
    wrong = network()
    tensor = next(one for one in wrong.graph.initializer if one.name == "g")
    tensor.CopyFrom(numpy_helper.from_array(3 * numpy_helper.to_array(tensor), "g"))
    sound, candidate = folded_alike([folded(network()), wrong])
    assert len(candidate.graph.node) == len(sound.graph.node)
    assert {gap.module for _, _, gap in gaps(weights_of(sound), weights_of(candidate))} == {"net.conv"}
