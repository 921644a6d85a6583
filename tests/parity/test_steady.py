"""The law that the same rows get the same answers: asked again, and asked alone. A worker asks, the judge compares."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.config import ModelFile
from compile.worker import Job, answer
from parity.judge import examine
from parity.observed import read_observed
from parity.policy import Policy
from parity.steady import unsteady
from parity.verdict import Status, overall
from tests.parity.judged import FLOOR, LIMITS, MODEL, Case, sound

ROWS, CLASSES = 64, 4
SOURCE = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
NOISE = np.random.default_rng(1).standard_normal((ROWS, CLASSES)).astype(np.float32)
DRAWN = np.random.default_rng(2)
Answer = Callable[[np.ndarray], np.ndarray]
CONFIG = ModelFile.model_validate({**MODEL, "inputs": {"x": {"dtype": "int64", "shape": ["batch"]}}})


def rounded(rows: np.ndarray) -> np.ndarray:
    return SOURCE[rows] + np.float32(0.02) * NOISE[rows]


def alone(rows: np.ndarray) -> bool:
    return len(rows) == 1


def refused(rows: np.ndarray) -> np.ndarray:
    if alone(rows):
        raise RuntimeError("expected 64 rows")
    return rounded(rows)


SOUND: Mapping[str, Answer] = {
    "exact": lambda rows: SOURCE[rows],
    "rounded": rounded,
    "other rounding alone": lambda rows: (
        rounded(rows) if not alone(rows) else SOURCE[rows] - np.float32(0.03) * NOISE[rows]
    ),
    "other sums alone": lambda rows: SOURCE[rows] + np.float32(3 * FLOOR * alone(rows)) * NOISE[rows],
    "other sums again": lambda rows: SOURCE[rows] + np.float32(3 * FLOOR) * DRAWN.standard_normal(CLASSES, np.float32),
}
BROKEN: Mapping[str, tuple[Answer, str]] = {
    "classes reversed alone": (lambda rows: rounded(rows)[:, :: -1 if alone(rows) else 1], "16 rows, asked 1 at a time, lie"),
    "normalized by the batch": (lambda rows: SOURCE[rows] - SOURCE[rows].mean(axis=0), "16 rows, asked 1 at a time, lie"),
    "squeezed": (lambda rows: rounded(rows).squeeze(), r"of 1 of the rows alone has shape \(4,\); expected \(1, 4\)"),
    "refused": (refused, "cannot be answered in a batch of 1: RuntimeError: expected 64 rows"),
    "not a number alone": (lambda rows: rounded(rows) / (0.0 if alone(rows) else 1.0), "16 rows, asked 1 at a time, lie"),
    "dropout left on": (lambda rows: rounded(rows) * (DRAWN.random(SOURCE[rows].shape) > 0.01), "asked again, is answered otherwise"),
}  # fmt: skip


def asked(folder: Path, found: Answer, config: ModelFile = CONFIG) -> list[str]:
    """What the law says of an artifact, once the worker asked it about every row and about some again."""
    (folder / "batches").mkdir()
    (folder / "source" / "outputs").mkdir(parents=True)
    np.savez(folder / "batches" / "00000.npz", x=np.arange(ROWS))
    np.savez(folder / "source" / "outputs" / "00000.npz", logits=SOURCE)
    job: dict[str, Any] = {
        "target_file": "t",
        "options": {},
        "precision": "float32",
        "graph": "g",
        "artifact": "a",
        "twin": None,
    }
    job |= {"batches": "batches", "signature": config.signature.document(), "again": True}
    (folder / "job.json").write_text(json.dumps(job))
    with np.errstate(all="ignore"):
        answer(Job(folder), lambda feeds: {"logits": np.asarray(found(feeds["x"]), np.float32)})
    return unsteady(read_observed(folder / "source", config), read_observed(folder, config), {"logits": FLOOR})


@pytest.mark.parametrize("name", SOUND)
def test_rounding_and_the_order_of_sums_break_nothing(tmp_path: Path, name: str) -> None:
    assert asked(tmp_path, SOUND[name]) == []


@pytest.mark.parametrize("name", BROKEN)
def test_answers_that_hang_on_the_batch_or_on_chance_break_the_law(tmp_path: Path, name: str) -> None:
    found, said = BROKEN[name]
    assert re.search(said, "; ".join(asked(tmp_path, found)))


def test_a_model_of_one_fixed_batch_is_not_asked_alone(tmp_path: Path) -> None:
    fixed = {"x": {"dtype": "int64", "shape": [ROWS]}}, {"logits": {"dtype": "float32", "shape": [ROWS, CLASSES]}}
    config = ModelFile.model_validate({**MODEL, "inputs": fixed[0], "outputs": fixed[1]})
    assert asked(tmp_path, refused, config) == []
    assert [path.name for path in (tmp_path / "outputs" / "again").iterdir()] == ["whole.npz"]


def test_answers_whose_width_hangs_on_the_row_are_not_compared(tmp_path: Path) -> None:
    wide = {"logits": {"dtype": "float32", "shape": ["batch", "found"]}}
    config = ModelFile.model_validate(
        {**MODEL, "inputs": CONFIG.model_dump()["inputs"], "outputs": wide, "axes": {"found": {}}}
    )
    assert asked(tmp_path, lambda rows: rounded(rows)[:, : 2 if alone(rows) else 4], config) == []


@pytest.mark.parametrize(("again", "wanted"), [(None, Status.PASS), (0.0, Status.PASS), (0.5, Status.FAIL)])
def test_the_judge_tells_it_as_a_law(tmp_path: Path, again: float | None, wanted: Status) -> None:
    case: Case = sound(tmp_path / "case")
    places = case.places()
    if again is not None:
        folder = places["observation"] / "outputs" / "again"
        folder.mkdir()
        np.savez(folder / "whole.npz", logits=case.candidate[0]["logits"] + np.float32(again))
    policy = Policy.model_validate({"limits": LIMITS})
    findings = examine(ModelFile.model_validate(case.model), case.target(), policy, places)[0]
    assert overall(findings) is wanted
    assert [f.status for f in findings if f.metric == "steady"] == ([] if again is None else [wanted])
