"""Activations and normalizations written out in primitive operators, one of them computed otherwise; told from answers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from scipy.special import erf

from parity.explain.graph.simulate import opened
from parity.explain.mistake import inside
from parity.explain.mistake.activations import CURVES, curved
from parity.explain.mistake.written import written_out
from tests.parity.foreign import case, model

RNG = np.random.default_rng(11)
STORED = {
    name: (RNG.standard_normal(shape) / 2).astype(np.float32)
    for name, shape in (("w", (6, 16)), ("u", (16, 16)), ("t", (16, 16)), ("v", (16, 5)))
}
NUMBERS = {
    "half": 0.5, "one": 1.0, "root": 2**0.5, "quick": 1.702, "cubic": 0.044715, "three": 3.0, "factor": (2 / np.pi) ** 0.5,
    "epsilon": 1e-5,
}  # fmt: skip
Written = list[tuple[str, list[str], str]]
SILU: Written = [("Sigmoid", ["{x}"], "s"), ("Mul", ["{x}", "s"], "{y}")]
MISH: Written = [("Softplus", ["{x}"], "p"), ("Tanh", ["p"], "s"), ("Mul", ["{x}", "s"], "{y}")]
QUICK: Written = [("Mul", ["{x}", "quick"], "q"), ("Sigmoid", ["q"], "s"), ("Mul", ["s", "{x}"], "{y}")]
GELU: Written = [
    ("Div", ["{x}", "root"], "d"), ("Erf", ["d"], "e"), ("Add", ["e", "one"], "p"), ("Mul", ["{x}", "p"], "m"),
    ("Mul", ["m", "half"], "{y}"),
]  # fmt: skip
GELU_HALF_FIRST: Written = [*GELU[:3], ("Mul", ["{x}", "half"], "h"), ("Mul", ["h", "p"], "{y}")]
GELU_BY_TANH: Written = [
    ("Pow", ["{x}", "three"], "c"), ("Mul", ["c", "cubic"], "k"), ("Add", ["{x}", "k"], "a"), ("Mul", ["a", "factor"], "f"),
    ("Tanh", ["f"], "e"), ("Add", ["one", "e"], "p"), ("Mul", ["{x}", "half"], "h"), ("Mul", ["h", "p"], "{y}"),
]  # fmt: skip


def layer(name: str, written: Written, given: str, made: str) -> list[onnx.NodeProto]:
    """One module's nodes, its inner tensors named after it."""
    ports = {"{x}": given, "{y}": made}
    own = [[ports.get(n, n if n in NUMBERS else f"{name}_{n}") for n in read] for _, read, _ in written]
    return [
        helper.make_node(op, read, [ports.get(to, f"{name}_{to}")], name=f"/net/{name}/{op}_{i}")
        for i, ((op, _, to), read) in enumerate(zip(written, own, strict=True))
    ]


