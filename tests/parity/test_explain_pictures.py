"""Pictures that a device saw brighter, darker or coarser than the suite has them; what only looks like it is not called so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import gaussian_filter

from compile.signature import Axis, Signature, Tensor
from parity.explain.graph.simulate import Infer, opened
from parity.explain.mistake import gamma, preprocessing
from parity.explain.mistake.hypotheses import FITTED, Bench, Trial, tried
from parity.explain.mistake.screening import screened

RNG = np.random.default_rng(4)
SIGNATURE = Signature(
    (Tensor("x", "float32", ("batch", 3, 18, 12)),), (Tensor("y", "float32", ("batch", 5)),), {"batch": Axis(1, 8, 64)}
)
MEAN, DEVIATION = (np.reshape(v, (1, 3, 1, 1)) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
Change = Callable[[np.ndarray], np.ndarray]


def network() -> Infer:
    """A convolution, a Relu, a product."""
    kernel, wide = RNG.standard_normal((6, 3, 3, 3)) / 3, RNG.standard_normal((6 * 16 * 10, 5)) / 20
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    stored = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in (("k", kernel), ("w", wide))]
    ports = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None)] for n in ("x", "y")
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "g", *ports, stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return opened(made, ["y"])


INFER = network()
LIGHT = np.stack([gaussian_filter(RNG.uniform(size=(3, 18, 12)), (0, 0.7, 0.7)) for _ in range(128)])
LIGHT = (LIGHT - LIGHT.min()) / (LIGHT.max() - LIGHT.min())  # in 0…1, with neighbours that are alike, as pictures have


def bench(inputs: np.ndarray, seen: np.ndarray, raw: np.ndarray | None = None) -> Bench:
    """What the network answers to pictures, beside what it answers to what a device saw."""
    ours, theirs = ([{"x": part} for part in np.split(a.astype(np.float32), 4)] for a in (inputs, seen))
    before = None if raw is None else [{"x": part} for part in np.split(raw.astype(np.float32), 4)]
    sound, found = ([{"y": INFER(one)["y"]} for one in side] for side in (ours, theirs))
    return Bench(SIGNATURE, INFER, ours, sound, found, before)


def brightness(made: Bench) -> Trial:
    trials = tried(made, list(gamma.fitted_gamma(made, INFER, FITTED)))
    return trials[0]


NORMALIZED: list[Change] = [
    lambda x: x,
    lambda x: 255 * x,
    lambda x: 2 * x - 1,
    lambda x: (x - MEAN) / DEVIATION,
    lambda x: (x - 0.37) / 0.11,  # by nobody's constants: the suite's ends are black and white here
]


@pytest.mark.parametrize("normalize", NORMALIZED)
@pytest.mark.parametrize("power", [2.2, 0.6])
def test_a_gamma_is_fitted_however_the_picture_is_normalized(normalize: Change, power: float) -> None:
    best = brightness(bench(normalize(LIGHT), normalize(LIGHT**power)))
    assert best.holds
    assert f"to the power of {power:.3g} (gamma)" in best.name


def test_black_and_white_are_where_preprocess_puts_them() -> None:
    """No picture here is white, and the colours have constants of their own that no list has."""
    centre, width = np.reshape((0.3, 0.4, 0.5), (1, 3, 1, 1)), np.reshape((0.2, 0.3, 0.4), (1, 3, 1, 1))
    dim = 0.6 * LIGHT + 0.05
    made = bench((dim - centre) / width, (dim**1.8 - centre) / width, np.rint(dim * 255))
    assert not brightness(made).holds or "preprocess" not in brightness(made).name  # rounded: it is no line any more
    best = brightness(bench((dim - centre) / width, (dim**1.8 - centre) / width, dim * 255))
    assert best.holds
    assert "to the power of 1.8 (gamma) (black and white: as `preprocess` makes them)" in best.name


def test_srgbs_own_curve_is_told_from_a_power() -> None:
    linear = np.where(LIGHT <= 0.04045, LIGHT / 12.92, ((LIGHT + 0.055) / 1.055) ** 2.4)
    best = brightness(bench(LIGHT, linear))
    assert best.holds
    assert "decoded from sRGB" in best.name


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 0.6 * x + 0.1,
        lambda x: 1 / (1 + np.exp(-10 * (x - 0.5))),
        lambda x: np.clip(1.6 * x, 0, 1),
        lambda x: 1 - x,
        lambda x: np.sqrt(x) + RNG.normal(0, 0.1, x.shape),
    ],
)
def test_another_contrast_is_no_gamma(change: Change) -> None:
    assert not brightness(bench(LIGHT, change(LIGHT))).holds


def resized(x: np.ndarray, down: str, up: str, size: tuple[int, int]) -> np.ndarray:
    """By torch: smaller, then as large as before. Between three pixels and one, bilinear takes the middle one."""
    how = {"area": {}, "nearest": {}, "nearest-exact": {}, "bilinear": {"align_corners": False}}
    small = torch.nn.functional.interpolate(torch.from_numpy(x), size, mode=down, **how[down])  # type: ignore[arg-type]
    large = torch.nn.functional.interpolate(small, x.shape[2:], mode=up, **how[up])  # type: ignore[arg-type]
    return np.asarray(large.numpy())


@pytest.mark.parametrize(
    ("down", "up", "size", "said"),
    [
        ("area", "nearest-exact", (6, 4), "1/3 of its size (mean) and back (nearest)"),
        ("bilinear", "bilinear", (6, 4), "1/3 of its size (nearest) and back (bilinear)"),
        ("nearest", "bilinear", (9, 6), "1/2 of its size (nearest, first pixels) and back (bilinear)"),
        ("nearest-exact", "nearest", (12, 8), "2/3 of its size (nearest) and back (nearest, first pixels)"),
        ("bilinear", "nearest-exact", (13, 9), "3/4 of its size (bilinear) and back (nearest)"),
    ],
)
def test_a_picture_that_was_smaller_on_its_way_is_told(down: str, up: str, size: tuple[int, int], said: str) -> None:
    best = screened(bench(LIGHT, resized(LIGHT, down, up, size)), preprocessing.suspicions)[0]
    assert best.holds
    assert said in best.name


@pytest.mark.parametrize("spread", [0.4, 0.6, 0.7, 0.8, 1.2])
def test_a_blur_is_not_called_another_size(spread: float) -> None:
    blurred = np.stack([gaussian_filter(one, (0, spread, spread)) for one in LIGHT])
    assert not any(one.holds for one in screened(bench(LIGHT, blurred), preprocessing.suspicions))
