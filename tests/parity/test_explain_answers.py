"""Defects planted around the artifact: in what a device fed it, in what it read from it, in the suite, in the options."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from compile.config import ModelFile
from parity.explain.experiment import doubts
from tests.conftest import run_in
from tests.parity import planted
from tests.parity.planted import explained

INT8, FLOAT, OPENVINO = "edge-x86-onnxruntime", "cloud-cpu-onnxruntime", "edge-x86-openvino-fp32"


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.shared(tmp_path_factory)


@pytest.fixture
def root(ready: Path, tmp_path: Path) -> Path:
    """A copy of the project that a test may break."""
    shutil.copytree(ready, tmp_path / "project")
    return tmp_path / "project"


def answers(root: Path, model: str, target: str, feed: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A device's answers: the artifact that lies here, run by ONNX Runtime on inputs that `feed` spoils."""
    import onnxruntime as ort

    place = root / "device" / "outputs"
    place.mkdir(parents=True)
    session = ort.InferenceSession(planted.artifact(root, model, target) / "model.onnx")
    name = session.get_inputs()[0].name
    for path in sorted((root / "out" / model / "suite" / "batches").glob("*.npz")):
        with np.load(path) as batch:
            found = session.run(None, {name: np.ascontiguousarray(feed(batch[name])).astype(np.float32)})
        np.savez(place / path.name, **{o.name: a for o, a in zip(session.get_outputs(), found, strict=True)})
    return place.parent


