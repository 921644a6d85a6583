"""What the worker times: real inputs at the typical size of every axis."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from compile.worker import Job, typical_feeds

SIGNATURE = {
    "inputs": [
        {"name": "ids", "dtype": "int64", "shape": ["batch", "length"]},
        {"name": "h", "dtype": "float32", "shape": ["batch", 3]},
    ],
    "outputs": [{"name": "hn", "dtype": "float32", "shape": ["batch", 3]}],
    "axes": {"batch": {"least": 1, "typical": 2, "most": 8}, "length": {"least": 1, "typical": 10, "most": 64}},
    "state": {"h": "hn"},
}


def job(folder: Path, *lengths: int) -> Job:
    """A job whose batches hold their own length in every place."""
    (folder / "batches").mkdir()
    for number, length in enumerate(lengths):
        np.savez(folder / "batches" / f"{number:05d}.npz", ids=np.full((4, length), length), stream=np.arange(4))
    document = {"target_file": "t", "options": {}, "precision": "float32", "signature": SIGNATURE, "graph": "g"}
    (folder / "job.json").write_text(json.dumps({**document, "artifact": "a", "twin": None, "batches": "batches"}))
    return Job(folder)


def test_the_batch_nearest_to_the_typical_length_is_cut_to_it_wherever_it_stands(tmp_path: Path) -> None:
    feeds = typical_feeds(job(tmp_path, 3, 64, 12, 40))
    np.testing.assert_array_equal(feeds["ids"], np.full((2, 10), 12))
    np.testing.assert_array_equal(feeds["h"], np.zeros((2, 3), np.float32))


def test_a_shorter_batch_is_repeated(tmp_path: Path) -> None:
    np.testing.assert_array_equal(typical_feeds(job(tmp_path, 4))["ids"], np.full((2, 10), 4))


def test_an_exact_batch_stays_as_it_is(tmp_path: Path) -> None:
    np.testing.assert_array_equal(typical_feeds(job(tmp_path, 9, 10, 11))["ids"], np.full((2, 10), 10))
