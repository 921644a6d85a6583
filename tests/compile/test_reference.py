"""The noise floor: what float32 rounding moves, however it can be had, and never what a wrong evaluator says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compile import reference
from compile.kept import Batch
from compile.signature import Axis, Signature
from compile.signature import Tensor as Slot
from compile.source import Source

SIGNATURE = Signature(
    inputs=(Slot("x", "float32", ("batch", 3, 8, 8)),),
    outputs=(Slot("y", "float32", ("batch", 4, 8, 8)),),
    axes={"batch": Axis(1, 1, 64)},
)


def normalized(opset: int) -> onnx.ModelProto:
    """A convolution and a BatchNormalization whose stored statistics are far from those of any batch here."""
    random = np.random.default_rng(0)
    stored = {
        "w": random.standard_normal((4, 3, 3, 3)),
        "scale": random.uniform(0.5, 1, 4),
        "bias": random.standard_normal(4),
        "mean": random.standard_normal(4) * 5,
        "var": random.uniform(5, 9, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["y"], momentum=0.9),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


class CastsInside(nn.Module):
    """No double precision for this one: it casts its input to float32 itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x.float())
        return found


def floor_of(source: Source, folder: Path, *, large: int = 0) -> tuple[float, str]:
    """The floor on six rows, and `large` more that are a hundred times as large."""
    (folder / "batches").mkdir(parents=True)
    (folder / "outputs").mkdir()
    x = np.random.default_rng(1).standard_normal((6 + large, 3, 8, 8)).astype(np.float32)
    x[6:] *= 100
    np.savez(folder / "batches" / "00000.npz", x=x)
    np.savez(folder / "outputs" / "00000.npz", **reference.in_float32(source, SIGNATURE)({"x": x}))  # type: ignore[arg-type]
    floors, method = reference._floors(source, SIGNATURE, folder, folder / "outputs")
    return floors["y"], method


@pytest.mark.parametrize("opset", [9, 12, 17])
def test_normalization_uses_the_stored_statistics_at_every_opset(opset: int, tmp_path: Path) -> None:
    floor, method = floor_of(Source(graph=normalized(opset)), tmp_path)
    assert "scaled by float64 on the first rows" in method
    assert 1e-8 < floor < 1e-5


def test_an_evaluator_that_is_wrong_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: onnx.ModelProto, signature: Signature) -> Callable[[Batch], Batch]:
        return lambda feeds: {"y": np.zeros((6, 4, 8, 8))}

    monkeypatch.setattr(reference, "_interpreted", wrong)
    floor, method = floor_of(Source(graph=normalized(17)), tmp_path)
    assert "the float64 run is not believed" in method
    assert 1e-8 < floor < 1e-5


def test_an_answer_that_is_not_finite_is_no_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`max` passes over NaN, and a floor of infinity would let everything pass."""
    broken = np.full((6, 4, 8, 8), np.nan)
    monkeypatch.setattr(reference, "_interpreted", lambda graph, signature: lambda feeds: {"y": broken})
    floor, method = floor_of(Source(graph=normalized(17)), tmp_path)
    assert "no float64 run: ToolchainError: `y` is not finite" in method
    assert 1e-8 < floor < 1e-5


def test_the_first_rows_speak_for_the_whole_suite(tmp_path: Path) -> None:
    """Rows a hundred times as large come behind the rows that float64 sees: the floor is that of all of them."""
    few, _ = floor_of(Source(graph=normalized(17)), tmp_path / "few")
    many, _ = floor_of(Source(graph=normalized(17)), tmp_path / "many", large=40)
    assert many > 20 * few


def test_what_has_no_double_precision_is_shaken_instead(tmp_path: Path) -> None:
    exact, method = floor_of(Source(module=nn.Conv2d(3, 4, 3, padding=1)), tmp_path / "exact")
    assert method == "float64"
    floor, method = floor_of(Source(module=CastsInside()), tmp_path / "shaken")
    assert "no float64 run" in method
    assert exact / 10 < floor < exact * 10


def test_the_scales_of_a_resize_are_no_weights_to_shake(tmp_path: Path) -> None:
    """A little less than 1 × and 2 × would be a result without rows, or one pixel smaller."""
    stored = {"w": np.ones((4, 3, 1, 1)), "scales": np.array([1, 1, 2, 2]), "half": np.array([1, 1, 0.5, 0.5])}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Resize", ["c", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Resize", ["large", "", "half"], ["y"], mode="nearest"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    floor, _ = floor_of(Source(graph=model), tmp_path)
    assert 0 < floor < 1e-4
