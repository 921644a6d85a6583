"""The pool of the self-test, from Debian's package: 20,000 images that neither trained nor judge the model.

6,000 are those of the test split that the suite did not take; 14,000 are of the training split, held out of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from examples.fashion_cnn.make import CLASSES, DATA, TRAINED, brightness, read_split

HERE = Path(__file__).resolve().parent
BATCH = 500


def pool() -> Iterator[dict[str, np.ndarray]]:
    """Batches of images with their labels; in the order of the splits."""
    if not (DATA / "t10k-images-idx3-ubyte.gz").is_file():
        raise FileNotFoundError(f"{DATA}: no Fashion-MNIST there: apt-get install dataset-fashion-mnist")
    with np.load(HERE / "suite.npz") as suite:
        taken = {int(name.removeprefix("test-")) for name in suite["id"].tolist()}
    yield from _batches("t10k", "test", lambda row: row not in taken)
    yield from _batches("train", "train", lambda row: row >= TRAINED)


def _batches(split: str, prefix: str, unseen: Callable[[int], bool]) -> Iterator[dict[str, np.ndarray]]:
    images, labels = read_split(DATA, split)
    rest = np.array([row for row in range(len(labels)) if unseen(row)])
    for start in range(0, len(rest), BATCH):
        rows = rest[start : start + BATCH]
        yield {
            "image": images[rows],
            "labels": labels[rows],
            "id": np.array([f"{prefix}-{i:05d}" for i in rows]),
            "class_name": CLASSES[labels[rows]],
            "brightness": brightness(images[rows]),
        }
