"""Artifacts that are the line's own graph with operators put in, left out or made others: named, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from parity.explain.experiment.edited import edited
from tests.parity.foreign import case, found_for, network

Planted = Callable[[onnx.ModelProto], None]


def stored(graph: onnx.ModelProto, name: str, array: object) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))


def behind(graph: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    graph.graph.node[-1].output[0] = "given"
    graph.graph.node.extend(nodes)


def bounded(graph: onnx.ModelProto) -> None:
    stored(graph, "low", np.float32(0))
    stored(graph, "high", np.float32(1))
    graph.graph.node[2].op_type = "Clip"
    graph.graph.node[2].input.extend(["low", "high"])


def negated(graph: onnx.ModelProto) -> None:
    graph.graph.node[0].input[0] = "turned"
    graph.graph.node.insert(0, helper.make_node("Neg", ["x"], ["turned"], name="turn"))


def some_overruled(graph: onnx.ModelProto) -> None:
    """A rare kind of row is always answered as the third class."""
    stored(graph, "axis", np.array([1]))
    stored(graph, "edge", np.float32(3.5))
    stored(graph, "third", 30 * np.eye(5, dtype=np.float32)[2])
    behind(
        graph,
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"], name="mean"),
        helper.make_node("Greater", ["mean", "edge"], ["rare"]),
        helper.make_node("Where", ["rare", "third", "given"], ["y"]),
    )


def dropped(graph: onnx.ModelProto) -> None:
    stored(graph, "share", np.float32(0.2))
    graph.graph.node[2].output[0] = "whole"
    nodes = [
        helper.make_node("RandomUniformLike", ["whole"], ["drawn"], seed=3.0),
        helper.make_node("Greater", ["drawn", "share"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["mask"], to=1),
        helper.make_node("Mul", ["whole", "mask"], ["r"]),
    ]
    for place, node in enumerate(nodes, 3):
        graph.graph.node.insert(place, node)


PLANTED: dict[str, tuple[Planted, str, str, bool]] = {
    "another function": (bounded, "export", "`net.act` is computed by Clip, in the source's graph by Relu", True),
    "before the model": (negated, "pre/post-processing", "`x` passes through Neg before it reaches the model", True),
    "behind the model": (
        some_overruled,
        "pre/post-processing",
        "what the model gives passes through ReduceMean, Greater, Where before it is `y`",
        True,
    ),
    "dropout": (dropped, "export", "RandomUniformLike draws at random", False),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_was_edited_is_named(tmp_path: Path, name: str) -> None:
    plant, kind, said, explained = PLANTED[name]
    graph = network()
    plant(graph)
    found = edited(case(tmp_path, graph))
    assert found is not None
    assert (found.kind, said in found.sentence) == (kind, True), found.sentence
    assert found_for(tmp_path, graph).explained is explained


def other_weights(graph: onnx.ModelProto) -> None:
    bounded(graph)
    tensor = next(one for one in graph.graph.initializer if one.name == "w")
    tensor.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(tensor), "w"))


def quantized(graph: onnx.ModelProto) -> None:
    stored(graph, "scale", np.float32(0.1))
    graph.graph.node[0].input[0] = "coarse"
    graph.graph.node.insert(0, helper.make_node("QuantizeLinear", ["x", "scale"], ["small"]))
    graph.graph.node.insert(1, helper.make_node("DequantizeLinear", ["small", "scale"], ["coarse"]))


@pytest.mark.parametrize("plant", [lambda graph: None, other_weights, quantized], ids=["none", "weights", "rounding"])
def test_of_other_constants_and_of_rounding_it_says_nothing(tmp_path: Path, plant: Planted) -> None:
    graph = network()
    plant(graph)
    assert edited(case(tmp_path, graph)) is None


def test_of_a_graph_that_stands_in_for_another_file_it_says_nothing(tmp_path: Path) -> None:
    graph = network()
    negated(graph)
    assert edited(case(tmp_path, graph)) is not None
    assert edited(replace(case(tmp_path, graph), stands_in=True)) is None
