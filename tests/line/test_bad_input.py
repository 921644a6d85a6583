"""Bad input, each with one clear paragraph, the right exit code, and nothing lost: the last release stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import json_of, run_in


def refused(root: Path, code: int, *words: str, verb: str = "artifacts") -> str:
    """The command ends with `code`, says `words` in a paragraph without a traceback, and the release is still there."""
    done = run_in(root, verb, "tiny")
    assert done.returncode == code, done.stdout + done.stderr
    said = done.stdout + done.stderr
    for word in words:
        assert word in said
    assert 'File "' not in done.stderr.split("lockstep:")[-1] or code == 3
    versions = json_of(run_in(root, "status", "tiny", "--json"))["tiny"]["versions"]
    assert [v["version"] for v in versions] == [1]
    return said


def rewrite(root: Path, part: str, **arrays: np.ndarray) -> None:
    path = root / "tiny" / f"{part}.npz"
    with np.load(path) as old:
        kept = {name: old[name] for name in old.files}
    np.savez(path, **(kept | arrays))


def edit(root: Path, old: str, new: str) -> None:
    config = root / "configs" / "models" / "tiny.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


def suite_x(root: Path) -> np.ndarray:
    with np.load(root / "tiny" / "suite.npz") as arrays:
        return np.array(arrays["x"])


def test_missing_weights(project: Path) -> None:
    (project / "tiny" / "weights.safetensors").unlink()
    refused(project, 2, "configs/models/tiny.yaml:2: source.weights: no such file", "weights.safetensors")
    assert run_in(project, "plan", "tiny").returncode == 2


def test_a_source_that_is_no_model_is_refused_by_plan_already(project: Path) -> None:
    edit(project, "{builder: tiny.model:build, weights: tiny/weights.safetensors}", "{onnx: tiny/suite.npz}")
    refused(project, 2, "configs/models/tiny.yaml:2: source.onnx: tiny/suite.npz is no ONNX file", verb="plan")


def test_missing_suite(project: Path) -> None:
    (project / "tiny" / "suite.npz").unlink()
    refused(project, 2, "configs/models/tiny.yaml:7: suite.npz: no such file: tiny/suite.npz", verb="plan")


def test_weights_of_another_model(project: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file(torch.nn.Linear(16, 4).state_dict(), project / "tiny" / "weights.safetensors")
    refused(project, 2, "weights of another model", "configs/models/tiny.yaml")


def test_nan_in_weights(project: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = project / "tiny" / "weights.safetensors"
    weights = load_file(path)
    weights["0.bias"][3] = torch.nan
    save_file(weights, path)
    refused(project, 2, "`0.bias` holds NaN")


def test_pickle_is_refused_and_never_runs(project: Path) -> None:
    (project / "tiny" / "weights.pkl").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    edit(project, "weights.safetensors", "weights.pkl")
    refused(project, 2, "is a pickle, which can run code; it was not read", "safetensors")
    assert not (project / "ran").exists()


def test_nan_in_the_suite(project: Path) -> None:
    x = suite_x(project)
    x[7, 2] = x[9, 1] = x[9, 2] = np.nan
    rewrite(project, "suite", x=x, id=np.array([f"take-{i}" for i in range(len(x))]))
    refused(
        project,
        2,
        "configs/models/tiny.yaml:7: suite batch 0: `x`: found nan at [7, 2] (row `take-7`) and in 1 more row;",
    )


def test_a_declared_output_shape_that_the_model_does_not_have(project: Path) -> None:
    edit(project, "logits: {dtype: float32, shape: [batch, 4]}", "logits: {dtype: float32, shape: [batch, 5]}")
    refused(project, 2, "'logits' has size 4 in the model, 5 in the config")


def test_labels_that_are_no_class_of_the_model(project: Path) -> None:
    with np.load(project / "tiny" / "suite.npz") as arrays:
        labels = arrays["labels"] + 1
    rewrite(project, "suite", labels=labels)
    refused(project, 2, "labels: found int64 such as 4; expected integers from 0 to 3")


LOOKUP = """
from torch import nn


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(28, 8), nn.Linear(8, 4)

    def forward(self, ids):
        return self.head(self.table(ids).mean(1))


def build():
    return Lookup()
