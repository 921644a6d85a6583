"""Suites of a thousand rows and their answers, written by hand where the judge reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compile.config import ModelFile, TargetFile
from parity.judge import examine
from parity.policy import Policy
from parity.verdict import Finding, Status, overall

Arrays = dict[str, np.ndarray]
ROWS, BATCH = 1000, 250
FLOOR = 1e-6

MODEL = {
    "source": {"onnx": "model.onnx"},
    "inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}},
    "outputs": {"logits": {"dtype": "float32", "shape": ["batch", 4]}},
    "suite": {"npz": "suite.npz"},
    "task": {"kind": "classification"},
    "baseline": ["cloud"],
    "targets": ["edge"],
}
LIMITS: list[dict[str, Any]] = [
    {"metric": "float_error", "at_most": 10, "precision": ["float32"], "why": "only the order of sums may differ"},
    {
        "metric": "sqnr_db",
        "at_least": 15,
        "precision": ["int8"],
        "against": ["source"],
        "why": "calibrated int8 is better",
    },
    {"metric": "agreement", "at_least": 0.98, "why": "one request in fifty is bearable"},
    {"metric": "correct", "margin": 0.01, "why": "one point of accuracy is bearable"},
    {"metric": "latency_ratio", "at_most": 1.0, "precision": ["int8"], "why": "slower has no reason to exist"},
]


@dataclass
class Case:
    """A suite of 1000 rows in four batches, answered by source, baseline and candidate; change what a test is about."""

    root: Path
    model: dict[str, Any] = field(default_factory=lambda: dict(MODEL))
    precision: str = "float32"
    role: str = "edge"
    limits: list[dict[str, Any]] = field(default_factory=lambda: [dict(limit) for limit in LIMITS])
    goal: dict[str, str] | None = None
    expected: dict[str, Any] | None = None
    source: list[Arrays] = field(default_factory=list)
    candidate: list[Arrays] = field(default_factory=list)
    baseline: list[Arrays] | None = None
    columns: Arrays = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def places(self) -> dict[str, Path]:
        """Everything written where the judge reads it."""
        sides = {"source": self.source, "observation": self.candidate, "baseline": self.baseline}
        for name, batches in sides.items():
            if batches is not None:
                (self.root / name / "outputs").mkdir(parents=True)
                for number, batch in enumerate(batches):
                    np.savez(self.root / name / "outputs" / f"{number:05d}.npz", **batch)  # type: ignore[arg-type]
        for name in ("suite", "timing"):
            (self.root / name).mkdir()
        np.savez(self.root / "suite" / "columns.npz", **self.columns)  # type: ignore[arg-type]
        floors = dict.fromkeys(self.model["outputs"], FLOOR)
        (self.root / "source" / "floor.json").write_text(json.dumps({"outputs": floors}))
        (self.root / "observation" / "observation.json").write_text("{}")
        (self.root / "timing" / "timing.json").write_text(json.dumps({"seconds": self.seconds}))
        for name, size in self.sizes.items():
            (self.root / name / "artifact").mkdir(parents=True)
            (self.root / name / "artifact" / "model.bin").write_bytes(b"\0" * size)
        return {path.name: path for path in self.root.iterdir() if path.is_dir()}

    def target(self) -> TargetFile:
        dialect = "uint8-asymmetric" if self.precision == "int8" else self.precision
        return TargetFile.model_validate(
            {
                "role": self.role,
                "hardware": "a CPU",
                "toolchain": "any",
                "precision": self.precision,
                "dialect": dialect,
            }
        )

    def examine(self) -> list[Finding]:
        policy = Policy.model_validate({"limits": self.limits, "goal": self.goal, "source": self.expected})
        return examine(ModelFile.model_validate(self.model), self.target(), policy, self.places())[0]


def batches(logits: np.ndarray) -> list[Arrays]:
    return [{"logits": logits[i : i + BATCH].copy()} for i in range(0, len(logits), BATCH)]


def sound(root: Path) -> Case:
    """A candidate that answers exactly as the source does; labels agree with nine answers of ten."""
    logits = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
    labels = logits.argmax(1)
    labels[::10] = (labels[::10] + 1) % 4
    return Case(
        root,
        source=batches(logits),
        candidate=batches(logits),
        baseline=batches(logits),
        columns={"labels": labels, "row": np.arange(ROWS)},
        seconds={"artifact": [1e-3] * 100, "float": [2e-3] * 100},
        sizes={"build": 1000, "float": 4000},
    )


def status(findings: list[Finding]) -> Status:
    return overall(findings)


def broken(findings: list[Finding]) -> dict[str, str]:
    return {f"{f.metric} against {f.against}": f.sentence for f in findings if f.status is not Status.PASS}


def integer(case: Case, ratio: float) -> Case:
    """An integer candidate that takes `ratio` of float's time."""
    case.precision = "int8"
    case.limits = [limit for limit in LIMITS if limit["metric"] != "float_error"]
    case.seconds = {"artifact": [ratio * 1e-3] * 100, "float": [1e-3] * 100}
    return case
