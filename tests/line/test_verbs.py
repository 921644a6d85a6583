"""The verbs that tell and prepare: init, schema, targets, status, promote, and what each prints as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from tests.conftest import json_of, run_in
from tests.line.recognizer import write_ocr

ROOT = Path(__file__).parents[2]
VERBS = (
    "init",
    "build",
    "check",
    "publish",
    "artifacts",
    "plan",
    "tune",
    "promote",
    "pull",
    "verify",
    "why",
    "status",
    "targets",
    "bundle",
    "schema",
)


def test_help_names_every_verb(project: Path) -> None:
    shown = run_in(project, "--help").stdout
    assert all(f"  {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json(project: Path, verb: str) -> None:
    assert "--json" in run_in(project, verb, "--help").stdout


@pytest.mark.parametrize("arguments", [["schema", "modl"], ["artifacts"], ["frobnicate"], ["check", "tiny", "--frob"]])
def test_usage_errors_are_one_json_document_too(project: Path, arguments: list[str]) -> None:
    done = run_in(project, *arguments, "--json")
    assert done.returncode == 2
    assert json_of(done)["exit"] == 2


def test_schema_describes_all_three_configs(project: Path) -> None:
    found = json.loads(run_in(project, "schema").stdout)
    assert set(found) == {"model", "target", "policy"}
    assert "source" in found["model"]["properties"]
    assert json.loads(run_in(project, "schema", "policy").stdout) == found["policy"]


def test_targets_say_reason_and_fix_for_what_cannot_run(project: Path) -> None:
    found = json_of(run_in(project, "targets", "--json"))
    assert found["cloud-cpu-onnxruntime"]["run"] is None
    assert found["cloud-cpu-onnxruntime"]["versions"]["onnxruntime"]
    if not Path("/dev/nvidia0").exists():
        reason, fix = found["cloud-gpu-tensorrt-fp16"]["run"]
        assert "GPU" in reason
        assert "lockstep bundle" in fix


def test_promote_moves_a_channel_and_status_shows_it(project: Path) -> None:
    assert run_in(project, "promote", "tiny", "1", "staging").returncode == 0
    versions = json_of(run_in(project, "status", "tiny", "--json"))["tiny"]["versions"]
    assert versions[0]["channels"] == ["staging"]
    assert "staging" in run_in(project, "status", "tiny").stdout
    pulled = run_in(project, "pull", "tiny@staging", "--target", "cloud-cpu-onnxruntime", "--to", "here", "--json")
    assert json_of(pulled)["version"] == 1


def test_a_mistyped_channel_is_no_promotion(project: Path) -> None:
    done = run_in(project, "promote", "tiny", "1", "prodction")
    assert done.returncode == 2
    assert "did you mean `production`?" in done.stderr
    assert run_in(project, "promote", "tiny", "1", "canary", "--new").returncode == 0
    assert run_in(project, "promote", "tiny", "1", "canary").returncode == 0


@pytest.mark.parametrize("channel", ["latest", "v3", "a b", ""])
def test_channels_that_mlflow_keeps_or_cannot_spell_are_refused(project: Path, channel: str) -> None:
    assert run_in(project, "promote", "tiny", "1", channel).returncode == 2


def test_init_writes_a_config_that_is_nearly_ready(project: Path) -> None:
    (project / "mine").mkdir()
    write_ocr(project / "mine" / "ocr.onnx")
    assert run_in(project, "init", "ocr", "--from", "mine/ocr.onnx").returncode == 0
    path = project / "configs" / "models" / "ocr.yaml"
    text = path.read_text()
    assert "image: {dtype: float32, shape: [batch, 1, 32, W]}" in text
    assert "symbols: {dtype: float32, shape: [batch, T, 20]}" in text
    images = np.random.default_rng(0).standard_normal((300, 1, 32, 64)).astype(np.float32)
    np.savez(project / "mine" / "suite.npz", image=images)
    lines = [line for line in text.splitlines() if not line.startswith(("calibration", "  - edge"))]
    path.write_text("\n".join(lines).replace("TODO.npz", "mine/suite.npz"))
    done = run_in(project, "check", "ocr", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json_of(done)["targets"][0]["status"] == "PASS"


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        (["batch", 10], {"none", "classification", "embedding"}),
        (["batch", 1], {"none", "binary_score", "regression"}),
        (["batch", 40, 6], {"none", "sequence", "detection"}),
        (["batch", 3, 8, 8], {"none"}),
    ],
)
def test_init_offers_every_task_that_the_output_allows_and_each_loads(
    shape: list[int | str], kinds: set[str], tmp_path: Path
) -> None:
    from onnx import TensorProto, helper, save

    from compile.config import load_model
    from compile.init import write_config
    from compile.project import Project

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    copytree(ROOT / "configs", tmp_path / "configs")
    text = write_config(Project(tmp_path), "mine", tmp_path / "m.onnx").read_text()
    offered = [line.removeprefix("# ") for line in text.splitlines() if line.removeprefix("# ").startswith("task:")]
    assert "policy: default" in text
    found = set()
    for number, line in enumerate(offered):
        path = tmp_path / "configs" / "models" / f"mine-{number}.yaml"
        path.write_text("\n".join([*(one for one in text.splitlines() if "task:" not in one), line]))
        found.add(load_model(Project(tmp_path), path.stem).task.kind)
    assert found == kinds


def test_init_overwrites_nothing_and_takes_no_other_file(project: Path) -> None:
    before = (project / "configs" / "models" / "tiny.yaml").read_bytes()
    (project / "m.onnx").write_bytes(b"")
    assert run_in(project, "init", "tiny", "--from", "m.onnx").returncode == 2
    assert (project / "configs" / "models" / "tiny.yaml").read_bytes() == before
    assert run_in(project, "init", "other", "--from", "tiny/weights.safetensors").returncode == 2


def test_init_writes_a_config_that_loads_whatever_the_axes_are_called(project: Path) -> None:
    from onnx import TensorProto, helper, save

    from compile.config import load_model
    from compile.project import Project

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["?", 3, "?", "p2o.DynamicDimension.1"])
    answer = helper.make_tensor_value_info("fetch:0", TensorProto.FLOAT, ["?", 3, "?", "1+2"])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["fetch:0"])], "g", [given], [answer])
    (project / "odd #1").mkdir()
    path = project / "odd #1" / "m.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7), path)
    assert run_in(project, "init", "odd", "--from", str(path)).returncode == 0
    model = load_model(Project(project), "odd")
    assert model.source.onnx == "odd #1/m.onnx"
    assert model.inputs["x"].shape == ("batch", 3, "x_2", "p2o_DynamicDimension_1")
    assert model.outputs["fetch:0"].shape == ("batch", 3, "fetch_0_2", "fetch_0_3")
    assert set(model.axes) == {"x_2", "p2o_DynamicDimension_1", "fetch_0_2", "fetch_0_3"}


def test_a_limit_that_was_put_back_to_the_released_one_is_no_edit(project: Path) -> None:
    policy = project / "configs" / "policies" / "default.yaml"
    released = policy.read_text()
    policy.write_text(released.replace("at_least: 0.98", "at_least: 0.9"))
    assert "policy edited after a verdict existed" in run_in(project, "check", "tiny").stdout
    policy.write_text(released)
    for _ in range(2):
        assert "policy edited" not in run_in(project, "check", "tiny").stdout


def test_a_limit_edited_after_a_verdict_is_told_old_to_new(project: Path) -> None:
    policy = project / "configs" / "policies" / "default.yaml"
    assert "edited" not in run_in(project, "check", "tiny").stdout
    policy.write_text(policy.read_text().replace("at_least: 0.98", "at_least: 0.9"))
    done = run_in(project, "check", "tiny")
    assert (
        "policy edited after a verdict existed: agreement at least 0.98, 95 % confidence -> agreement at least 0.9"
        in done.stdout
    )
    target = json_of(run_in(project, "check", "tiny", "--json"))["targets"][0]
    assert target["verdict"]["policy"]["edited"] == [
        "agreement at least 0.98, 95 % confidence -> agreement at least 0.9, 95 % confidence"
    ]