"""


def test_rows_that_the_source_itself_cannot_answer_are_named(project: Path) -> None:
    """Runtimes fail on them first; what is told is the suite's batch, its rows, its ranges and the source's own words."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    (project / "tiny" / "model.py").write_text(LOOKUP)
    layers = torch.nn.ModuleDict({"table": torch.nn.Embedding(28, 8), "head": torch.nn.Linear(8, 4)})
    save_file(layers.state_dict(), project / "tiny" / "weights.safetensors")
    ids = np.random.default_rng(0).integers(0, 28, (200, 6))
    ids[150, 2] = 29
    np.savez(project / "tiny" / "suite.npz", ids=ids, id=np.array([f"take-{i}" for i in range(200)]))
    edit(project, "x: {dtype: float32, shape: [batch, 16]}", "ids: {dtype: int64, shape: [batch, 6]}")
    edit(project, "targets: [cloud-cpu-onnxruntime, edge-x86-openvino-fp32]", "targets: [cloud-cpu-onnxruntime]")
    told = "suite batch 2 (rows `take-128` to `take-191`): the source model itself raised IndexError: index out of range in"
    refused(project, 2, f"configs/models/tiny.yaml:7: {told} self. The batch holds `ids` from 0 to 29", verb="check")


def test_an_edge_target_is_no_baseline(project: Path) -> None:
    edit(project, "baseline: [cloud-cpu-onnxruntime]", "baseline: [edge-x86-openvino-fp32]")
    done = run_in(project, "check", "tiny")
    assert done.returncode == 2
    assert "`edge-x86-openvino-fp32` is an edge target; expected one whose role is cloud" in done.stderr


def test_empty_suite(project: Path) -> None:
    rewrite(project, "suite", x=np.zeros((0, 16), np.float32), labels=np.zeros(0, int), id=np.zeros(0, int))
    refused(project, 2, "found no rows; expected at least one")


def test_wrong_dtype_and_wrong_shape(project: Path) -> None:
    x = suite_x(project)
    rewrite(project, "suite", x=x.astype(np.float64))
    refused(project, 2, "found dtype float64; expected float32")
    rewrite(project, "suite", x=x[:, :15])
    refused(project, 2, "found shape (600, 15)")


@pytest.fixture
def with_int8(project: Path) -> Path:
    """The tiny project asking for an int8 target too, so that calibration data matters."""
    edit(project, "edge-x86-openvino-fp32]", "edge-x86-openvino-fp32, edge-x86-onnxruntime]")
    return project


def calibration_error(root: Path) -> str:
    done = run_in(root, "build", "tiny")
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr


def test_nan_in_calibration(with_int8: Path) -> None:
    rewrite(with_int8, "calibration", x=np.full((8, 16), np.nan, np.float32))
    assert "calibration batch 0: `x`: found nan at [0, 0]" in calibration_error(with_int8)


def test_empty_calibration(with_int8: Path) -> None:
    rewrite(with_int8, "calibration", x=np.zeros((0, 16), np.float32))
    assert "calibration batch 0: found no rows" in calibration_error(with_int8)


def test_missing_calibration(with_int8: Path) -> None:
    edit(with_int8, "calibration: {npz: tiny/calibration.npz}\n", "")
    assert "an int8 target needs `calibration`; it is missing" in calibration_error(with_int8)


def test_calibration_that_overlaps_the_suite(with_int8: Path) -> None:
    rewrite(with_int8, "calibration", x=suite_x(with_int8)[10:20])
    assert "10 of its rows are also in the evaluation suite" in calibration_error(with_int8)


