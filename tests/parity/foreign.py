"""A small network, candidates that others made of it, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compile.config import ModelFile, load_target
from compile.project import Project
from compile.signature import Axis, Signature, Tensor
from parity.explain.experiment import cause as causes
from parity.explain.experiment.case import Case
from parity.explain.experiment.ladder import Rung, Scale, Standing
from parity.explain.experiment.structure import changes
from parity.explain.experiment.told import Cause
from parity.explain.graph.integers import floated
from tests.conftest import REPOSITORY

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.standard_normal((6, 16)).astype(np.float32),
    "b": RNG.standard_normal(16).astype(np.float32),
    "v": RNG.standard_normal((16, 5)).astype(np.float32),
}
SIGNATURE = Signature(
    (Tensor("x", "float32", ("batch", 6)),), (Tensor("y", "float32", ("batch", 5)),), {"batch": Axis(1, 8, 64)}
)
value = helper.make_tensor_value_info


def network(weights: dict[str, np.ndarray] = WEIGHTS, *, relu: bool = True, stem: str = "net") -> onnx.ModelProto:
    """relu(x @ w + b) @ v; its nodes are named under `stem`."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name=f"/{stem}/first/MatMul"),
        helper.make_node("Add", ["h", "b"], ["s"], name=f"/{stem}/first/Add"),
        *([helper.make_node("Relu", ["s"], ["r"], name=f"/{stem}/act/Relu")] if relu else []),
        helper.make_node("MatMul", ["r" if relu else "s", "v"], ["y"], name=f"/{stem}/last/MatMul"),
    ]
    return model(nodes, weights)


def model(nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray], *more: onnx.ValueInfoProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 6]), *more],
        [value("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def batches(folder: Path, count: int = 4) -> list[Path]:
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:05d}.npz")
        np.savez(
            paths[-1], x=(np.random.default_rng(number).standard_normal((32, 6)) + np.arange(6)).astype(np.float32)
        )
    return paths


def case(folder: Path, found: onnx.ModelProto, sound: onnx.ModelProto | None = None) -> Case:
    """A candidate on trial as this source, for a float target."""
    sound = sound or network()
    config = ModelFile.model_validate(
        {
            "source": {"onnx": "m.onnx"},
            "inputs": {"x": {"dtype": "float32", "shape": ["batch", 6]}},
            "outputs": {"y": {"dtype": "float32", "shape": ["batch", 5]}},
            "suite": {"npz": "s.npz"},
            "task": {"kind": "classification"},
            "targets": ["cloud-cpu-onnxruntime"],
        }
    )
    target = load_target(Project(REPOSITORY), "cloud-cpu-onnxruntime")
    return Case(config, target, sound, sound, found, batches(folder), None, Scale({"y": 1e-5}, 10.0))


def found_for(folder: Path, candidate: onnx.ModelProto, sound: onnx.ModelProto | None = None) -> Cause:
    """What is said of a candidate beside `sound`, or beside `network()`."""
    outputs = folder / "outputs"
    outputs.mkdir()
    candidate = floated(candidate)
    one = case(folder, candidate, sound)
    for path, answer in zip(one.files, one.answers_of(candidate), strict=True):
        np.savez(outputs / path.name, **answer)  # type: ignore[arg-type]  # numpy's stub forbids ** of arrays
    rung = Rung("artifact as found", outputs)
    broken = Standing(rung, None, 0, 128, 1.0, 1.0, 1e5, (), broke=True)
    return causes.find(one, [broken], broken, [], changes(one.fresh, candidate))
