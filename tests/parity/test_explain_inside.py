"""What a device computes otherwise inside, told from its answers alone: planted in a graph, of which only the answers are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from scipy.special import erf

from parity.explain.graph.simulate import opened
from parity.explain.mistake import inside
from parity.explain.mistake.hypotheses import Trial
from parity.explain.mistake.otherwise import ways
from tests.parity.foreign import case, model

RNG = np.random.default_rng(5)
STORED = {
    name: (RNG.standard_normal(shape) / 2).astype(np.float32)
    for name, shape in (("w", (6, 16)), ("u", (16, 16)), ("v", (16, 5)))
} | {"square": np.array([0, 4, 4], np.int64), "flat": np.array([0, 16], np.int64)}


def network(axes: tuple[int, int] = (-1, -1), slope: float = 0.1) -> onnx.ModelProto:
    """Two softmaxes over squares of four by four, and a leaky Relu."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="/net/enter/MatMul"),
        helper.make_node("Reshape", ["a", "square"], ["b"], name="/net/Reshape"),
        helper.make_node("Softmax", ["b"], ["c"], name="/net/blocks.0/Softmax", axis=axes[0]),
        helper.make_node("MatMul", ["c", "b"], ["d"], name="/net/blocks.0/MatMul"),
        helper.make_node("Softmax", ["d"], ["e"], name="/net/blocks.1/Softmax", axis=axes[1]),
        helper.make_node("MatMul", ["e", "b"], ["f"], name="/net/blocks.1/MatMul"),
        helper.make_node("Reshape", ["f", "flat"], ["g"], name="/net/Flat"),
        helper.make_node("LeakyRelu", ["g"], ["h"], name="/net/leaky/LeakyRelu", alpha=slope),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="/net/leave/MatMul"),
    ]
    return model(nodes, STORED)


def tried(folder: Path, candidate: onnx.ModelProto) -> list[Trial]:
    one = case(folder, candidate, network())
    return inside.suspicions(one.bench(one.exact, one.answers_of(candidate)))


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (network((-2, -1)), "Softmax of `net.blocks.0` along axis -2"),
        (network((-1, -2)), "Softmax of `net.blocks.1` along axis -2"),
        (network((-2, -2)), "every Softmax along axis -2"),
        (network(slope=0.2), "LeakyRelu of `net.leaky` with slope 0.2"),
    ],
)
def test_an_operator_computed_otherwise_is_told_from_the_answers(
    tmp_path: Path, candidate: onnx.ModelProto, said: str
) -> None:
    best = tried(tmp_path, candidate)[0]
    assert best.holds
    assert best.kind == "export"
    assert said in best.name


def test_what_no_operator_of_the_family_does_is_not_told(tmp_path: Path) -> None:
    """An activation that the source has none of."""
    other = network()
    other.graph.node[-2].op_type = "Tanh"
    del other.graph.node[-2].attribute[:]
    assert not any(one.holds for one in tried(tmp_path, other))


def test_erf_by_tanh_is_the_approximate_gelu() -> None:
    """Of the paper's two forms, 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) in place of 0.5 x (1 + erf(x / sqrt 2))."""
    [way] = ways(helper.make_node("Erf", ["x"], ["y"]))
    graph = model(way.nodes(), {})
    x = np.linspace(-4, 4, 60).reshape(10, 6)
    found = opened(graph, ["y"])({"x": (x / np.sqrt(2)).astype(np.float32)})["y"]
    np.testing.assert_allclose(found, np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)), atol=1e-6)
    assert 1e-4 < np.abs(found - erf(x / np.sqrt(2))).max() < 1e-3


def convolved(pads: tuple[int, int] = (1, 1), dilations: int = 1) -> onnx.ModelProto:
    """A convolution over six steps."""
    stored = {
        "steps": np.array([0, 1, 6], np.int64),
        "k": np.random.default_rng(6).standard_normal((4, 1, 3)).astype(np.float32),
        "v": np.resize(STORED["v"], (24, 5)),
        "flat": np.array([0, 24], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "steps"], ["a"], name="/net/Steps"),
        helper.make_node("Conv", ["a", "k"], ["b"], name="/net/conv/Conv", pads=pads, dilations=[dilations]),
        helper.make_node("Tanh", ["b"], ["c"], name="/net/act/Tanh"),
        helper.make_node("Reshape", ["c", "flat"], ["d"], name="/net/Flat"),
        helper.make_node("MatMul", ["d", "v"], ["y"], name="/net/leave/MatMul"),
    ]
    return model(nodes, stored)


@pytest.mark.parametrize(
    ("pads", "said"), [((2, 0), "with all its padding before (causal)"), ((0, 2), "with all its padding after")]
)
def test_padding_at_other_sides_is_told_from_the_answers(tmp_path: Path, pads: tuple[int, int], said: str) -> None:
    one = case(tmp_path, convolved(pads), convolved())
    best = inside.suspicions(one.bench(one.exact, one.answers_of(convolved(pads))))[0]
    assert best.holds
    assert f"Conv of `net.conv` {said}" in best.name


def test_a_kernel_spread_wider_is_not_called_padding(tmp_path: Path) -> None:
    other = convolved((2, 2), dilations=2)
    one = case(tmp_path, other, convolved())
    assert not any(t.holds for t in inside.suspicions(one.bench(one.exact, one.answers_of(other))))
