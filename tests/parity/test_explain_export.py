"""Exported graphs that are not their source: what was lost on the way is found with the source itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from compile.reference import in_float32
from compile.source import Source
from parity.explain.diagnose import _diagnosis
from parity.explain.experiment import cause as causes
from parity.explain.experiment.case import Case
from parity.explain.experiment.ladder import Rung, Standing
from parity.explain.experiment.rungs import Places
from parity.explain.experiment.told import Cause
from parity.explain.graph.simulate import answered
from parity.explain.mistake.hypotheses import Bench, tried
from parity.explain.mistake.postprocessing import suspicions
from tests.parity.foreign import SIGNATURE, WEIGHTS, case, model, network

MEAN, DEVIATION = np.arange(6, dtype=np.float32), np.linspace(0.5, 2, 6, dtype=np.float32)


class Prepared(nn.Module):
    """relu(w (x - mean) / deviation + b) v, with the parts of `foreign.network`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(MEAN))
        self.register_buffer("deviation", torch.from_numpy(DEVIATION))
        self.net = nn.Module()
        self.net.first, self.net.act, self.net.last = nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5, bias=False)
        with torch.no_grad():
            for tensor, name in ((self.net.first.weight, "w"), (self.net.first.bias, "b"), (self.net.last.weight, "v")):
                tensor.copy_(torch.from_numpy(WEIGHTS[name].T.copy()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net.last(self.net.act(self.net.first((x - self.mean) / self.deviation)))
        return found


def graph() -> onnx.ModelProto:
    """The same as an exporter writes it, which names two of the source's tensors itself."""
    nodes = list(network().graph.node)
    nodes[0].input[0] = "prepared"
    before = [
        helper.make_node("Sub", ["x", "mean"], ["moved"], name="sub"),
        helper.make_node("Div", ["moved", "deviation"], ["prepared"], name="div"),
    ]
    return model([*before, *nodes], WEIGHTS | {"mean": MEAN, "deviation": DEVIATION})


def without_preparing(exported: onnx.ModelProto) -> None:
    del exported.graph.node[:2]
    exported.graph.node[0].input[0] = "x"
    for tensor in [one for one in exported.graph.initializer if one.name in ("mean", "deviation")]:
        exported.graph.initializer.remove(tensor)


def without_the_bias(exported: onnx.ModelProto) -> None:
    place = next(i for i, node in enumerate(exported.graph.node) if node.op_type == "Add")
    del exported.graph.node[place]
    exported.graph.node[place].input[0] = "h"


def columns_swapped(exported: onnx.ModelProto) -> None:
    exported.graph.initializer.append(numpy_helper.from_array(np.array([0, 4, 2, 3, 1, 5]), "order"))
    exported.graph.node.insert(0, helper.make_node("Gather", ["x", "order"], ["turned"], axis=1))
    exported.graph.node[1].input[0] = "turned"


def less_a_little(exported: onnx.ModelProto) -> None:
    exported.graph.initializer.append(numpy_helper.from_array(np.float32(0.05), "little"))
    exported.graph.node[-1].output[0] = "given"
    exported.graph.node.append(helper.make_node("Sub", ["given", "little"], ["y"]))


def another_activation(exported: onnx.ModelProto) -> None:
    next(node for node in exported.graph.node if node.op_type == "Relu").op_type = "Gelu"


def nameless(exported: onnx.ModelProto) -> None:
    another_activation(exported)
    for place, node in enumerate(exported.graph.node):
        node.name = f"node_{place}"


def asked(folder: Path, exported: onnx.ModelProto) -> tuple[Case, list[Standing]]:
    """The exported graph on trial, and where it and its source stand."""
    source = Source(module=Prepared().eval())
    one = replace(case(folder, exported, exported), source=lambda: source)
    standings = []
    for name, answers in (
        ("source", answered(in_float32(source, SIGNATURE), one.batches, SIGNATURE)),
        ("exported graph", one.answers_of(exported)),
    ):
        outputs = folder / name / "outputs"
        outputs.mkdir(parents=True)
        for path, answer in zip(one.files, answers, strict=True):
            np.savez(outputs / path.name, **answer)  # type: ignore[arg-type]  # numpy's stub forbids ** of arrays
        rung = Rung(name, outputs)  # type: ignore[arg-type]
        standings.append(Standing(rung, None, 0, 128, 0.5, 0.5, 1e5, (), broke=name != "source"))
    return one, standings


def caused(folder: Path, exported: onnx.ModelProto) -> Cause:
    one, standings = asked(folder, exported)
    return causes.find(one, standings, standings[-1], [], [])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_preparing, "the exported graph computes without `mean` and `deviation`"),
        (without_the_bias, "the exported graph computes without `net.first.bias`"),
        (columns_swapped, "the exported graph sees `x` with its columns 1 and 4 swapped"),
        (less_a_little, "the exported graph's `y` is × 1 -0.05 (scaled behind the model)"),
        (another_activation, "up to `net.first` its tensors are the source's, those of `net.act` are not"),
    ],
)
def test_what_an_export_lost_is_named(tmp_path: Path, spoil: Callable[[onnx.ModelProto], None], said: str) -> None:
    exported = graph()
    spoil(exported)
    found = caused(tmp_path, exported)
    assert (found.kind, found.explained) == ("export", True)
    assert said in found.sentence, found.sentence


