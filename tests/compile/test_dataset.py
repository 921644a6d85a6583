"""Data at the door: what does not fit the signature never reaches a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from compile.config import DataConfig, ModelFile
from compile.dataset import batches_of, columns_of, load_npz, raw_batches, read, refuse_leakage, write
from compile.errors import ConfigError
from compile.project import Project


def model(**more: object) -> ModelFile:
    document = {
        "source": {"onnx": "m.onnx"},
        "inputs": {"x": {"dtype": "float32", "shape": ["batch", 2]}},
        "outputs": {"y": {"dtype": "float32", "shape": ["batch", 1]}},
        "suite": {"npz": "s.npz"},
        "task": {"kind": "none"},
        "targets": ["t"],
    }
    return ModelFile.model_validate(document | more)


def prepared(root: Path, config: ModelFile, data: DataConfig, size: int = 64) -> dict[str, np.ndarray]:
    """Read, check and write; the columns."""
    shutil.rmtree(root / "batches", ignore_errors=True)
    write(root, config.signature, read(Project(root), config, data, "suite"), size)
    return columns_of(root)


def read_npz(
    tmp_path: Path, config: ModelFile | None = None, size: int = 64, **arrays: np.ndarray
) -> dict[str, np.ndarray]:
    np.savez(tmp_path / "s.npz", **arrays)
    return prepared(tmp_path, config or model(), DataConfig(npz="s.npz"), size)


X = np.arange(10, dtype=np.float32).reshape(5, 2)


def test_labels_id_group_and_metadata_become_columns(tmp_path: Path) -> None:
    columns = read_npz(
        tmp_path, x=X, labels=np.arange(5), id=np.arange(5), light=np.array(list("abcde")), other=np.eye(5)
    )
    assert sorted(columns) == ["copy", "id", "labels", "light", "row"]


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (X.astype(np.float64), "found dtype float64; expected float32"),
        (np.ones((5, 3), np.float32), r"found shape \(5, 3\)"),
        (np.ones((0, 2), np.float32), "found no rows"),
        (np.array([[1, np.nan]], np.float32), r"found nan at \[0, 1\]"),
        (np.array([[np.inf, 1]], np.float32), r"found inf at \[0, 0\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, array: np.ndarray, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_npz(tmp_path, x=array)


def test_labels_that_are_no_numbers_are_refused_with_the_row_and_their_number(tmp_path: Path) -> None:
    labels = np.array([1.0, np.nan, 0.5, np.inf, 1.0])
    with pytest.raises(ConfigError, match=r"labels: 2 of 5 are NaN or infinite, the first in row `b`; leave"):
        read_npz(tmp_path, x=X, labels=labels, id=np.array(list("abcde")))
    with pytest.raises(ConfigError, match=r"the first in row 1; leave"):
        read_npz(tmp_path, x=X, labels=labels)


def test_a_size_outside_its_axis_is_refused(tmp_path: Path) -> None:
    config = model(
        inputs={"x": {"dtype": "float32", "shape": ["batch", "width"]}},
        axes={"width": {"least": 2, "typical": 2, "most": 4}},
    )
    read_npz(tmp_path, config, x=np.ones((3, 4), np.float32))
    with pytest.raises(ConfigError, match="axis `width` is 5; the config's axes say 2 to 4"):
        read_npz(tmp_path, config, x=np.ones((3, 5), np.float32))


def test_a_column_that_is_nearly_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found a column `label`; expected `labels`"):
        read_npz(tmp_path, x=X, label=np.arange(5))


@pytest.mark.parametrize("name", ["row", "copy", "original"])
def test_a_column_of_a_name_that_preparing_makes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"found a column `{name}`; lockstep makes one of that name"):
        read_npz(tmp_path, x=X, **{name: np.arange(5)})


def test_groups_that_are_no_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="group: 2 of 5 are NaN"):
        read_npz(tmp_path, x=X, group=np.array([0, np.nan, 1, np.nan, 1]))
    with pytest.raises(ConfigError, match=r"`group` has shape \(5, 2\); expected one entry for each row"):
        read_npz(tmp_path, x=X, group=np.zeros((5, 2)))
    read_npz(tmp_path, x=X, group=np.array([0.0, 0.5, 1, 1, 1]))


def test_missing_input_names_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no array for the input `x`; found z"):
        read_npz(tmp_path, z=X)


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`labels` has 4 entries; expected one for each of 5 rows"):
        read_npz(tmp_path, x=X, labels=np.arange(4))


def test_pickled_arrays_are_refused_unread(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match=r"is no `\.npz` of plain arrays"):
        prepared(tmp_path, model(), DataConfig(npz="s.npz"))


def test_damaged_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=X)
    data = (tmp_path / "s.npz").read_bytes()
    (tmp_path / "s.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError, match=r"is no `\.npz` of plain arrays"):
        prepared(tmp_path, model(), DataConfig(npz="s.npz"))


def test_batches_come_back_in_row_order(tmp_path: Path) -> None:
    read_npz(tmp_path, size=2, x=X, labels=np.arange(5))
    assert [len(b["x"]) for b in batches_of(tmp_path)] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([b["x"] for b in batches_of(tmp_path)]), X)
    np.testing.assert_array_equal(columns_of(tmp_path)["row"], np.arange(5))


def model_with_state() -> ModelFile:
    return model(
        inputs={"x": {"dtype": "float32", "shape": ["batch", 2]}, "h": {"dtype": "float32", "shape": ["batch", 1]}},
        outputs={"y": {"dtype": "float32", "shape": ["batch", 1]}, "hn": {"dtype": "float32", "shape": ["batch", 1]}},
        state={"h": "hn"},
    )


def test_more_streams_than_fit_a_batch_run_one_lot_after_the_other(tmp_path: Path) -> None:
    """Groups c, a, b, c, a in batches of two: a and b first, then c; every stream's frames stay in order."""
    config = model_with_state()
    read_npz(tmp_path, config, size=2, x=X, group=np.array(list("cabca")))
    frames = [np.load(p) for p in sorted((tmp_path / "batches").glob("*.npz"))]
    assert [f["stream"].tolist() for f in frames] == [[0, 1], [0], [2], [2]]
    rows = columns_of(tmp_path)["row"]
    assert rows.tolist() == [1, 2, 4, 0, 3]
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in frames]), X[rows])


