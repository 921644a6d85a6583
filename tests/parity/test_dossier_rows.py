"""The inputs that a page shows are those that were judged: raw where that can be proved, prepared where it cannot."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compile.config import load_model
from compile.dataset import columns_of, prepare
from compile.project import Project
from parity.dossier.rows import Rows, Suite, rows_of
from tests.conftest import CONFIG, REPOSITORY

PROCESSING = """
import numpy as np
def preprocess(batch):
    return {"x": batch["image"].reshape(len(batch["image"]), -1).astype(np.float32) / 255}
def drifting():
    rng = np.random.default_rng()
    yield {"x": rng.standard_normal((64, 16)).astype(np.float32)}
"""


def project_with(root: Path, config: str, **arrays: np.ndarray) -> Rows:
    """A project of that suite, prepared as a run would, and its rows."""
    for part in ("targets", "policies"):
        (root / "configs").mkdir(exist_ok=True)
        (root / "configs" / part).symlink_to(REPOSITORY / "configs" / part)
    (root / "configs" / "models").mkdir()
    (root / "configs" / "models" / "m.yaml").write_text(config)
    (root / "tiny").mkdir()
    (root / "tiny" / f"processing_{root.name}.py").write_text(PROCESSING)
    np.savez(root / "tiny" / "suite.npz", **arrays)  # type: ignore[arg-type]
    project, made = Project(root), root / "out"
    made.mkdir()
    prepare(project, made, "m", "suite", None)
    columns = columns_of(made)
    return rows_of(project, Suite(load_model(project, "m"), made, columns), range(len(columns["row"])))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / tmp_path.name
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in sys.modules if name == "tiny" or name.startswith("tiny.")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def with_preprocess(root: Path) -> str:
    return CONFIG + f"preprocess: tiny.processing_{root.name}:preprocess\n"


def test_a_raw_picture_is_shown_as_stored(root: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 8, 8), dtype=np.uint8)
    config = with_preprocess(root).replace("16]}", "64]}")
    rows = project_with(root, config, image=images, labels=np.zeros(70, np.int64))
    assert rows.raw
    (shown,) = rows.one(69)
    assert shown.kind == "picture"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.picture.partition(",")[2]))))
    assert np.array_equal(pixels, images[69])


@pytest.mark.parametrize(("most", "stretched"), [(16, True), (63, True), (64, False), (255, False)])
def test_pictures_that_are_all_dark_are_stretched_over_the_suite_alike(root: Path, most: int, stretched: bool) -> None:
    images = np.random.default_rng(0).integers(0, most + 1, (70, 8, 8), dtype=np.uint8)
    images[0] = np.arange(64).reshape(8, 8) % (most // 2)  # this one is darker than the others, and is to look so
    images[1, 0, :2] = 0, most
    config = with_preprocess(root).replace("16]}", "64]}")
    (shown,) = project_with(root, config, image=images, labels=np.zeros(70, np.int64)).one(0)
    assert shown.picture is not None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.picture.partition(",")[2]))))
    assert np.array_equal(pixels, np.round(images[0] * (255 / most)) if stretched else images[0])
    assert shown.note == "8 × 8" + (f", 0 is black and {most} is white, as over the whole suite" if stretched else "")


def test_a_suite_that_its_function_draws_anew_is_shown_as_it_was_judged(root: Path) -> None:
    config = CONFIG.replace(
        "suite: {npz: tiny/suite.npz}", f"suite: {{function: tiny.processing_{root.name}:drifting}}"
    )
    rows = project_with(root, config, x=np.zeros((1, 16), np.float32))
    assert not rows.raw
    with np.load(root / "out" / "batches" / "00000.npz") as batch:
        assert [c.value for c in rows.one(5)[0].cells] == pytest.approx(batch["x"][5].tolist())


def test_features_carry_their_distance_from_the_mean_in_standard_deviations(root: Path) -> None:
    x = np.random.default_rng(3).standard_normal((200, 16)).astype(np.float32)
    rows = project_with(root, CONFIG, x=x)
    z = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    assert [c.z for c in rows.one(17)[0].cells] == pytest.approx(z[17].tolist(), rel=1e-5)


def test_a_column_of_texts_is_shown_in_place_of_numbers(root: Path) -> None:
    x = np.random.default_rng(3).standard_normal((60, 16)).astype(np.float32)
    rows = project_with(root, CONFIG, x=x, text=np.array([f"ticket {i}" for i in range(60)]))
    assert [part.text for part in rows.one(7)] == ["ticket 7"]


def test_a_frame_is_shown_within_its_own_stream_and_marked() -> None:
    frames = np.stack([np.full(64, i, np.int16) for i in range(40)])
    rows = Rows({"audio": frames}, True, np.array(["a", "b"] * 20))
    (shown,) = rows.one(21)  # the eleventh frame of b: rows 9, 11, …, 33 are its neighbours
    assert shown.kind == "wave"
    assert shown.marked == pytest.approx((6 / 13, 7 / 13))
    assert (shown.wave[0][0], shown.wave[-1][1]) == pytest.approx((9 / 33, 1.0), abs=1e-3)
    assert Rows({"audio": frames}, True, np.array(["a", "b"] * 20)).one(1)[0].marked == pytest.approx((0, 1 / 7))
