"""The pool of the self-test: the 6,000 images of the test split that the suite did not take, from Debian's package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from examples.fashion_cnn.make import CLASSES, DATA, read_split

HERE = Path(__file__).resolve().parent
BATCH = 500


def pool() -> Iterator[dict[str, np.ndarray]]:
    """Batches of images with their labels; in the order of the split."""
    if not (DATA / "t10k-images-idx3-ubyte.gz").is_file():
        raise FileNotFoundError(f"{DATA}: no Fashion-MNIST there: apt-get install dataset-fashion-mnist")
    images, labels = read_split(DATA, "t10k")
    with np.load(HERE / "suite.npz") as suite:
        taken = {int(name.removeprefix("test-")) for name in suite["id"].tolist()}
    rest = np.array([i for i in range(len(labels)) if i not in taken])
    for start in range(0, len(rest), BATCH):
        rows = rest[start : start + BATCH]
        mean = images[rows].reshape(len(rows), -1).mean(axis=1)
        yield {
            "image": images[rows],
            "labels": labels[rows],
            "id": np.array([f"test-{i:05d}" for i in rows]),
            "class_name": CLASSES[labels[rows]],
            "brightness": np.array(["dark", "middle", "bright"])[np.digitize(mean, [50, 90])],
        }