def test_streams_run_side_by_side_and_rows_lead_back(tmp_path: Path) -> None:
    """Groups a, b, a, b, a: batch t holds frame t of every group that is still going."""
    config = model_with_state()
    read_npz(tmp_path, config, x=X, group=np.array(list("ababa")))
    frames = [np.load(p) for p in sorted((tmp_path / "batches").glob("*.npz"))]
    assert [f["stream"].tolist() for f in frames] == [[0, 1], [0, 1], [0]]
    rows = columns_of(tmp_path)["row"]
    assert rows.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in frames]), X[rows])


def folder_of(tmp_path: Path, name: str, x: np.ndarray) -> Path:
    place = tmp_path / name
    place.mkdir()
    write(place, model().signature, [({"x": x}, {})], 2)
    return place


def test_an_npy_that_is_called_npz_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"")
    for name in ("a.npz", "b.npz"):
        with pytest.raises(ConfigError, match=r"is no `\.npz` of plain arrays"):
            load_npz(tmp_path / name, "suite")


def test_a_calibration_row_from_the_suite_is_leakage(tmp_path: Path) -> None:
    suite, clean = folder_of(tmp_path, "suite", X), folder_of(tmp_path, "clean", X + 100)
    refuse_leakage(suite, clean, model().signature)
    leaky = folder_of(tmp_path, "leaky", np.concatenate([X + 100, X[3:4]]))
    with pytest.raises(ConfigError, match=r"1 of its rows are also in the evaluation suite \(calibration rows 5\)"):
        refuse_leakage(suite, leaky, model().signature)


