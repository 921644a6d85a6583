"""Makes weights.safetensors, suite.npz and calibration.npz again from the shuttle sensors in the package `river`.

python -m examples.sensor_anomaly.make [--data shuttle.csv.gz]
"""

from __future__ import annotations

import argparse
import gzip
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import nn

from examples.sensor_anomaly.model import build
from examples.sensor_anomaly.processing import THRESHOLD, postprocess

HERE = Path(__file__).resolve().parent
SEED, EPOCHS, BATCH, PEAK_RATE = 2026, 30, 256, 5e-3
SUITE_ROWS, FIT_ROWS, THRESHOLD_ROWS, CALIBRATION_ROWS = 8_000, 20_000, 5_000, 512
THRESHOLD_PERCENTILE = 99.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=find_data(), help="shuttle.csv.gz (default: the installed river)")
    source = parser.parse_args().data
    if source is None or not source.is_file():
        sys.exit("No shuttle.csv.gz: pip install --no-deps river==0.26.1, or pass --data.")
    torch.set_num_threads(1)
    features, labels = read_rows(source)
    suite, rest = split(len(labels))
    normal = rest[labels[rest] == 0]
    fit, aside = normal[:FIT_ROWS], normal[FIT_ROWS : FIT_ROWS + THRESHOLD_ROWS]
    write_slices(features, labels, suite, fit)

    model = train(features[fit])
    save_file(model.state_dict(), HERE / "weights.safetensors")
    (HERE / "weights.safetensors").chmod(0o644)
    report(score(model, features[aside]), score(model, features[suite]), labels[suite])


def find_data() -> Path | None:
    spec = find_spec("river")
    return Path(spec.origin).parent / "datasets" / "shuttle.csv.gz" if spec and spec.origin else None


def read_rows(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [n, 9] (all whole numbers) and labels int64 [n], 1 for an anomaly."""
    with gzip.open(source, "rt") as lines:
        rows = np.loadtxt(lines, delimiter=",", skiprows=1)
    return rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int64)


def split(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows the suite holds, in ascending order, and all others in a random order."""
    order = np.random.default_rng(SEED).permutation(rows)
    return np.sort(order[:SUITE_ROWS]), order[SUITE_ROWS:]


def columns(features: np.ndarray, labels: np.ndarray, rows: np.ndarray, fit: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows with their columns for slices; the limits of those are of the rows that were fitted to."""
    low, high = np.percentile(features[fit], [0.1, 99.9], axis=0)
    outside = ((features[rows] < low) | (features[rows] > high)).any(axis=1)
    phase = np.digitize(features[rows, 0], np.percentile(features[fit, 0], [33, 67]))
    return {
        "features": features[rows],
        "labels": labels[rows],
        "id": row_ids(rows),
        "readings": np.where(outside, "outside", "inside"),
        "phase": np.array(["early", "middle", "late"])[phase],
    }


def write_slices(features: np.ndarray, labels: np.ndarray, suite: np.ndarray, fit: np.ndarray) -> None:
    """The suite with its columns for slices; for calibration training rows whose bytes do not occur in the suite."""
    np.savez_compressed(HERE / "suite.npz", **columns(features, labels, suite, fit))
    seen = {row.tobytes() for row in features[suite]}
    fresh = np.array([row for row in fit if features[row].tobytes() not in seen])[:CALIBRATION_ROWS]
    np.savez_compressed(HERE / "calibration.npz", features=features[np.sort(fresh)], id=row_ids(np.sort(fresh)))


def row_ids(rows: np.ndarray) -> np.ndarray:
    """Names a row by its place in shuttle.csv, counted from 0."""
    return np.array([f"row-{row:05d}" for row in rows])


def train(normal: np.ndarray) -> nn.Module:
    """Learns to rebuild normal rows; centre is the median, scale the 90th percentile of the distance from it."""
    torch.manual_seed(SEED)
    model = build()
    center = np.median(normal, axis=0)
    scale = np.maximum(np.percentile(np.abs(normal - center), 90, axis=0), 1.0)
    model.get_buffer("center").copy_(torch.from_numpy(center))
    model.get_buffer("scale").copy_(torch.from_numpy(scale))
    rows = torch.from_numpy(normal)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE)
    steps = EPOCHS * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(rows))[: len(rows) // BATCH * BATCH].split(BATCH):
            loss = model(rows[batch])[1].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def score(model: nn.Module, features: np.ndarray) -> np.ndarray:
    return postprocess({"score": model(torch.from_numpy(features))[1].numpy()})


def report(aside: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> None:
    flagged, anomalous = scores > THRESHOLD, labels == 1
    print(f"threshold={np.percentile(aside, THRESHOLD_PERCENTILE):.4f} (in processing.py: {THRESHOLD})")
    print(f"suite n={len(labels)} anomalies={anomalous.sum()} AUC={roc_auc_score(labels, scores):.5f}", end=" ")
    print(f"recall={flagged[anomalous].mean():.4f} precision={anomalous[flagged].mean():.4f}", end=" ")
    print(f"accuracy={(flagged == anomalous).mean():.4f} false alarms={flagged[~anomalous].mean():.4f}")


if __name__ == "__main__":
    main()
