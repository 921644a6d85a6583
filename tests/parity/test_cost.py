"""What judging and preparing a suite costs: memory that does not grow with it, and seconds of CPU.

Every step runs in the child that the line would run it in. A reader that keeps what it reads is held to the same bounds, and
must break them: a bound that such a reader meets would say nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench.observed import TARGET, WHY, Judged, observed
from bench.spent import Spent, spent, step
from tests.conftest import REPOSITORY

FEW, MANY = 2_000, 200_000
TIMES = 1.3
ROW_BYTES = 256
"""What a row's columns, answers and facts may take, read and picked: some twenty numbers and a word."""
SMALLER = 40
MOST_CPU_S = 15.0


def allowed(few: Spent, rows: int) -> float:
    return TIMES * few.peak_bytes + ROW_BYTES * rows


def judging(suite: Judged, address_space: int = 0) -> Spent:
    return step(suite.root / "work", suite.root, "parity.judge:judge", suite.arguments, address_space=address_space)


def accumulating(suite: Judged, address_space: int = 0) -> Spent:
    """A reader of the same files that keeps what it reads."""
    places = [suite.arguments["places"][side] for side in ("source", "observation")]
    code = (
        "import scipy.stats, sys; from pathlib import Path; from parity.observed import Observed\n"
        "kept = [batch for place in sys.argv[1:] for batch in Observed(Path(place), None).batches()]"
    )
    return spent([sys.executable, "-c", code, *places], address_space=address_space)


@pytest.mark.parametrize(("kind", "width"), [("classification", 100), ("binary_score", 1)])
def test_judging_a_hundred_times_the_rows_takes_no_more_memory(tmp_path: Path, kind: Any, width: int) -> None:
    few, large = (observed(tmp_path / str(rows), kind, rows, width) for rows in (FEW, MANY))
    little, much = judging(few), judging(large)
    assert (little.status, much.status) == (0, 0), much.said
    assert much.peak_bytes <= allowed(little, MANY)
    if width > 1:
        assert accumulating(large).peak_bytes > allowed(little, MANY), "a bound that keeping everything meets is none"


def test_outputs_larger_than_memory_are_judged(tmp_path: Path) -> None:
    """All that may be mapped beyond what a small suite needs is a fortieth of the outputs."""
    small, wide = (observed(tmp_path / str(n), "classification", n, 10_000, ("macro_f1",)) for n in (1_024, 8_000))
    needed = judging(small)
    bound = needed.mapped_bytes + wide.output_bytes // SMALLER
    found = judging(wide, bound)
    assert found.status == 0, found.said + (wide.root / "work" / "report.json").read_text()
    broken = accumulating(wide, bound)
    assert broken.status != 0
    assert "MemoryError" in broken.said


DATA = """
import numpy as np
def suite():
    rng = np.random.default_rng(0)
    for start in range(0, {rows}, 64):
        x = rng.random((64, {width}), np.float32)
        yield {{"x": x, "labels": rng.integers(0, 4, 64), "first": x[:, 0]}}
def kept():
    yield from list(suite())
"""


def function_suite(root: Path, rows: int, width: int, function: str = "suite") -> tuple[Path, dict[str, Any]]:
    """A project whose suite is what a function yields, and the arguments of the step that prepares it."""
    for folder in ("models", "targets", "policies"):
        (root / "configs" / folder).mkdir(parents=True)
    model = {
        "source": {"onnx": "m.onnx"},
        "inputs": {"x": {"dtype": "float32", "shape": ["batch", width]}},
        "outputs": {"y": {"dtype": "float32", "shape": ["batch", 4]}},
        "suite": {"function": f"mine_data:{function}"},
        "task": {"kind": "classification"},
        "targets": ["edge"],
    }
    speed = {"metric": "latency_ratio", "at_most": 1.0, "why": WHY}
    for place, document in (("models/m", model), ("targets/edge", TARGET), ("policies/default", {"limits": [speed]})):
        (root / "configs" / f"{place}.yaml").write_text(yaml.safe_dump(document))
    (root / "mine_data.py").write_text(DATA.format(rows=rows, width=width))
    return root, {"model": "m", "part": "suite", "judged_on": None}


def preparing(suite: tuple[Path, dict[str, Any]], address_space: int = 0) -> Spent:
    root, arguments = suite
    return step(root / "work", root, "compile.dataset:prepare", arguments, address_space=address_space)


def test_a_suite_larger_than_memory_is_prepared_from_a_function(tmp_path: Path) -> None:
    """And the same function, where it keeps its batches, is not."""
    rows, width = 12_800, 10_000
    needed = preparing(function_suite(tmp_path / "small", 128, width))
    bound = needed.mapped_bytes + 4 * rows * width // SMALLER
    found = preparing(function_suite(tmp_path / "large", rows, width), bound)
    assert found.status == 0, found.said
    with np.load(tmp_path / "large" / "work" / "made" / "columns.npz") as columns:
        assert len(columns["row"]) == rows
        assert not columns["copy"].any()
    assert preparing(function_suite(tmp_path / "kept", rows, width, "kept"), bound).status != 0


def test_preparing_a_hundred_times_the_rows_takes_no_more_memory(tmp_path: Path) -> None:
    little = preparing(function_suite(tmp_path / "few", FEW, 100))
    much = preparing(function_suite(tmp_path / "many", MANY, 100))
    assert (little.status, much.status) == (0, 0), much.said
    assert much.peak_bytes <= allowed(little, MANY)
    kept = preparing(function_suite(tmp_path / "kept", MANY, 100, "kept"))
    assert kept.peak_bytes > allowed(little, MANY)


def test_judging_the_shipped_classifier_takes_seconds(tmp_path: Path) -> None:
    """The source's own answers on the shipped suite, and beside them the same with one per cent of noise."""
    root, model = REPOSITORY, "fashion-cnn"
    prepared = step(
        tmp_path / "suite", root, "compile.dataset:prepare", {"model": model, "part": "suite", "judged_on": None}
    )
    suite = tmp_path / "suite" / "made"
    arguments = {"model": model, "suite": str(suite), "fetched": None}
    answered = step(tmp_path / "source", root, "compile.reference:observe_source", arguments)
    assert (prepared.status, answered.status) == (0, 0)
    stage = observed(tmp_path / "stage", "classification", 64, 10)
    places = {**stage.arguments["places"], "suite": str(suite), "source": str(tmp_path / "source" / "made")}
    outputs, rng = Path(places["observation"]) / "outputs", np.random.default_rng(0)
    for path in sorted((tmp_path / "source" / "made" / "outputs").glob("*.npz")):
        with np.load(path) as batch:
            noise = rng.standard_normal(batch["logits"].shape).astype(np.float32)
            np.savez(outputs / path.name, logits=batch["logits"] + 0.01 * batch["logits"].std() * noise)
    told = {**stage.arguments, "model": model, "target": "edge-x86-onnxruntime", "places": places}
    found = step(tmp_path / "verdict", root, "parity.judge:judge", told)
    assert found.status == 0, (tmp_path / "verdict" / "report.json").read_text()
    assert found.cpu_s <= MOST_CPU_S
