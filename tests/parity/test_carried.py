"""A bundle goes to other hardware and an observation comes back: judged when it is of this artifact and suite, else not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile import digest
from tests.conftest import json_of, run_in

TARGET = "edge-x86-openvino-fp32"
GPU = "cloud-gpu-tensorrt-fp16"


@pytest.fixture(scope="module")
def bundle(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a target, packed in one place and run in another, by a Python that knows nothing of lockstep."""
    root = tmp_path_factory.mktemp("bundling")
    shutil.copytree(built, root / "project")
    done = run_in(root / "project", "bundle", "tiny", TARGET, "--to", str(root / "packed"), "--json")
    assert done.returncode == 0, done.stderr
    elsewhere = (root / "packed").rename(root / "carried to another machine")
    env = {"PATH": os.environ["PATH"], "HOME": str(root)}
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=elsewhere, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return elsewhere


@pytest.fixture
def observation(bundle: Path, tmp_path: Path) -> Path:
    """The observation that came back; a test may change it."""
    copy = tmp_path / "came back"
    shutil.copytree(bundle / "observation", copy)
    return copy


def change(observation: Path, **more: Any) -> None:
    path = observation / "observation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def check(project: Path, observation: Path) -> subprocess.CompletedProcess[str]:
    return run_in(project, "check", "tiny", "--observation", str(observation), "--json")


def verdict_on(done: subprocess.CompletedProcess[str], target: str = TARGET) -> dict[str, Any]:
    found: dict[str, Any] = next(t for t in json_of(done)["targets"] if t["target"] == target)["verdict"]
    return found


