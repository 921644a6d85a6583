"""Channels that our own quantizer made smaller are no error, and a range that holds them does not saturate."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compile.export import export_torch
from compile.quantize import quantize
from compile.recipe import Recipe
from compile.signature import Axis, Signature, Tensor
from parity.explain.graph.smoothing import smoothing
from parity.explain.graph.tensors import compare, decibel, saturations

SIGNATURE = Signature(
    (Tensor("x", "float32", ("batch", 16)),), (Tensor("y", "float32", ("batch", 4)),), {"batch": Axis(1, 8, 64)}
)
Pair = tuple[onnx.ModelProto, onnx.ModelProto]


class Block(nn.Module):
    """A normalization of which two channels stand far out, and the layers that read it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 4)
        with torch.no_grad():
            self.norm.weight[:2] = 40.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(self.norm(x))))


def data() -> list[dict[str, np.ndarray]]:
    """What ranges were calibrated on, so that none of it lies out of range."""
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((64, 16)).astype(np.float32)} for _ in range(4)]


@pytest.fixture(scope="module")
def smoothed() -> Pair:
    torch.manual_seed(0)
    module = Block().eval()
    floats = export_torch(module, SIGNATURE, data()[0])
    return floats, quantize(module, floats, SIGNATURE, data(), Recipe("uint8-asymmetric", smoothing=0.75))[0]


def normalized(graph: onnx.ModelProto) -> str:
    return next(node.output[0] for node in graph.graph.node if node.op_type == "LayerNormalization")


def test_what_was_smoothed_is_told_by_channel(smoothed: Pair) -> None:
    floats, quantized = smoothed
    assert set(scales := smoothing(floats, quantized, data())) == {normalized(floats)}
    gains = [
        numpy_helper.to_array(next(t for t in graph.graph.initializer if t.name == node.input[1]))
        for graph in smoothed
        for node in graph.graph.node
        if node.op_type == "LayerNormalization"
    ]
    assert scales[normalized(floats)] == pytest.approx(gains[1] / gains[0], rel=0.05)


def test_smoothed_channels_neither_diverge_nor_saturate(smoothed: Pair) -> None:
    floats, quantized = smoothed
    scales = smoothing(floats, quantized, data())
    assert max(one.lost for one in saturations(floats, quantized, data())) > 0.1, "nothing was to be mistaken"
    assert max(one.lost for one in saturations(floats, quantized, data(), scales)) < 1e-3
    mistaken, right = ({one.module: one for one in compare(floats, quantized, data(), s)}["norm"] for s in ({}, scales))
    assert decibel(mistaken.noise) < 10
    assert decibel(right.noise) > 25


def test_a_gain_that_nobody_undoes_is_not_taken_for_smoothing(smoothed: Pair) -> None:
    """The scales are the line's own graph's: a candidate whose normalization was tripled stands out beside them."""
    floats, quantized = smoothed
    wrong = onnx.ModelProto()
    wrong.CopyFrom(quantized)
    node = next(node for node in wrong.graph.node if node.op_type == "LayerNormalization")
    gain = next(t for t in wrong.graph.initializer if t.name == node.input[1])
    gain.CopyFrom(numpy_helper.from_array(3 * numpy_helper.to_array(gain), gain.name))
    scales = smoothing(floats, quantized, data())
    assert decibel({one.module: one for one in compare(floats, wrong, data(), scales)}["norm"].own) < 0
    assert max(one.lost for one in saturations(floats, wrong, data(), scales)) < 1e-3


def test_a_float_graph_smooths_nothing(smoothed: Pair) -> None:
    assert smoothing(smoothed[0], smoothed[0], data()) == {}