def test_quantizing_behind_a_spoilt_export_is_the_second_cause(tmp_path: Path) -> None:
    exported = graph()
    without_the_bias(exported)
    one, standings = asked(tmp_path, exported)
    rung = replace(standings[-1].rung, name="quantized graph simulated", after="exported graph")
    standings.append(replace(standings[-1], rung=rung, step=0.01))
    found = _diagnosis(one.config, Places(tmp_path, tmp_path, tmp_path, tmp_path, None, None), one, standings, [])
    assert (found.step, found.cause.kind, found.cause.explained) == ("exported graph", "export", True)
    assert found.cause.second is not None
    assert found.cause.second.kind == "quantization"


def test_an_export_whose_modules_cannot_be_told_apart_is_unexplained(tmp_path: Path) -> None:
    exported = graph()
    nameless(exported)
    found = caused(tmp_path, exported)
    assert not found.explained
    assert "what within the export does it is not known" in found.sentence


def test_normalization_by_the_batch_is_told_as_training(tmp_path: Path) -> None:
    """By hand: (x - mean) / sqrt(variance + 1e-5) over a batch's rows, as BatchNorm1d computes it in training."""
    rng = np.random.default_rng(7)
    moved, spread = rng.standard_normal(6).astype(np.float32), rng.uniform(0.5, 2, 6).astype(np.float32)
    layer = nn.BatchNorm1d(6)
    layer.load_state_dict(
        layer.state_dict() | {"running_mean": torch.from_numpy(moved), "running_var": torch.from_numpy(spread)}
    )
    from parity.explain.experiment.exported import _altered

    rows = rng.standard_normal((64, 6)).astype(np.float32)
    found = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    sound = (rows - moved) / np.sqrt(spread + 1e-5)
    made = Bench(SIGNATURE, lambda feeds: feeds, [{"x": rows}], [{"y": sound}], [{"y": found}])
    best = tried(made, list(_altered(layer.eval(), set(), made)))[0]
    assert "as in training" in best.name
    assert best.score == pytest.approx(1)


@pytest.mark.parametrize(("unit", "said"), [(True, True), (False, False)])
def test_vectors_that_are_not_brought_to_their_length_are_told(unit: bool, said: bool) -> None:
    rng = np.random.default_rng(8)
    found = rng.standard_normal((64, 32)) * rng.uniform(1, 9, (64, 1))
    sound = found / np.linalg.norm(found, axis=1, keepdims=True) * (1 if unit else rng.uniform(1, 2, (64, 1)))
    made = Bench(SIGNATURE, lambda feeds: feeds, [{"x": sound}], [{"y": sound}], [{"y": found}])
    names = [one.name for one in tried(made, list(suspicions(made, {}))) if one.holds]
    assert ("the candidate's `y` is not brought to length 1" in names) is said
