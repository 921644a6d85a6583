"""Observations of any length as files, drawn from a seed: what judging is measured on.

In: a kind of task, rows, width. Out: a project with a suite, a source's and an edge target's outputs, a timing and
artifacts, as a run leaves them; only a batch is held at a time. Sides differ in about one answer of a hundred.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

Kind = Literal["classification", "binary_score", "embedding"]
Arrays = dict[str, np.ndarray]
BATCH = 64
FRAMES = 100
NOISE = 0.01
WHY = "a limit to measure what it costs"
OF_EVERY_TASK: list[dict[str, Any]] = [
    {"metric": "sqnr_db", "at_least": 15},
    {"metric": "agreement", "at_least": 0.9},
    {"metric": "worst_slice", "at_least": 0.5},
    {"metric": "correct", "margin": 0.05},
    {"metric": "latency_ratio", "at_most": 1.0},
]
OF_TASK: dict[Kind, list[dict[str, Any]]] = {
    "classification": [
        {"metric": "macro_f1", "margin": 0.05},
        {"metric": "kl", "at_most": 1.0},
        {"metric": "confidence_drift", "at_most": 0.5},
        {"metric": "route_flips", "at_most": 0.5},
        {"metric": "escalation_change", "at_most": 0.5},
        {"metric": "kept_errors", "margin": 0.1},
    ],
    "binary_score": [
        {"metric": "f1", "margin": 0.05},
        {"metric": "auc", "margin": 0.05},
        {"metric": "rank_correlation", "at_least": 0.5},
        {"metric": "confidence_drift", "at_most": 0.5},
        {"metric": "state_drift", "at_most": 1.0},
        {"metric": "route_flips", "at_most": 0.5},
        {"metric": "escalation_change", "at_most": 0.5},
        {"metric": "kept_errors", "margin": 0.1},
    ],
    "embedding": [
        {"metric": "cosine_mean", "at_least": 0.5},
        {"metric": "cosine_minimum", "at_least": 0.1},
        {"metric": "rank_overlap", "at_least": 0.1},
        {"metric": "recall_at_k", "margin": 0.1},
    ],
}
TARGET = {
    "role": "edge", "hardware": "a CPU", "toolchain": "onnxruntime", "precision": "int8", "dialect": "uint8-asymmetric",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """One model that was observed: the project, and the arguments of the step that judges it."""

    root: Path
    arguments: dict[str, Any]

    @property
    def output_bytes(self) -> int:
        """What both sides' outputs take on disk."""
        places = [Path(self.arguments["places"][side]) for side in ("source", "observation")]
        return sum(path.stat().st_size for place in places for path in (place / "outputs").glob("*.npz"))


def observed(root: Path, kind: Kind, rows: int, width: int, without: Sequence[str] = ()) -> Judged:
    """Write a model `m` of that kind, observed on so many rows; every metric of its task but those is bound by its policy."""
    return written(root, kind, width, _batches(kind, rows, width), without)


def written(
    root: Path,
    kind: Kind,
    width: int,
    batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    without: Sequence[str] = (),
) -> Judged:
    """The same of given batches: both sides' outputs and the labels."""
    _configs(root, kind, width, without)
    out = root / "out" / "m"
    edge = out / "targets" / "edge"
    places = {
        "suite": out / "suite", "source": out / "source", "observation": edge / "observation", "timing": edge / "timing",
        "build": edge / "build", "float": edge / "float", "baseline": None,
    }  # fmt: skip
    for name, place in places.items():
        if place is not None:
            (place / ("artifact" if name in ("build", "float") else "outputs")).mkdir(parents=True)
    labels = []
    for number, (ours, theirs, label) in enumerate(batches):
        np.savez(out / "source" / "outputs" / f"{number:05d}.npz", y=ours)
        np.savez(edge / "observation" / "outputs" / f"{number:05d}.npz", y=theirs)
        labels.append(label)
    np.savez(out / "suite" / "columns.npz", **_columns(kind, np.concatenate(labels)))
    (out / "source" / "floor.json").write_text(json.dumps({"outputs": {"y": 1e-6}}))
    (edge / "observation" / "observation.json").write_text("{}")
    seconds = {"artifact": [1e-3] * 100, "float": [2e-3] * 100}
    (edge / "timing" / "timing.json").write_text(json.dumps({"seconds": seconds}))
    for name, size in (("build", 1_000), ("float", 4_000)):
        (edge / name / "artifact" / "model.bin").write_bytes(b"\0" * size)
    told = {name: None if place is None else str(place) for name, place in places.items()}
    arguments = {
        "model": "m", "target": "edge", "places": told, "digests": {}, "baseline": {}, "deferred": None, "before": None,
    }  # fmt: skip
    return Judged(root, arguments)


def _configs(root: Path, kind: Kind, width: int, without: Sequence[str]) -> None:
    for folder in ("models", "targets", "policies"):
        (root / "configs" / folder).mkdir(parents=True)
    model = {
        "source": {"onnx": "m.onnx"},
        "inputs": {"x": {"dtype": "float32", "shape": ["batch", 2]}},
        "outputs": {"y": {"dtype": "float32", "shape": ["batch", width]}},
        "suite": {"npz": "suite.npz"},
        "task": {"kind": kind},
        "policy": "all",
        "targets": ["edge"],
    }
    limits = [{**limit, "why": WHY} for limit in (*OF_EVERY_TASK, *OF_TASK[kind]) if limit["metric"] not in without]
    route = {} if kind == "embedding" else {"route": {"confidence": 0.7, "why": WHY}}
    for place, document in (
        ("models/m", model),
        ("targets/edge", TARGET),
        ("policies/all", {"limits": limits, **route}),
    ):
        (root / "configs" / f"{place}.yaml").write_text(yaml.safe_dump(document))


def _batches(kind: Kind, rows: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Both sides' outputs and the labels, a batch at a time."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((100, width)).astype(np.float32)
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        noise = rng.standard_normal((n, width)).astype(np.float32)
        match kind:
            case "classification":
                ours = 3 * rng.standard_normal((n, width)).astype(np.float32)
                label = np.where(rng.random(n) < 0.9, ours.argmax(1), 0)
            case "binary_score":
                label = rng.integers(0, 2, n)
                ours = (1 / (1 + np.exp(-rng.normal(2 * label - 1, 1.5)))).astype(np.float32)[:, None]
            case "embedding":
                label = rng.integers(0, len(centres), n)
                ours = centres[label] + rng.standard_normal((n, width)).astype(np.float32)
        theirs = ours + NOISE * noise
        yield ours, theirs.clip(0, 1) if kind == "binary_score" else theirs, label


def _columns(kind: Kind, labels: np.ndarray) -> Arrays:
    """Labels, two columns to slice by, and for scores the stream of each row."""
    rng, rows = np.random.default_rng(1), len(labels)
    columns = {"row": np.arange(rows), "copy": np.zeros(rows, bool), "labels": labels}
    columns |= {"light": rng.choice(["day", "dusk", "night"], rows), "speed": rng.random(rows)}
    return columns | ({"group": np.arange(rows) // FRAMES} if kind == "binary_score" else {})
