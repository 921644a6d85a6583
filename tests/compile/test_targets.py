"""The conformance suite: what every toolchain in `compile/targets/` must do, whatever it drives.

Run through the worker, as lockstep runs it. A toolchain that this machine cannot run shows its own reason as the skip.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compile.config import toolchain_file, toolchains
from compile.probe import probe
from compile.toolchain import WORKER, packages_of

WEIGHTS = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
SIGNATURE = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 6]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
    "axes": {"batch": {"least": 1, "typical": 1, "most": 8}},
    "state": {},
}


def graph(path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "product"), helper.make_node("Relu", ["h"], ["y"], "cut")]
    made = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(WEIGHTS, "w")])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def job(folder: Path, toolchain: str, **changes: Any) -> Path:
    """A job folder with the graph and two batches of inputs."""
    (folder / "batches").mkdir(parents=True)
    graph(folder / "graph.onnx")
    rng = np.random.default_rng(1)
    for number, rows in enumerate((4, 3)):
        np.savez(folder / "batches" / f"{number:05d}.npz", x=rng.standard_normal((rows, 6)).astype(np.float32))
    document = {
        "target_file": str(toolchain_file(toolchain)),
        "options": {"threads": 1, "compute_capabilities": [80, 89]},
        "precision": "float32",
        "signature": SIGNATURE,
        "graph": "graph.onnx",
        "artifact": "artifact",
        "twin": None,
        "batches": "batches",
    } | changes
    (folder / "job.json").write_text(json.dumps(document))
    return folder


def work(folder: Path, verb: str) -> dict[str, Any]:
    command = [sys.executable, "-I", "-B", str(WORKER), str(folder), verb]
    subprocess.run(command, capture_output=True, check=False, timeout=300)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def skip_unless(toolchain: str, verb: str) -> None:
    why = probe(toolchain)[verb]
    if why:
        pytest.skip(f"{toolchain} cannot {verb} here: {why[0]}")


@pytest.mark.parametrize("toolchain", toolchains())
def test_probe_says_versions_and_what_it_can(toolchain: str) -> None:
    found = probe(toolchain)
    assert set(found) == {"versions", "build", "run"}
    assert all(found[verb] is None or len(found[verb]) == 2 for verb in ("build", "run"))
    assert packages_of(toolchain_file(toolchain)), "PACKAGES names what a step's key must cover"


@pytest.mark.parametrize("toolchain", toolchains())
def test_build_writes_the_entry_and_the_same_bytes_in_two_places(toolchain: str, tmp_path: Path) -> None:
    skip_unless(toolchain, "build")
    artifacts = []
    for place in ("one", "another/deeper"):
        folder = job(tmp_path / place, toolchain)
        built = work(folder, "build")["built"]
        assert (folder / "artifact" / built["entry"]).is_file()
        assert set(built["runtime"]) == {"name", "version"}
        artifacts.append({p.name: p.read_bytes() for p in (folder / "artifact").iterdir()})
    assert artifacts[0] == artifacts[1]
    assert all(str(tmp_path).encode() not in data for data in artifacts[0].values())


@pytest.mark.parametrize("toolchain", toolchains())
def test_answers_equal_numpy_in_every_batch(toolchain: str, tmp_path: Path) -> None:
    skip_unless(toolchain, "run")
    folder = job(tmp_path / "job", toolchain)
    work(folder, "build")
    result = work(folder, "answer")
    assert "error" not in result
    for path in sorted((folder / "batches").glob("*.npz")):
        expected = np.maximum(np.load(path)["x"] @ WEIGHTS, 0)
        np.testing.assert_allclose(np.load(folder / "outputs" / path.name)["y"], expected, atol=1e-5)


@pytest.mark.parametrize("toolchain", toolchains())
def test_timings_of_artifact_and_twin_come_in_pairs(toolchain: str, tmp_path: Path) -> None:
    skip_unless(toolchain, "run")
    folder = job(tmp_path / "job", toolchain, twin="artifact")
    work(folder, "build")
    timed = work(folder, "time")
    seconds = timed["seconds"]
    assert timed["shapes"] == {"x": [1, 6]}
    assert len(seconds["artifact"]) == len(seconds["float"]) > 10
    assert min(seconds["artifact"]) > 0


@pytest.mark.parametrize("toolchain", toolchains())
def test_a_graph_it_cannot_compile_is_an_error_that_names_the_operator(toolchain: str, tmp_path: Path) -> None:
    skip_unless(toolchain, "build")
    folder = job(tmp_path / "job", toolchain)
    model = onnx.load(folder / "graph.onnx")
    model.graph.node[1].op_type, model.graph.node[1].domain = "FancyActivation", "com.acme"
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    onnx.save(model, folder / "graph.onnx")
    result = work(folder, "build")
    assert "FancyActivation" in result["error"]
    assert "built" not in result


@pytest.mark.parametrize("toolchain", toolchains())
def test_a_damaged_artifact_is_an_error_and_no_answer(toolchain: str, tmp_path: Path) -> None:
    skip_unless(toolchain, "run")
    folder = job(tmp_path / "job", toolchain)
    entry = work(folder, "build")["built"]["entry"]
    (folder / "artifact" / entry).write_bytes(b"not a model")
    result = work(folder, "answer")
    assert "error" in result
    assert not list((folder / "outputs").glob("*")) if (folder / "outputs").exists() else True


def test_state_is_carried_within_a_stream_and_zero_at_its_start(tmp_path: Path) -> None:
    """y = x + h, hn = y: each stream's outputs are the running sums of its own inputs."""
    names = {"x": ["batch", 1], "h": ["batch", 1], "y": ["batch", 1], "hn": ["batch", 1]}
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in names.items()}
    nodes = [helper.make_node("Add", ["x", "h"], ["y"]), helper.make_node("Identity", ["y"], ["hn"])]
    made = helper.make_graph(nodes, "g", [values["x"], values["h"]], [values["y"], values["hn"]])
    tensors = {n: {"name": n, "dtype": "float32", "shape": shape} for n, shape in names.items()}
    signature = {
        "inputs": [tensors["x"], tensors["h"]],
        "outputs": [tensors["y"], tensors["hn"]],
        "axes": SIGNATURE["axes"],
        "state": {"h": "hn"},
    }
    folder = job(tmp_path / "job", "onnxruntime", signature=signature)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "graph.onnx")
    for number, (streams, x) in enumerate([([0, 1], [1, 10]), ([0, 1], [2, 20]), ([1], [30])]):
        np.savez(folder / "batches" / f"{number:05d}.npz", stream=np.array(streams), x=np.array(x, np.float32)[:, None])
    work(folder, "build")
    assert "error" not in work(folder, "answer")
    found = [np.load(p) for p in sorted((folder / "outputs").glob("*.npz"))]
    assert [f["y"].ravel().tolist() for f in found] == [[1, 10], [3, 30], [60]]
    assert all(f.files == ["y"] for f in found), "state is no answer"


def test_a_hidden_gpu_is_a_reason_and_a_fix_not_a_pass(tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    folder = job(tmp_path / "job", "tensorrt")
    assert "built" in work(folder, "build")
    result = work(folder, "answer")
    assert result["unavailable"]["reason"] == "no NVIDIA GPU on this machine"
    assert "lockstep bundle" in result["unavailable"]["fix"]
