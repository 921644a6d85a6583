"""Nothing to do is instant, and still honest: no heavy module is loaded, and every changed byte is noticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import json_of, run_in

HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "scipy", "mlflow", "numpy", "neural_compressor")
SPY = """import sys, lockstep
sys.argv = ["lockstep", *{arguments!r}]
try:
    lockstep.main()
finally:
    print(sorted(m for m in sys.modules if "." not in m), file=open({to!r}, "w"))
"""


def modules_of(root: Path, tmp_path: Path, *arguments: str) -> set[str]:
    """The top-level modules that a command loaded in its own process."""
    to = tmp_path / "modules"
    code = SPY.format(arguments=list(arguments), to=str(to))
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(to.read_text().replace("'", '"')))


def test_second_run_does_nothing_says_so_and_loads_no_heavy_module(project: Path, tmp_path: Path) -> None:
    done = run_in(project, "artifacts", "tiny")
    assert done.returncode == 0, done.stderr
    assert "nothing to do: nothing changed since the last run" in done.stdout
    assert json_of(run_in(project, "artifacts", "tiny", "--json"))["ran"] == []
    assert not modules_of(project, tmp_path, "artifacts", "tiny") & set(HEAVY)


def test_help_loads_nothing_but_click(project: Path, tmp_path: Path) -> None:
    loaded = modules_of(project, tmp_path, "--help")
    assert not loaded & {*HEAVY, "pydantic", "yaml", "rich", "requests"}


def test_a_copy_in_another_folder_has_nothing_to_do(project: Path) -> None:
    assert json_of(run_in(project, "artifacts", "tiny", "--json"))["ran"] == []


def flip(path: Path, at: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def reasons(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json_of(run_in(root, "why", "tiny", "--json"))["would_run"]
    return found


def test_one_byte_of_weights_is_noticed(project: Path) -> None:
    assert reasons(project) == {}
    flip(project / "tiny" / "weights.safetensors")
    assert any("tiny/weights.safetensors" in r for r in reasons(project)["graphs/float32"])


def test_a_built_file_that_was_changed_is_told_by_name_and_made_again(project: Path) -> None:
    """On one line of stderr, also where --json keeps the rest silent; a changed config is no such thing."""
    target = "edge-x86-openvino-fp32"
    flip(project / "out/tiny/targets" / target / "build/artifact/model.bin")
    told = f"{target}: build again: artifact/model.bin changed or gone since lockstep made it"
    done = run_in(project, "check", "tiny")
    assert done.stderr.splitlines() == [told]
    outputs = project / "out/tiny/targets" / target / "observation/outputs"
    first = sorted(outputs.iterdir())[0]
    flip(first)
    quiet = run_in(project, "check", "tiny", "--json")
    assert quiet.stderr.splitlines() == [
        f"{target}: observation again: outputs/{first.name} changed or gone since lockstep made it"
    ]
    config = project / "configs/models/tiny.yaml"
    config.write_text(config.read_text().replace("kind: classification", "kind: none"))
    assert "again" not in run_in(project, "check", "tiny").stderr


def test_one_label_is_noticed_and_only_the_judging_runs_again(project: Path) -> None:
    with np.load(project / "tiny" / "suite.npz") as arrays:
        changed = {name: arrays[name].copy() for name in arrays.files}
    changed["labels"][5] = (changed["labels"][5] + 1) % 4
    np.savez(project / "tiny" / "suite.npz", **changed)
    document = json_of(run_in(project, "check", "tiny", "--json"))
    assert "suite" in document["ran"]
    assert {step for step in document["ran"] if step.endswith("verdict")} == {
        "targets/cloud-cpu-onnxruntime/verdict",
        "targets/edge-x86-openvino-fp32/verdict",
    }
    assert not any(step.endswith(("observation", "timing")) for step in document["ran"])


def test_status_and_why_say_which_verdicts_are_of_other_inputs(project: Path) -> None:
    targets = json_of(run_in(project, "status", "tiny", "--json"))["tiny"]["targets"]
    assert {t["current"] for t in targets.values()} == {True}
    flip(project / "tiny" / "weights.safetensors")
    found = json_of(run_in(project, "status", "tiny", "--json"))["tiny"]
    assert {(t["built"], t["verdict"], t["current"]) for t in found["targets"].values()} == {(True, "PASS", False)}
    assert set(json_of(run_in(project, "why", "tiny", "--json"))["then"]) == set(targets)
    (project / "tiny" / "weights.safetensors").unlink()
    done = run_in(project, "status", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    assert "tiny/weights.safetensors" in json_of(done)["tiny"]["problem"]
    assert json_of(done)["tiny"]["versions"][0]["version"] == 1


def test_the_users_code_is_an_input(project: Path) -> None:
    code = project / "tiny" / "model.py"
    code.write_text(code.read_text() + "\n# a word\n")
    assert any("tiny/model.py: changed" in r for r in reasons(project)["graphs/float32"])


def test_a_limit_that_changed_is_noticed_and_a_comment_is_not(project: Path) -> None:
    policy = project / "configs" / "policies" / "default.yaml"
    policy.write_text("# a comment\n" + policy.read_text())
    assert reasons(project) == {}
    policy.write_text(policy.read_text().replace("at_least: 0.98", "at_least: 0.97"))
    assert any("policy" in r for found in reasons(project).values() for r in found)


def test_a_target_that_became_optional_is_noticed(project: Path) -> None:
    config = project / "configs" / "models" / "tiny.yaml"
    optional = "{name: edge-x86-openvino-fp32, required: false, why: a trial}"
    config.write_text(config.read_text().replace("edge-x86-openvino-fp32]", f"{optional}]"))
    assert any("targets in the config" in reason for reason in reasons(project)["release"])


def test_a_changed_artifact_is_built_again(project: Path) -> None:
    flip(project / "out" / "tiny" / "targets" / "cloud-cpu-onnxruntime" / "build" / "artifact" / "model.onnx")
    document = json_of(run_in(project, "artifacts", "tiny", "--json"))
    assert document["ran"] == ["targets/cloud-cpu-onnxruntime/build"]
    assert document["release"]["created"] is False


def test_a_changed_published_file_stops_the_run_and_names_the_file(project: Path) -> None:
    stored = next((project / ".lockstep" / "registry" / "artifacts").rglob("release/targets/*/model.onnx"))
    flip(stored)
    done = run_in(project, "artifacts", "tiny")
    assert done.returncode == 3
    assert "model.onnx" in done.stderr
    assert "--repair" in done.stderr
    assert "model.onnx" in json_of(run_in(project, "why", "tiny", "--json"))["published"]
    damaged = run_in(project, "status", "tiny", "--json")
    assert damaged.returncode == 3
    assert "model.onnx" in json_of(damaged)["tiny"]["versions"][0]["files"]
    assert run_in(project, "publish", "tiny", "--repair").returncode == 0
    assert json_of(run_in(project, "why", "tiny", "--json"))["published"] is None
    repaired = run_in(project, "status", "tiny", "--json")
    assert (repaired.returncode, json_of(repaired)["tiny"]["versions"][0]["files"]) == (0, "as published")
    assert run_in(project, "artifacts", "tiny").returncode == 0


@pytest.mark.skipif(os.environ.get("CI") == "true", reason="a time limit on a shared machine decides nothing")
def test_idle_run_takes_under_six_tenths_of_a_second_of_cpu(project: Path) -> None:
    import resource

    run_in(project, "artifacts", "tiny")
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_in(project, "artifacts", "tiny")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.6


def test_release_digest_is_the_same_from_nothing_in_another_folder(project: Path, tmp_path: Path) -> None:
    first = json_of(run_in(project, "artifacts", "tiny", "--json"))["release"]["digest"]
    other = tmp_path / "elsewhere" / "deep"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("out", ".lockstep"))
    document = json_of(run_in(other, "artifacts", "tiny", "--json"))
    assert "graphs/float32" in document["ran"]
    assert document["release"] == {
        "name": "tiny",
        "version": 1,
        "digest": first,
        "created": True,
        "registry": str(other / ".lockstep" / "registry"),
    }