def spoiled(root: Path, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the observation of `text` that lies there."""
    for path in (root / "out" / "text" / "targets" / FLOAT / "observation" / "outputs").glob("*.npz"):
        with np.load(path) as outputs:
            changed = {name: spoil(array) for name, array in outputs.items()}
        np.savez(path, **changed)


@pytest.mark.parametrize(
    ("said", "feed"),
    [
        ("transposed (axes 2 and 3 swapped)", lambda x: x.transpose(0, 1, 3, 2)),
        ("without `preprocess`", lambda x: x * 60 + 90),
        ("reversed along axis 1 (colours", lambda x: x[:, ::-1]),
        ("NHWC for NCHW", lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(x.shape)),
        ("normalization on one side alone", lambda x: (x * 60 + 90) / 77),
    ],
)
def test_a_device_that_is_fed_otherwise_is_preprocessing(
    root: Path, said: str, feed: Callable[[np.ndarray], np.ndarray]
) -> None:
    device = answers(root, "picture", INT8, feed)
    found = explained(root, "picture", INT8, "--observation", str(device))
    assert found["cause"] == "pre/post-processing"
    assert found["step"] == "observation as found"
    assert said in found["sentence"]


def test_permuted_classes_of_a_device_are_postprocessing_with_the_permutation(root: Path) -> None:
    spoiled(root, lambda x: x[:, [2, 0, 1, 4, 3]])
    found = explained(root, "text", FLOAT)
    assert found["cause"] == "pre/post-processing"
    assert found["step"] == "observation as found"
    assert "[2, 0, 1, 4, 3]" in found["sentence"]


@pytest.mark.parametrize("numbers", [[1, 2, 3, 4, 0], [1, 2, 3, 4, 5]], ids=["permuted", "counted from one"])
def test_permuted_labels_are_the_suites_fault_and_not_the_artifacts(root: Path, numbers: list[int]) -> None:
    path = root / "mine" / "text.npz"
    with np.load(path) as arrays:
        kept = dict(arrays)
    kept["labels"] = np.array(numbers)[kept["labels"]]
    np.savez(path, **kept)
    found = explained(root, "text", FLOAT)
    assert found["cause"] == "pre/post-processing"
    assert found["step"] == "suite"
    assert "labels are permuted" in found["sentence"]


def test_labels_of_scores_that_have_no_two_sides_are_the_suites_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = {"dtype": "float32", "shape": ["batch", 1]}
    config = ModelFile.model_validate(
        {"source": {"onnx": "m.onnx"}, "inputs": {"x": tensor}, "outputs": {"y": tensor}, "suite": {"npz": "s.npz"},
         "task": {"kind": "binary_score"}, "targets": ["edge"]}
    )  # fmt: skip
    monkeypatch.setattr(doubts.Observed, "answers", lambda _: np.full((4, 1), 0.9))
    columns = {"row": np.arange(4), "labels": np.array([1, 2, 2, 1])}
    found = doubts.about(config, cast(Any, None), Path(), columns)
    assert found is not None
    assert "expected 0 and 1" in found.sentence


def test_a_suite_of_transposed_images_is_the_suites_fault(root: Path) -> None:
    path = root / "mine" / "picture.npz"
    with np.load(path) as arrays:
        kept = dict(arrays)
    kept["image"] = np.ascontiguousarray(kept["image"].transpose(0, 1, 3, 2))
    np.savez(path, **kept)
    found = explained(root, "picture", FLOAT)
    assert found["cause"] == "pre/post-processing"
    assert found["step"] == "suite"
    assert "`image` transposed (axes 2 and 3 swapped)" in found["sentence"]


def test_a_device_that_forgets_its_state_between_frames_is_preprocessing(root: Path) -> None:
    import onnxruntime as ort

    place = root / "device" / "outputs"
    place.mkdir(parents=True)
    session = ort.InferenceSession(planted.artifact(root, "cell", FLOAT) / "model.onnx")
    for path in sorted((root / "out/cell/suite/batches").glob("*.npz")):
        with np.load(path) as batch:
            x = batch["x"]
        score, _ = session.run(["score", "h_out"], {"x": x, "h": np.zeros((len(x), 16), np.float32)})
        np.savez(place / path.name, score=score)
    found = explained(root, "cell", FLOAT, "--observation", str(place.parent))
    assert found["cause"] == "pre/post-processing"
    assert "state (`h`) is not carried" in found["sentence"]


def has_bfloat16() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(cpu.read_text().split()))


@pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16, so OpenVINO computes in float32 here")
def test_openvino_left_to_its_defaults_is_runtime_precision_and_pinning_is_the_remedy(root: Path) -> None:
    config = root / "configs" / "targets" / f"{OPENVINO}.yaml"
    config.write_text(config.read_text().replace("{threads: 1}", "{threads: 1, pinned: false}"))
    shutil.rmtree(root / "out/text/targets" / OPENVINO)
    found = explained(root, "text", OPENVINO)
    assert found["cause"] == "runtime precision"
    assert found["step"] == "runtime's defaults"
    assert "pin" in found["suggestion"]["text"]


@pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16, so OpenVINO computes in float32 here")
def test_a_device_that_silently_computes_in_bfloat16_is_runtime_precision(root: Path) -> None:
    import openvino as ov

    place = root / "device" / "outputs"
    place.mkdir(parents=True)
    compiled = ov.Core().compile_model(planted.artifact(root, "text", OPENVINO) / "model.xml", "CPU")
    for path in sorted((root / "out/text/suite/batches").glob("*.npz")):
        with np.load(path) as batch:
            np.savez(place / path.name, scores=compiled({"x": batch["x"]})[0])
    found = explained(root, "text", OPENVINO, "--observation", str(place.parent))
    assert found["cause"] == "runtime precision"
    assert found["step"] == "observation as found"


def test_noise_on_a_devices_answers_is_unexplained_and_not_fit(root: Path) -> None:
    rng = np.random.default_rng(9)
    spoiled(root, lambda x: (x + rng.normal(0, x.std(), x.shape)).astype(np.float32))
    done = run_in(root, "explain", "text", FLOAT)
    assert done.returncode == 1
    assert "unexplained" in done.stdout
    assert "Not fit for failover" in done.stdout


def test_answers_that_are_not_finite_are_unexplained(root: Path) -> None:
    spoiled(root, lambda x: np.where(x == x.max(), np.nan, x).astype(np.float32))
    found = explained(root, "text", FLOAT, code=1)
    assert found["cause"] == "unexplained"
    assert "NaN" in found["sentence"]


def test_the_line_that_reproduces_it_runs_and_shows_both_answers(root: Path) -> None:
    spoiled(root, lambda x: np.roll(x, 1, axis=1))
    found = explained(root, "text", FLOAT)
    command = shlex.split(found["reproduce"])
    assert command[0] == "lockstep"
    shown = json.loads(run_in(root, *command[1:], "--json").stdout)
    assert [one["row"] for one in shown["rows"]] == [flip["row"] for flip in found["flips"][:5]]
    for one, flip in zip(shown["rows"], found["flips"][:5], strict=True):
        assert (one["source"], one["candidate"]) == (flip["source"], flip["candidate"])
        assert one["candidate"] == (one["source"] + 1) % 5


@pytest.mark.parametrize(
    "more", [("--rung", "no such"), ("--rung", "source", "--rows", "x"), ("--artifact", "gone.onnx")]
)
def test_a_question_that_cannot_be_asked_is_a_usage_error(root: Path, more: tuple[str, ...]) -> None:
    done = run_in(root, "explain", "cell", FLOAT, *more)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
