"""The self-test that travels with an artifact: it holds where it was judged, and fails where answers are not those."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from compile import digest
from compile.errors import IntegrityError, ToolchainError
from registry import golden
from registry.embedded import Embedded
from registry.pull import pull
from registry.verify import verify
from tests.conftest import json_of, run_in

TARGETS = ("cloud-cpu-onnxruntime", "edge-x86-openvino-fp32")


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A pulled release for one target that a test may break."""
    return pull(Embedded(built / ".lockstep" / "registry"), "tiny@1", TARGETS[0], tmp_path / "got").folder


def place(folder: Path) -> Path:
    return folder / "targets" / TARGETS[0]


def change_expected(folder: Path, by: float) -> Path:
    path = place(folder) / "golden" / "expected" / "00000.npz"
    with np.load(path) as arrays:
        changed = {name: arrays[name] + np.float32(by) for name in arrays.files}
    np.savez(path, **changed)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_the_self_test_holds_on_the_machine_that_was_judged_and_leaves_the_folder_as_it_was(
    built: Path, tmp_path: Path, target: str
) -> None:
    pull(Embedded(built / ".lockstep" / "registry"), "tiny@1", target, tmp_path / "got")
    done = run_in(tmp_path, "verify", "got", "--run", "--json")
    assert done.returncode == 0, done.stderr
    assert "self-test holds" in json_of(done)["self_test"]
    verify(tmp_path / "got")


def test_the_golden_rows_are_the_first_of_the_suite_and_the_answers_those_observed(built: Path, folder: Path) -> None:
    with (
        np.load(place(folder) / "golden" / "batches" / "00000.npz") as batch,
        np.load(built / "tiny/suite.npz") as suite,
    ):
        assert np.array_equal(batch["x"], suite["x"][: golden.ROWS])
    observed = built / "out" / "tiny" / "targets" / TARGETS[0] / "observation" / "outputs" / "00000.npz"
    with np.load(place(folder) / "golden" / "expected" / "00000.npz") as kept, np.load(observed) as answers:
        assert np.array_equal(kept["logits"], answers["logits"][: golden.ROWS])


def test_an_expected_answer_that_changed_fails_the_self_test(folder: Path) -> None:
    change_expected(folder, 0.1)
    with pytest.raises(IntegrityError, match="does not compute what was judged"):
        golden.run(place(folder))


def test_an_expected_answer_within_the_noise_of_another_machine_holds(folder: Path) -> None:
    change_expected(folder, 1e-6)
    assert "self-test holds" in golden.run(place(folder))


def test_nan_in_what_is_expected_or_given_fails_the_self_test(folder: Path) -> None:
    """NaN is not at least 60 dB, though it is also not less."""
    change_expected(folder, np.nan)
    with pytest.raises(IntegrityError):
        golden.run(place(folder))


def test_a_self_test_without_any_answer_to_compare_fails(folder: Path) -> None:
    (place(folder) / "golden" / "expected" / "00000.npz").unlink()
    with pytest.raises(IntegrityError):
        golden.run(place(folder))


def test_weights_that_changed_fail_the_self_test(folder: Path) -> None:
    """Another model under the same name: it loads, runs, and answers something else."""
    import onnx
    from onnx import numpy_helper

    path = place(folder) / "model.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
    onnx.save(model, path)
    with pytest.raises(IntegrityError):
        golden.run(place(folder))


def test_an_artifact_that_cannot_run_is_no_pass(folder: Path) -> None:
    (place(folder) / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ToolchainError, match="self-test"):
        golden.run(place(folder))


def test_golden_answers_altered_consistently_still_break_the_digest(folder: Path) -> None:
    """The file, its entry and the sums are made to agree; the digest that was pulled is not theirs."""
    path = change_expected(folder, 0.1)
    document = json.loads((folder / "manifest.json").read_text())
    name = path.relative_to(folder).as_posix()
    for entry in document["targets"][TARGETS[0]]["files"]:
        if entry["path"] == name:
            entry.update(size=path.stat().st_size, sha256=digest.of_file(path))
    (folder / "manifest.json").write_bytes(digest.canonical_json(document))
    done = run_in(folder.parent, "verify", "got", "--run", "--json")
    assert done.returncode == 3
    assert "manifest.json" in json_of(done)["error"]["message"]


def levels(tmp_path: Path, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    for name, arrays in (("expected", expected), ("found", found)):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "00000.npz", **arrays)  # type: ignore[arg-type]
    return golden._worst_sqnr_db(tmp_path / "expected", tmp_path / "found")


def test_the_level_is_ten_times_the_logarithm_of_power_over_noise(tmp_path: Path) -> None:
    """By hand: power 100, noise 1, so 20 dB; the worst of two outputs counts."""
    ten, eleven = np.float32([10.0]), np.float32([11.0])
    assert levels(tmp_path, {"a": ten}, {"a": eleven}) == pytest.approx(20)
    assert levels(tmp_path, {"a": ten, "b": ten}, {"a": ten, "b": eleven}) == pytest.approx(20)
    assert levels(tmp_path, {"a": ten}, {"a": ten}) == np.inf


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ({"a": np.int64([1000])}, {"a": np.int64([999])}),
        ({"a": np.float32([0.0])}, {"a": np.float32([1e-9])}),
        ({"a": np.float32([1.0, 2.0])}, {"a": np.float32([1.0])}),
        ({"a": np.float32([1.0])}, {"b": np.float32([1.0])}),
        ({}, {}),
    ],
)
def test_what_has_no_level_is_at_the_bottom(
    tmp_path: Path, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]
) -> None:
    assert levels(tmp_path, expected, found) == -np.inf


@pytest.mark.parametrize("place_of_nan", ["expected", "found"])
def test_nan_has_no_level_whatever_else_is_exact(tmp_path: Path, place_of_nan: str) -> None:
    exact = {"a": np.float32([1.0]), "b": np.float32([1.0])}
    strange = {**exact, "b": np.float32([np.nan])}
    sides = (strange, exact) if place_of_nan == "expected" else (exact, strange)
    assert not levels(tmp_path, *sides) >= -np.inf
