"""The gate on one drawn suite: the very function that judges releases, on folders written for it.

In: what both sides answered on the suite's rows. Out: what caught it, or None where it passed. By structure: a law was broken
or the suite refused; by statistics: a limit failed; undecided: no limit failed and one could not be shown to hold.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compile.config import ModelFile, TargetFile
from compile.errors import ConfigError
from compile.signature import BATCH
from compile.worker import MOST_ALONE
from parity.judge import examine
from parity.policy import Policy
from parity.selftest.witness import Outputs, Witness, write_outputs
from parity.verdict import Status, overall

Array = NDArray[Any]
CaughtBy = Literal["integrity", "structure", "statistics", "undecided"]


@dataclass(frozen=True, slots=True)
class Caught:
    """How something was caught, and by which law or limit."""

    by: CaughtBy
    what: str


Asked = Literal["again", "alone"]
LAWS = ("schema", "finite", "not constant", "steady", "limits")
PIECES = 2
FIXED: Mapping[str, float] = {"1e-5": 1e-5, "1e-1": 1e-1}
LEAST_COSINE = 0.997


@dataclass(frozen=True, slots=True)
class Gate:
    """What stays the same for every defect: configs, policy, and the folders of what was built and timed."""

    config: ModelFile
    target: TargetFile
    policy: Policy
    folders: Mapping[str, Path]
    scratch: Path

    def caught_by(
        self,
        witness: Witness,
        rows: NDArray[np.int64],
        candidate: Outputs,
        pieces: int,
        again: Mapping[Asked, Outputs] | None = None,
    ) -> Caught | None:
        """Judge these rows of a candidate's outputs. `pieces`: in how many batches the candidate answered; `again`: what it
        answered to the same rows when it was asked a second time, and alone."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        places = dict(self.folders)
        for name in ("suite", "source", "observation"):
            places[name] = self.scratch / name
        self._write(places, witness, rows, candidate, pieces)
        if again is not None:
            self._write_again(places["observation"] / "outputs" / "again", len(rows), again)
        try:
            findings, _ = examine(self.config, self.target, self.policy, places)
        except ConfigError as refused:
            return Caught("structure", str(refused).split(":")[0])
        status = overall(findings)
        if status is Status.PASS:
            return None
        first = next(f for f in findings if f.status is status)
        if any(f.metric in LAWS and f.status is not Status.PASS for f in findings):
            return Caught("structure", first.metric)
        how: CaughtBy = "statistics" if status is Status.FAIL else "undecided"
        return Caught(how, f"{first.metric} against {first.against}")

    def _write(
        self, places: dict[str, Path], witness: Witness, rows: NDArray[np.int64], candidate: Outputs, pieces: int
    ) -> None:
        signature = self.config.signature
        places["suite"].mkdir(parents=True)
        columns = {name: values[rows] for name, values in witness.columns.items()}
        np.savez(places["suite"] / "columns.npz", **columns, row=np.arange(len(rows)))  # type: ignore[arg-type]
        write_outputs(places["source"] / "outputs", _taken(witness.source, rows), signature, PIECES)
        shutil.copy(self.folders["source"] / "floor.json", places["source"])
        if witness.baseline is not None:
            places["baseline"] = self.scratch / "baseline"
            write_outputs(places["baseline"] / "outputs", _taken(witness.baseline, rows), signature, PIECES)
        write_outputs(places["observation"] / "outputs", candidate, signature, pieces)
        (places["observation"] / "observation.json").write_text(json.dumps({}))

    def _write_again(self, folder: Path, rows: int, again: Mapping[Asked, Outputs]) -> None:
        """Second answers as an observation holds them: of the first batch, and of its first rows in batches of the least size."""
        signature = self.config.signature
        first = np.array_split(np.arange(rows), PIECES)[0]
        write_outputs(folder / "whole", _taken(again["again"], first), signature)
        (folder / "whole" / "00000.npz").rename(folder / "whole.npz")
        (folder / "whole").rmdir()
        least = signature.axes[BATCH].least
        times = min(MOST_ALONE, len(first) // least)
        write_outputs(folder, _taken(again["alone"], first[: times * least]), signature, times)


def _taken(outputs: Outputs, rows: NDArray[np.int64]) -> Outputs:
    return {name: array[rows] for name, array in outputs.items()}


def caught_by_tolerances(reference: Outputs, candidate: Outputs) -> dict[str, bool]:
    """What fixed tolerances say of the same rows: `allclose` at two of them (absolute and relative), and a cosine."""
    found = dict.fromkeys((*FIXED, f"cosine {LEAST_COSINE}"), False)
    for name, wanted in reference.items():
        other = candidate.get(name)
        if other is None or other.shape != wanted.shape:
            return dict.fromkeys(found, True)
        one, two = wanted.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        for label, tolerance in FIXED.items():
            found[label] |= not np.allclose(two, one, rtol=tolerance, atol=tolerance)
        length = float(np.linalg.norm(one) * np.linalg.norm(two))
        found[f"cosine {LEAST_COSINE}"] |= not float(one @ two) >= LEAST_COSINE * length
    return found