def message_of(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return str(json_of(done)["error"]["message"])


def test_a_bundle_holds_all_that_its_run_needs_and_no_label(bundle: Path) -> None:
    held = {p.name for p in bundle.iterdir()}
    assert {"run.py", "worker.py", "target.py", "job.json", "bundle.json", "artifact", "batches"} <= held
    for path in (bundle / "batches").glob("*.npz"):
        with np.load(path) as batch:
            assert batch.files == ["x"]
    text = (bundle / "job.json").read_text()
    assert '"/' not in text


def test_a_bundle_is_not_written_over_what_is_there(project: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    done = run_in(project, "bundle", "tiny", TARGET, "--to", str(tmp_path / "mine"))
    assert done.returncode == 2
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_target_that_is_not_the_models_makes_no_bundle(project: Path, tmp_path: Path) -> None:
    done = run_in(project, "bundle", "tiny", "edge-x86-openvino", "--to", str(tmp_path / "new"))
    assert done.returncode == 2
    assert not (tmp_path / "new").exists()


def test_an_observation_that_came_back_is_judged_and_the_verdict_says_where_it_was_made(
    project: Path, observation: Path
) -> None:
    done = check(project, observation)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = verdict_on(done)
    assert verdict["status"] == "PASS"
    assert verdict["observed"].startswith("carried here from")
    again = run_in(project, "check", "tiny", "--json")
    assert json_of(again)["ran"] == []
    assert verdict_on(again)["observed"] == verdict["observed"]


def test_what_the_other_machine_answered_is_judged_and_not_what_this_one_would(
    project: Path, observation: Path
) -> None:
    """The same artifact there gave other classes; here it is still right. Somebody asked about there."""
    for path in (observation / "outputs").glob("*.npz"):
        with np.load(path) as outputs:
            rolled = np.roll(outputs["logits"], 1, axis=1)
        np.savez(path, logits=rolled)
    change(observation, outputs=digest.of_files(observation / "outputs"))
    done = check(project, observation)
    assert done.returncode == 1, done.stdout + done.stderr
    assert verdict_on(done)["status"] == "FAIL"
    assert verdict_on(done, "cloud-cpu-onnxruntime")["status"] == "PASS"


def test_a_carried_observation_is_told_with_every_run_until_it_is_removed(project: Path, observation: Path) -> None:
    assert run_in(project, "check", "tiny", "--observation", str(observation)).returncode == 0
    again = run_in(project, "check", "tiny").stdout
    assert ": judged on answers carried here from" in again
    place = next(line.split("remove ")[1] for line in again.splitlines() if "remove " in line)
    shutil.rmtree(project / place)
    assert "carried here" not in run_in(project, "check", "tiny").stdout


def test_other_inputs_make_a_carried_observation_stale_and_this_machine_answers_again(
    project: Path, observation: Path
) -> None:
    assert check(project, observation).returncode == 0
    suite = dict(np.load(project / "tiny" / "suite.npz"))
    suite["x"][5] += 1
    np.savez(project / "tiny" / "suite.npz", **suite)
    done = run_in(project, "check", "tiny", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdict_on(done)["observed"] == "here"
    assert check(project, observation).returncode == 3


@pytest.mark.parametrize("what", ["artifact", "suite inputs"])
def test_an_observation_of_another_artifact_or_suite_is_refused(project: Path, observation: Path, what: str) -> None:
    digests = json.loads((observation / "observation.json").read_text())["digests"]
    change(observation, digests={**digests, what: "0" * 64})
    done = check(project, observation)
    assert done.returncode == 3
    assert f"another {what}" in message_of(done)


def test_outputs_that_changed_on_the_way_are_refused(project: Path, observation: Path) -> None:
    path = observation / "outputs" / "00003.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = check(project, observation)
    assert done.returncode == 3
    assert "bring the folder over again" in message_of(done)


@pytest.mark.parametrize("how", ["one batch less", "one batch more", "none at all"])
def test_outputs_that_are_not_those_listed_are_refused(project: Path, observation: Path, how: str) -> None:
    outputs = observation / "outputs"
    if how == "one batch less":
        (outputs / "00003.npz").unlink()
    elif how == "one batch more":
        shutil.copy(outputs / "00003.npz", outputs / "00099.npz")
    else:
        shutil.rmtree(outputs)
        change(observation, outputs={})
    assert check(project, observation).returncode == 3


def test_a_batch_that_was_never_answered_fails_the_verdict(project: Path, observation: Path) -> None:
    """Left out there, and left out of the list there: the laws see it here."""
    (observation / "outputs" / "00003.npz").unlink()
    change(observation, outputs=digest.of_files(observation / "outputs"))
    done = check(project, observation)
    assert done.returncode == 1
    assert "9 of 10 batches" in str(verdict_on(done)["findings"])


@pytest.mark.parametrize("more", [{"model": "other"}, {"target": "cloud-gpu-tensorrt-fp16"}, {"target": "../x"}])
def test_an_observation_of_another_model_or_target_is_refused(
    project: Path, observation: Path, more: dict[str, str]
) -> None:
    change(observation, **more)
    done = check(project, observation)
    assert done.returncode == 2
    assert "not a target of tiny" in message_of(done)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"target": "x", "digests": 3, "outputs": 4, "model": "tiny"}'])
def test_what_is_no_observation_is_refused(project: Path, observation: Path, text: str | None) -> None:
    if text is None:
        (observation / "observation.json").unlink()
    else:
        (observation / "observation.json").write_text(text)
    done = check(project, observation)
    assert done.returncode == 2
    assert "expected the folder that run.py wrote" in message_of(done)


def test_a_refused_observation_leaves_the_last_verdict_as_it_was(project: Path, observation: Path) -> None:
    change(observation, model="other")
    assert check(project, observation).returncode == 2
    done = run_in(project, "check", "tiny", "--json")
    assert (done.returncode, json_of(done)["ran"]) == (0, [])


def test_what_only_a_gpu_can_run_is_judged_once_its_observation_came(mixed: Path, tmp_path: Path) -> None:
    """The observation is written by hand here, as the GPU's worker writes it, with the source's own answers."""
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has an NVIDIA GPU: nothing is deferred here")
    project, brought = tmp_path / "project", tmp_path / "brought"
    shutil.copytree(mixed, project)
    facts = json_of(run_in(project, "bundle", "tiny", GPU, "--to", str(tmp_path / "bundle"), "--json"))
    shutil.copytree(project / "out" / "tiny" / "source" / "outputs", brought / "outputs")
    document = {
        "model": "tiny",
        "target": GPU,
        "digests": {what: facts[what] for what in ("artifact", "suite inputs")},
        "outputs": digest.of_files(brought / "outputs"),
        "seconds": {"artifact": [1e-4] * 50},
        "effective": {},
        "fingerprint": {"cpu": "a GPU server's CPU"},
    }
    (brought / "observation.json").write_text(json.dumps(document))
    done = check(project, brought)
    verdict = verdict_on(done, GPU)
    assert verdict["status"] == "PASS"
    assert verdict["observed"] == "carried here from a GPU server's CPU"
    edge = verdict_on(done, TARGET)
    assert edge["baseline"]["used"] == GPU