def test_an_operator_that_a_target_cannot_compile_is_named_with_its_source_module(project: Path) -> None:
    """OpenVINO has no `Det`; ONNX Runtime does: the one target fails alone and the other finishes."""
    (project / "tiny" / "model.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Volume(nn.Module):\n    def forward(self, x):\n"
        "        return torch.linalg.det(x.reshape(-1, 4, 4)).unsqueeze(1)\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.first = nn.Linear(16, 16)\n"
        "        self.volume = Volume()\n        self.last = nn.Linear(1, 4)\n\n    def forward(self, x):\n"
        "        return self.last(self.volume(self.first(x)))\n\n\ndef build():\n    torch.manual_seed(0)\n    return Net()\n"
    )
    code = (
        "from tiny.model import build; from safetensors.torch import save_file; "
        "save_file(build().state_dict(), 'tiny/weights.safetensors')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)
    done = run_in(project, "build", "tiny", "--json")
    assert done.returncode == 3, done.stderr
    found = {t["target"]: t for t in json_of(done)["targets"]}
    assert found["cloud-cpu-onnxruntime"]["status"] == "BUILT"
    assert found["edge-x86-openvino-fp32"]["status"] == "ERROR"
    assert "Det `volume" in found["edge-x86-openvino-fp32"]["error"]


def test_a_toolchain_that_crashes_is_an_error_of_its_target_alone(project: Path) -> None:
    target = project / "configs" / "targets" / "edge-x86-openvino-fp32.yaml"
    target.write_text(target.read_text() + "limits: {time_s: 0.01}\n")
    done = run_in(project, "check", "tiny", "--json")
    assert done.returncode == 3
    found = {t["target"]: t for t in json_of(done)["targets"]}
    assert found["cloud-cpu-onnxruntime"]["status"] == "PASS"
    error = found["edge-x86-openvino-fp32"]["error"]
    assert "ended after its time limit of 0.01 s" in error
    assert Path(error.split("Its log is ")[1].split(";")[0]).is_file()


def test_failing_verdict_exits_1_and_publishes_nothing(project: Path) -> None:
    policy = project / "configs" / "policies" / "default.yaml"
    policy.write_text(policy.read_text().replace("at_most: 10", "at_most: 0.0001"))
    refused(project, 1, "not fit to publish", "float error of `logits`")


def test_too_few_rows_exit_4_and_say_how_many_would_decide(project: Path) -> None:
    x = suite_x(project)
    rewrite(project, "suite", x=x[:60], labels=np.load(project / "tiny" / "suite.npz")["labels"][:60], id=np.arange(60))
    refused(
        project, 4, "INCONCLUSIVE; about 149 rows at these rates would show", "plan tiny` says how many), or one ext"
    )


def test_unknown_model_and_unknown_option_exit_2(project: Path) -> None:
    assert "did you mean `tiny`?" in run_in(project, "artifacts", "tinny").stderr
    assert run_in(project, "artifacts", "tinny").returncode == 2
    assert run_in(project, "artifacts", "tiny", "--nope").returncode == 2
    assert run_in(project.parent, "artifacts", "tiny").returncode == 2


def test_json_of_an_error_is_one_document_on_stdout(project: Path) -> None:
    done = run_in(project, "artifacts", "tinny", "--json")
    document = json_of(done)
    assert document["exit"] == done.returncode == 2
    assert document["error"]["kind"] == "ConfigError"


def test_registry_that_is_down_exits_3_soon_and_nothing_is_lost(project: Path) -> None:
    start = time.monotonic()
    done = run_in(project, "artifacts", "tiny", "--registry", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert "http://127.0.0.1:9" in done.stderr
    assert time.monotonic() - start < 30
    assert run_in(project, "artifacts", "tiny").returncode == 0


@pytest.mark.parametrize("after_s", [0.6, 2.0, 4.0, 7.0])
def test_ctrl_c_at_any_moment_then_the_same_command_again(project: Path, after_s: float) -> None:
    code = project / "tiny" / "model.py"
    code.write_text(code.read_text() + f"\n# changed {after_s}\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PYTEST_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "lockstep", "artifacts", "tiny"],
        cwd=project,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (130, 0), stderr
    if process.returncode == 130:
        assert "interrupted" in stderr
        assert "Traceback" not in stderr
    again = run_in(project, "artifacts", "tiny")
    assert again.returncode == 0, again.stderr
    assert not list((project / "out" / "tiny").glob(".work/*"))


@pytest.fixture
def small_disk(project: Path) -> Path:
    """The project's `out/` on a file system with hardly any room left."""
    import shutil

    out = project / "out"
    shutil.rmtree(out)
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(out)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here (needs root)")
    yield project
    subprocess.run(["umount", "-l", str(out)], check=True)


def test_full_disk_is_said_and_nothing_is_lost(small_disk: Path) -> None:
    done = run_in(small_disk, "artifacts", "tiny")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "No space left" in done.stdout + done.stderr
    subprocess.run(["umount", "-l", str(small_disk / "out")], check=True)
    again = run_in(small_disk, "artifacts", "tiny", "--json")
    assert json_of(again)["release"]["version"] == 1
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(small_disk / "out")], check=True)


def test_read_only_folder_is_said(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk / "out")], check=True)
    done = run_in(small_disk, "artifacts", "tiny")
    assert done.returncode == 3
    assert "Read-only file system" in done.stderr