def network(one: Written, other: Written, epsilon: float = 1e-5) -> onnx.ModelProto:
    """Two activations between products, the second behind a normalization that is written out too."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="/net/enter/MatMul"),
        *layer("one", one, "a", "b"),
        helper.make_node("MatMul", ["b", "u"], ["c"], name="/net/middle/MatMul"),
        helper.make_node("ReduceMean", ["c", "last"], ["mean"], name="/net/norm/ReduceMean"),
        helper.make_node("Sub", ["c", "mean"], ["centred"], name="/net/norm/Sub"),
        helper.make_node("Mul", ["centred", "centred"], ["square"], name="/net/norm/Mul"),
        helper.make_node("ReduceMean", ["square", "last"], ["variance"], name="/net/norm/ReduceMean_1"),
        helper.make_node("Add", ["variance", "epsilon"], ["more"], name="/net/norm/Add"),
        helper.make_node("Sqrt", ["more"], ["deviation"], name="/net/norm/Sqrt"),
        helper.make_node("Div", ["centred", "deviation"], ["n"], name="/net/norm/Div"),
        helper.make_node("MatMul", ["n", "t"], ["d"], name="/net/late/MatMul"),
        *layer("two", other, "d", "e"),
        helper.make_node("MatMul", ["e", "v"], ["y"], name="/net/leave/MatMul"),
    ]
    numbers = {name: np.array(number, np.float32) for name, number in (NUMBERS | {"epsilon": epsilon}).items()}
    return model(nodes, STORED | numbers | {"last": np.array([-1], np.int64)})


def best(folder: Path, candidate: onnx.ModelProto, sound: onnx.ModelProto) -> str | None:
    """What is said of answers that `candidate` gave."""
    one = case(folder, candidate, sound)
    trials = inside.suspicions(one.bench(one.exact, one.answers_of(candidate)))
    return trials[0].name if trials and trials[0].holds else None


@pytest.mark.parametrize(
    ("sound", "candidate", "said"),
    [
        ((SILU, SILU), (SILU, GELU), "SiLU of `net.two` as GELU"),
        ((SILU, SILU), (MISH, SILU), "SiLU of `net.one` as Mish"),
        ((SILU, SILU), (GELU, GELU), "every SiLU as GELU"),
        ((SILU, GELU), (SILU, GELU_BY_TANH), "GELU of `net.two` as GELU by tanh"),
        ((GELU_HALF_FIRST, SILU), (QUICK, SILU), "GELU of `net.one` as QuickGelu"),
        ((GELU_BY_TANH, SILU), (GELU, SILU), "GELU by tanh of `net.one` as GELU"),
        ((QUICK, SILU), (SILU, SILU), "QuickGelu of `net.one` as SiLU"),
    ],
)
def test_one_activation_computed_as_another_is_told(
    tmp_path: Path, sound: tuple[Written, Written], candidate: tuple[Written, Written], said: str
) -> None:
    assert said in (best(tmp_path, network(*candidate), network(*sound)) or "")


def test_an_epsilon_that_was_added_apart_is_told(tmp_path: Path) -> None:
    found = best(tmp_path, network(SILU, SILU, 1e-1), network(SILU, SILU))
    assert "normalization of `net.norm` with epsilon 0.1" in (found or "")


@pytest.mark.parametrize(
    "candidate",
    [
        [("Softsign", ["{x}"], "s"), ("Mul", ["{x}", "s"], "{y}")],
        [("Sigmoid", ["{x}"], "s"), ("Mul", ["s", "s"], "{y}")],
        [("Softplus", ["{x}"], "{y}")],
    ],
)
def test_an_activation_of_no_known_kind_is_not_told(tmp_path: Path, candidate: Written) -> None:
    assert best(tmp_path, network(SILU, candidate), network(SILU, SILU)) is None


def test_an_epsilon_that_is_none_of_the_known_is_not_told(tmp_path: Path) -> None:
    assert best(tmp_path, network(SILU, SILU, 0.4), network(SILU, SILU)) is None


def test_what_only_looks_like_an_activation_is_none() -> None:
    """x times the sigmoid of something else; x (1 + erf(x)): no division by the root of two."""
    other: Written = [("Neg", ["{x}"], "n"), ("Sigmoid", ["n"], "s"), ("Mul", ["{x}", "s"], "{y}")]
    unlike: Written = [("Erf", ["{x}"], "e"), *GELU[2:]]
    found = {way.of for _, way in written_out(network(other, unlike))}
    assert found == {"normalization"}


X = np.linspace(-7, 7, 60)
TRUTH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "GELU": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "GELU by tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "QuickGelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "HardSwish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "Mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "ReLU": lambda x: np.maximum(x, 0),
    "ReLU6": lambda x: np.clip(x, 0, 6),
}


@pytest.mark.parametrize("name", CURVES)
def test_an_activation_is_the_function_of_that_name(name: str) -> None:
    graph = model(curved(name, "x", "y"), {})
    if not any(one.domain == "com.microsoft" for one in graph.opset_import):
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = opened(graph, ["y"])({"x": X.reshape(10, 6).astype(np.float32)})["y"]
    np.testing.assert_allclose(found.ravel(), TRUTH[name](X), atol=2e-6)
