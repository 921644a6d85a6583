"""What goes into a release, what keeps one from going out, and that the same inputs give the same digest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.errors import ConfigError
from registry.embedded import Embedded
from registry.pull import pull
from tests.conftest import json_of, run_in, write_tiny

INT8 = "edge-x86-onnxruntime"
GPU = "cloud-gpu-tensorrt-fp16"


def manifest_of(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((root / "out" / "tiny" / "release" / "files" / "manifest.json").read_text())
    return document


def digest_after(root: Path) -> str:
    done = run_in(root, "artifacts", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    return str(json_of(done)["release"]["digest"])


def relabel(root: Path) -> None:
    suite = dict(np.load(root / "tiny" / "suite.npz"))
    suite["labels"][3] = (suite["labels"][3] + 1) % 4
    np.savez(root / "tiny" / "suite.npz", **suite)


def test_the_same_inputs_give_the_same_digest_from_another_folder_and_without_anything_built(
    built: Path, tmp_path: Path
) -> None:
    """No `out/`, no registry, another path, all timings taken anew."""
    root = tmp_path / "another" / "place"
    write_tiny(root)
    first = json.loads((built / "out" / "tiny" / "release" / "step.json").read_text())["outputs"]["files/manifest.json"]
    assert digest_after(root) == first


def test_a_release_made_again_in_place_is_the_version_that_is_there(project: Path) -> None:
    shutil.rmtree(project / "out")
    done = run_in(project, "artifacts", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    assert (json_of(done)["release"]["version"], json_of(done)["release"]["created"]) == (1, False)


def test_a_changed_label_is_another_release(project: Path) -> None:
    relabel(project)
    done = run_in(project, "artifacts", "tiny", "--json")
    assert (json_of(done)["release"]["version"], json_of(done)["release"]["created"]) == (2, True)


@pytest.mark.parametrize("change", ["label", "policy", "weights", "artifact", "observation", "verdict"])
def test_publish_refuses_what_changed_since_it_was_judged(project: Path, change: str) -> None:
    out = project / "out" / "tiny" / "targets" / "cloud-cpu-onnxruntime"
    if change == "label":
        relabel(project)
    elif change == "policy":
        path = project / "configs" / "policies" / "default.yaml"
        path.write_text(path.read_text().replace("at_least: 0.98", "at_least: 0.5"))
    else:
        path = {
            "weights": project / "tiny" / "weights.safetensors",
            "artifact": out / "build" / "artifact" / "model.onnx",
            "observation": out / "observation" / "outputs" / "00000.npz",
            "verdict": out / "verdict" / "verdict.json",
        }[change]
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
    done = run_in(project, "publish", "tiny", "--json")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "changed since" in json_of(done)["error"]["message"]
    assert "Traceback" not in done.stderr
    assert len(Embedded(project / ".lockstep" / "registry").versions("tiny")) == 1


def test_why_names_what_changed_and_runs_nothing(project: Path) -> None:
    relabel(project)
    done = run_in(project, "why", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    assert "tiny/suite.npz" in str(json_of(done)["would_run"])
    assert "suite" in json_of(run_in(project, "why", "tiny", "--json"))["would_run"]


def test_publish_refuses_what_was_never_judged(project: Path) -> None:
    shutil.rmtree(project / "out")
    assert run_in(project, "publish", "tiny").returncode == 2


def test_a_failed_verdict_publishes_nothing(project: Path) -> None:
    """A policy that nothing can meet: 600 rows cannot prove 99.9 %, and two rows of disagreement are not allowed."""
    path = project / "configs" / "policies" / "default.yaml"
    path.write_text(path.read_text().replace("at_most: 10\n", "at_most: 1.0e-9\n"))
    (project / "configs" / "targets" / "cloud-cpu-onnxruntime.yaml").write_text(
        (project / "configs" / "targets" / "edge-x86-openvino-fp32.yaml")
        .read_text()
        .replace("role: edge", "role: cloud")
    )
    done = run_in(project, "artifacts", "tiny", "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert json_of(done)["release"] is None
    assert len(Embedded(project / ".lockstep" / "registry").versions("tiny")) == 1
    assert run_in(project, "publish", "tiny").returncode == 1


def test_an_open_verdict_publishes_nothing(project: Path) -> None:
    """600 rows alike prove 99.5 %, not 99.9 %: INCONCLUSIVE, exit 4."""
    path = project / "configs" / "policies" / "default.yaml"
    path.write_text(path.read_text().replace("at_least: 0.98", "at_least: 0.999"))
    done = run_in(project, "artifacts", "tiny", "--json")
    assert done.returncode == 4, done.stdout + done.stderr
    assert json_of(done)["release"] is None
    found = [f for t in json_of(done)["targets"] for f in t["verdict"]["findings"] if f["status"] == "INCONCLUSIVE"]
    assert all(2995 <= f["measured"]["needed"] <= 3010 for f in found)  # ceil(ln 0.05 / ln 0.999), half a percent


def test_a_target_that_is_not_required_is_listed_without_files_and_without_figures(mixed: Path) -> None:
    absent = manifest_of(mixed)["absent"]
    assert set(absent) == {INT8}
    assert absent[INT8]["why"] == "too small for int8 to pay"
    assert absent[INT8]["status"] in ("FAIL", "INCONCLUSIVE")
    assert "latency ratio against float" in absent[INT8]["found"]
    assert not any(c.isdigit() for c in absent[INT8]["found"].replace("int8", ""))
    assert not (mixed / "out" / "tiny" / "release" / "files" / "targets" / INT8).exists()
    reasons = json.loads((mixed / "out" / "tiny" / "release" / "evidence" / "absent.json").read_text())
    assert any("latency ratio" in reason and "at most 1: FAIL" in reason for reason in reasons[INT8])


def test_pulling_a_target_the_release_goes_without_says_why(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too small for int8 to pay"):
        pull(Embedded(mixed / ".lockstep" / "registry"), "tiny@1", INT8, tmp_path / "got")


def test_an_integer_artifact_slower_than_float_is_refused_with_its_figures(mixed: Path) -> None:
    """Real arithmetic: for 640 weights quantizing and back costs more than it saves."""
    done = run_in(mixed, "check", "tiny", "--json")
    verdict = next(t for t in json_of(done)["targets"] if t["target"] == INT8)["verdict"]
    speed = next(f for f in verdict["findings"] if f["metric"] == "latency ratio")
    assert speed["status"] == "FAIL"
    assert speed["measured"]["low"] > 1
    assert f"{speed['measured']['value']:.4g}" in speed["sentence"]


@pytest.fixture
def gpu_is_elsewhere() -> None:
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has an NVIDIA GPU: nothing is deferred here")


@pytest.mark.usefixtures("gpu_is_elsewhere")
def test_a_deferred_target_goes_out_with_its_files_where_the_policy_allows_it(mixed: Path) -> None:
    target = manifest_of(mixed)["targets"][GPU]
    assert target["verdict"]["status"] == "DEFERRED"
    assert "no NVIDIA GPU" in target["verdict"]["why"]
    assert any(entry["path"].endswith("golden/golden.json") for entry in target["files"])


@pytest.mark.usefixtures("gpu_is_elsewhere")
def test_a_deferred_target_stops_the_release_where_the_policy_does_not_allow_it(mixed: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(mixed, root)
    path = root / "configs" / "policies" / "default.yaml"
    path.write_text(path.read_text().replace('["cloud-gpu-*"]', "[]"))
    done = run_in(root, "artifacts", "tiny", "--json")
    assert done.returncode == 4, done.stdout + done.stderr
    assert json_of(done)["release"] is None


@pytest.mark.usefixtures("gpu_is_elsewhere")
def test_the_next_baseline_stands_in_for_one_that_cannot_run_here_and_the_verdict_says_so(mixed: Path) -> None:
    for name in ("edge-x86-openvino-fp32", INT8):
        verdict = json.loads((mixed / "out" / "tiny" / "targets" / name / "verdict" / "verdict.json").read_text())
        assert (verdict["baseline"]["wanted"], verdict["baseline"]["used"]) == (GPU, "cloud-cpu-onnxruntime")
        assert "no NVIDIA GPU" in verdict["baseline"]["why"]
        assert "baseline" in {f["against"] for f in verdict["findings"]}
        assert "baseline" in verdict["digests"]
    assert (
        manifest_of(mixed)["targets"]["edge-x86-openvino-fp32"]["verdict"]["baseline"]["used"]
        == "cloud-cpu-onnxruntime"
    )


@pytest.mark.usefixtures("gpu_is_elsewhere")
def test_an_edge_whose_only_baseline_cannot_run_here_is_not_passed(mixed: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(mixed, root)
    path = root / "configs" / "models" / "tiny.yaml"
    path.write_text(path.read_text().replace(f"baseline: [{GPU}, cloud-cpu-onnxruntime]", f"baseline: [{GPU}]"))
    done = run_in(root, "check", "tiny", "--json")
    assert done.returncode == 4, done.stdout + done.stderr
    statuses = {t["target"]: t["status"] for t in json_of(done)["targets"]}
    assert statuses["edge-x86-openvino-fp32"] == "INCONCLUSIVE"


def test_a_release_without_any_target_is_none(mixed: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(mixed, root)
    path = root / "configs" / "models" / "tiny.yaml"
    text = path.read_text().split("targets:")[0]
    text = text.replace(f"baseline: [{GPU}, cloud-cpu-onnxruntime]\n", "")
    path.write_text(f"{text}targets: [{{name: {INT8}, required: false, why: too small for int8 to pay}}]\n")
    done = run_in(root, "artifacts", "tiny", "--json")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no target is fit" in json_of(done)["error"]["message"]


def test_the_manifest_holds_no_time_no_host_and_no_path(built: Path) -> None:
    text = (built / "out" / "tiny" / "release" / "files" / "manifest.json").read_text()
    document = json.loads(text)
    assert str(built) not in text
    assert not {"seconds", "fingerprint", "cpu", "timing", "host", "created"} & set(text.replace('"', " ").split())
    assert "latency" not in str(document["targets"]["cloud-cpu-onnxruntime"])
    assert document["source"]["digest"]
    assert document["suite"]["digest"]
    assert document["policy"]["digest"]
    assert document["tools"]["onnxruntime"]
