"""Weights in four and eight bits by blocks (MatMulNBits), made by ONNX Runtime's own tool, then spoilt by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from parity.explain.graph.integers import floated, has_integer_layers
from parity.explain.graph.simulate import opened
from tests.parity.foreign import found_for, network
from tests.parity.test_explain_integers import FEEDS

WEIGHTS = {
    name: np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    for name, shape in (("w", (6, 40)), ("b", (40,)), ("v", (40, 5)))
}
HOW = [(4, True), (4, False), (8, True), (8, False)]


def quantized(bits: int = 4, *, symmetric: bool = True, factor: float = 1.0) -> onnx.ModelProto:
    """40 rows in blocks of 16: the last one is not full."""
    weights = WEIGHTS | {"v": (WEIGHTS["v"] * factor).astype(np.float32)}
    tool = MatMulNBitsQuantizer(network(weights), bits=bits, block_size=16, is_symmetric=symmetric)
    tool.process()
    made: onnx.ModelProto = tool.model.model
    assert sum(node.op_type == "MatMulNBits" for node in made.graph.node) == 2
    return made


@pytest.mark.parametrize(("bits", "symmetric"), HOW)
def test_blocks_are_decoded_to_what_the_operator_computes(bits: int, symmetric: bool) -> None:
    theirs = quantized(bits, symmetric=symmetric)
    twin = floated(theirs)
    assert not has_integer_layers(twin)
    np.testing.assert_allclose(opened(twin, ["y"])(FEEDS)["y"], opened(theirs, ["y"])(FEEDS)["y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("bits", "symmetric"), HOW)
def test_the_source_in_few_bits_is_quantization(tmp_path: Path, bits: int, symmetric: bool) -> None:
    cause = found_for(tmp_path, quantized(bits, symmetric=symmetric), network(WEIGHTS))
    assert cause.kind == "quantization"
    assert cause.explained


def test_another_layers_weights_in_few_bits_are_not(tmp_path: Path) -> None:
    cause = found_for(tmp_path, quantized(factor=1.5), network(WEIGHTS))
    assert cause.kind == "stale or wrong weights"
    assert "1.5 times" in cause.sentence


def test_blocks_in_an_order_of_their_own_are_left_unread() -> None:
    theirs = quantized()
    for node in theirs.graph.node:
        if node.op_type == "MatMulNBits":
            node.input.extend(["" for _ in range(4 - len(node.input))] + ["order"])
    theirs.graph.initializer.append(numpy_helper.from_array(np.arange(48, dtype=np.int32) // 16, "order"))
    assert has_integer_layers(floated(theirs))


def test_what_hides_its_weights_is_not_called_quantization(tmp_path: Path) -> None:
    """The same operator under a setting that is not read: 16 bits for its zero points."""
    theirs = quantized(symmetric=False, factor=1.5)
    for node in theirs.graph.node:
        if node.op_type == "MatMulNBits":
            zero = next(one for one in theirs.graph.initializer if one.name == node.input[3])
            rows, columns = (next(a.i for a in node.attribute if a.name == name) for name in ("N", "K"))
            blocks = -(-columns // 16)
            zero.CopyFrom(numpy_helper.from_array(np.full((rows, blocks), 8, np.float32), zero.name))
    assert has_integer_layers(floated(theirs))
    assert found_for(tmp_path, theirs, network(WEIGHTS)).kind != "quantization"
