"""What breaks beside a source that rounds coarsely itself, as one that stores integers, and what is told of an artifact that
does not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compile.config import ModelFile
from compile.errors import ToolchainError
from parity.explain import climber
from parity.explain.experiment.ladder import Rung, Scale, Standing, climb
from tests.parity.foreign import RNG

CONFIG = ModelFile.model_validate(
    {
        "source": {"onnx": "m.onnx"},
        "inputs": {"x": {"dtype": "float32", "shape": ["batch", 6]}},
        "outputs": {"y": {"dtype": "float32", "shape": ["batch", 5]}},
        "suite": {"npz": "s.npz"},
        "task": {"kind": "none"},
        "targets": ["cloud-cpu-onnxruntime"],
    }
)


def stand(folder: Path, floor: float, *, reordered: float, found: float) -> list[Standing]:
    """Source, a rung that reorders sums, and what was found: off by noise of such deviations from a signal of 1."""
    signal = RNG.standard_normal((64, 5)).astype(np.float32)
    rungs = []
    for name, off in (("source", 0.0), ("compiled artifact", reordered), ("artifact as found", found)):
        outputs = folder / name / "outputs"
        outputs.mkdir(parents=True)
        noise = off * RNG.uniform(-1, 1, signal.shape) * 3**0.5
        np.savez(outputs / "00000.npz", y=(signal + noise).astype(np.float32))
        rungs.append(Rung(name, outputs, after=rungs[-1].name if rungs else None))  # type: ignore[arg-type]
    return climb(rungs, CONFIG, Scale({"y": floor}, 10.0))


def test_an_artifact_far_off_breaks_though_the_source_itself_rounds_coarsely(tmp_path: Path) -> None:
    """A source in integers: a weight's last place moves its answers by 0.3, and ten such floors would pass anything."""
    *_, found = stand(tmp_path, 0.3, reordered=0.1, found=0.4)
    assert found.broke


@pytest.mark.parametrize(("floor", "reordered", "found"), [(0.3, 0.1, 0.11), (1e-6, 1e-7, 4e-6)])
def test_what_is_no_further_off_than_reordered_sums_does_not_break(
    tmp_path: Path, floor: float, reordered: float, found: float
) -> None:
    """Nor what is within ten floors of a source in float32, however little its own runtime is off."""
    assert not any(one.broke for one in stand(tmp_path, floor, reordered=reordered, found=found))


def test_why_an_artifact_did_not_run_is_told_whole_and_on_one_line() -> None:
    error = ToolchainError(
        "m: t: found: Invalid: Got invalid dimensions\n index: 0 Got: 64. Its log is /l; its end:\n…"
    )
    assert climber._told(error) == "Invalid: Got invalid dimensions index: 0 Got: 64"