def test_a_frame_that_many_streams_have_is_no_leakage_and_a_part_of_a_stream_is(tmp_path: Path) -> None:
    """Silence is in every stream. A part of a stream is the suite's however much else is around it, and so is one frame alone
    that is in one of its streams."""
    config, silence = model_with_state(), np.zeros_like(X[:1])
    rng = np.random.default_rng(0)
    long, other = (rng.standard_normal((60, *X.shape[1:])).astype(X.dtype) for _ in range(2))

    def streams(name: str, *parts: np.ndarray) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        read_npz(
            folder, config, x=np.concatenate(parts), group=np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        )
        return folder

    suite = streams("suite", np.concatenate([long[:30], silence]), np.concatenate([long[30:], silence, silence]))
    apart = streams(
        "apart", np.concatenate([other[:3], silence, silence, other[3:5]]), np.repeat(silence, 3, axis=0), other[5:]
    )
    refuse_leakage(suite, apart, config.signature)
    leaks = {
        "within": (np.concatenate([other[:40], long[10:14], other[40:]]), 4),
        "whole": (long[30:], 30),
        "alone": (long[7:8], 1),
    }
    for name, (leaky, rows) in leaks.items():
        with pytest.raises(ConfigError, match=rf"{rows} of its rows are also in the evaluation suite"):
            refuse_leakage(suite, streams(name, other, leaky), config.signature)


def test_a_data_function_that_fails_on_the_way_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fails_late.py").write_text(
        "def data():\n    yield {'x': [[1.0, 2.0]]}\n    raise FileNotFoundError('get it from there')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = DataConfig(function="fails_late:data")
    with pytest.raises(ConfigError, match=r"pool `fails_late:data` raised FileNotFoundError: get it from there"):
        list(raw_batches(Project(tmp_path), data, "pool"))


def test_rows_that_repeat_earlier_ones_are_found_from_batch_to_batch(tmp_path: Path) -> None:
    """Rows 2 and 3 of the second batch repeat row 1 of the first and each other: the first one alone counts."""
    second = np.concatenate([X[:2] + 50, X[1:2], X[1:2]])
    write(tmp_path, model().signature, [({"x": X}, {}), ({"x": second}, {})], 2)
    assert columns_of(tmp_path)["copy"].tolist() == [False] * 7 + [True, True]
    assert columns_of(tmp_path)["original"].tolist() == [0, 1, 2, 3, 4, 5, 6, 1, 1]


def test_the_size_of_an_axis_is_a_column_where_it_varies_between_batches(tmp_path: Path) -> None:
    config = model(
        inputs={"x": {"dtype": "float32", "shape": ["batch", "width"]}},
        axes={"width": {"least": 1, "typical": 2, "most": 9}},
    )
    batches = [({"x": np.full((n, width), n, np.float32)}, {}) for n, width in ((2, 3), (1, 5))]
    write(tmp_path, config.signature, batches, 64)
    assert columns_of(tmp_path)["size of width"].tolist() == [3, 3, 5]


def test_a_column_that_some_batches_lack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="some batches bring columns that others do not"):
        write(tmp_path, model().signature, [({"x": X}, {"light": np.arange(5)}), ({"x": X}, {})], 64)


def test_data_without_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="calibration: the data is empty"):
        write(tmp_path, model().signature, [], 64, "calibration")


def test_an_input_without_rows_stays_one_number_and_is_shared_by_streams(tmp_path: Path) -> None:
    """A sampling rate: 0-dimensional in the data, in the prepared batches, and beside state."""
    inputs = {
        "x": {"dtype": "float32", "shape": ["batch", 2]},
        "h": {"dtype": "float32", "shape": ["batch", 1]},
        "rate": {"dtype": "int64", "shape": []},
    }
    outputs = {"y": {"dtype": "float32", "shape": ["batch", 1]}, "hn": {"dtype": "float32", "shape": ["batch", 1]}}
    for state in ({}, {"h": "hn"}):
        kept = {name: one for name, one in inputs.items() if name != "h" or state}
        config = model(inputs=kept, outputs=outputs, state=state)
        rows = np.arange(8, dtype=np.float32).reshape(4, 2)
        read_npz(tmp_path, config, x=rows, rate=np.array(16000), group=np.array([0, 1, 0, 1]))
        assert all(batch["rate"].shape == () and batch["rate"] == 16000 for batch in batches_of(tmp_path))


def test_data_of_a_model_without_a_batch_axis_says_what_is_missing(tmp_path: Path) -> None:
    config = model(inputs={"x": {"dtype": "float32", "shape": [4, 2]}})
    with pytest.raises(ConfigError, match="no input has the axis `batch`"):
        read_npz(tmp_path, config, x=np.ones((4, 2), np.float32))
