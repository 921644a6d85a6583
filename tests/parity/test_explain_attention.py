"""Attention whose scores are scaled otherwise or whose mask is ignored, told from the answers; what only looks like it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from parity.explain.mistake import inside
from parity.explain.mistake.hypotheses import Trial
from tests.parity.foreign import case, found_for, model

RNG = np.random.default_rng(7)
STORED = {name: RNG.standard_normal((6, 16)).astype(np.float32) / 2 for name in ("q", "k", "w")} | {
    "v": RNG.standard_normal((16, 5)).astype(np.float32),
    "square": np.array([0, 4, 4], np.int64),
    "flat": np.array([0, 16], np.int64),
    "half": np.array(0.5, np.float32),
    "mask": np.triu(np.full((4, 4), -1e9, np.float32), 1),
    "bias": RNG.standard_normal((4, 4)).astype(np.float32),
}


def attending(
    scale: float | None = 0.5, mask: str | None = "mask", *, before: bool = False, act: str = "Softmax"
) -> onnx.ModelProto:
    """One head of four steps of four numbers; scaled before its product or behind it, or not at all."""
    stored = STORED | {"half": np.array(scale or 1, np.float32)}
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}_"], name=f"/net/{name}/MatMul") for name in "qkw"]
    nodes += [helper.make_node("Reshape", [f"{n}_", "square"], [f"{n}s"], name=f"/net/{n}/Reshape") for n in "qkw"]
    nodes.append(helper.make_node("Transpose", ["ks"], ["kt"], name="/net/turn/Transpose", perm=[0, 2, 1]))
    scaled = scale is not None
    if scaled and before:
        nodes.append(helper.make_node("Mul", ["qs", "half"], ["qh"], name="/net/scale/Mul"))
    nodes.append(
        helper.make_node("MatMul", ["qh" if scaled and before else "qs", "kt"], ["s"], name="/net/scores/MatMul")
    )
    last = "s"
    if scaled and not before:
        nodes.append(helper.make_node("Mul", [last, "half"], ["t"], name="/net/scale/Mul"))
        last = "t"
    if mask:
        nodes.append(helper.make_node("Add", [last, mask], ["m"], name="/net/mask/Add"))
        last = "m"
    nodes += [
        helper.make_node(act, [last], ["p"], name=f"/net/soft/{act}"),
        helper.make_node("MatMul", ["p", "ws"], ["o"], name="/net/mix/MatMul"),
        helper.make_node("Reshape", ["o", "flat"], ["f"], name="/net/Flat"),
        helper.make_node("MatMul", ["f", "v"], ["y"], name="/net/leave/MatMul"),
    ]
    return model(nodes, stored)


def tried(folder: Path, sound: onnx.ModelProto, candidate: onnx.ModelProto) -> list[Trial]:
    one = case(folder, candidate, sound)
    return inside.suspicions(one.bench(one.exact, one.answers_of(candidate)))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("scale", "said"),
    [(None, "without the scale of its scores (0.5)"), (0.25, "with the scale of its scores twice (0.5)")],
)
def test_a_scale_that_is_missing_or_doubled_is_told(tmp_path: Path, before: bool, scale: float, said: str) -> None:
    best = tried(tmp_path, attending(before=before), attending(scale, before=before))[0]
    assert best.holds
    assert best.kind == "export"
    assert said in best.name


def test_a_scale_that_no_operator_of_the_source_shows_is_the_root_of_its_size(tmp_path: Path) -> None:
    """Folded into the queries, as many exporters do: the product sums over four numbers."""
    best = tried(tmp_path, attending(None), attending(2.0))[0]
    assert best.holds
    assert "without the scale of its scores (0.5)" in best.name


@pytest.mark.parametrize("mask", ["mask", "bias"])
def test_a_mask_or_a_bias_that_is_ignored_is_told(tmp_path: Path, mask: str) -> None:
    best = tried(tmp_path, attending(mask=mask), attending(mask=None))[0]
    assert best.holds
    assert "without what is added to its scores (a mask, a bias)" in best.name


def test_another_scale_or_another_function_is_not_called_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert not any(one.holds for one in tried(tmp_path, attending(), attending(0.8)))
    assert not any(one.holds for one in tried(tmp_path / "other", attending(), attending(act="Sigmoid")))


@pytest.mark.parametrize("scale", [0.25, 0.4, 1.0])
def test_a_temperature_in_the_file_is_told_and_nothing_is_left(tmp_path: Path, scale: float) -> None:
    warm = attending(before=False)
    soft = next(node for node in warm.graph.node if node.op_type == "Softmax")
    place = list(warm.graph.node).index(soft)
    warm.graph.node.insert(place, helper.make_node("Mul", ["m", "warmth"], ["h"], name="/net/soft/Mul"))
    soft.input[0] = "h"
    warm.graph.initializer.append(numpy_helper.from_array(np.array(2 * scale + 0.1, np.float32), "warmth"))
    cause = found_for(tmp_path, warm, attending())
    assert cause.kind in ("export", "fusion")
    assert "`net.soft` is computed by Mul" in cause.sentence
    assert cause.explained
    assert cause.second is None
