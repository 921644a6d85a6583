"""Makes weights.safetensors, suite.npz and calibration.npz again from the Fashion-MNIST files of Debian.

python -m examples.fashion_cnn.make [--data FOLDER] [--slices-only]
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from examples.fashion_cnn.model import build
from examples.fashion_cnn.processing import preprocess

HERE = Path(__file__).resolve().parent
DATA = Path("/usr/share/datasets/fashion-mnist")
SEED, EPOCHS, BATCH = 2026, 6, 128
SUITE_PER_CLASS, CALIBRATION_PER_CLASS = 400, 40
TRAINED = 46_000
"""So many images of the training split are trained on; the last 14,000 stay unseen, for the pool of the self-test."""
CLASSES = np.array(
    ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the four idx files (%(default)s)")
    parser.add_argument("--slices-only", action="store_true", help="keep the weights, write the data slices")
    arguments = parser.parse_args()
    if not (arguments.data / "train-images-idx3-ubyte.gz").is_file():
        sys.exit(f"No Fashion-MNIST under {arguments.data}: apt-get install dataset-fashion-mnist, or pass --data.")
    torch.set_num_threads(1)
    images, labels = (array[:TRAINED] for array in read_split(arguments.data, "train"))
    test_images, test_labels = read_split(arguments.data, "t10k")
    write_slices(images, labels, test_images, test_labels)

    model = build()
    if arguments.slices_only:
        model.load_state_dict(load_file(HERE / "weights.safetensors"))
    else:
        model = train(images, labels)
        save_file(model.state_dict(), HERE / "weights.safetensors")
        (HERE / "weights.safetensors").chmod(0o644)
    suite = np.load(HERE / "suite.npz")
    print(f"test split  n={len(test_labels):6d} accuracy={accuracy(model, test_images, test_labels):.4f}")
    print(f"suite       n={len(suite['id']):6d} accuracy={accuracy(model, suite['image'], suite['labels']):.4f}")


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 28, 28] and labels int64 [n] of an idx pair; headers are 16 and 8 bytes."""
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    classes = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    return images, np.frombuffer(classes, np.uint8, offset=8).astype(np.int64)


def write_slices(images: np.ndarray, labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray) -> None:
    """The suite from the test split, the calibration images from those that are trained on; both class-balanced."""
    rng = np.random.default_rng(SEED)
    chosen = pick(test_labels, SUITE_PER_CLASS, rng)
    np.savez_compressed(
        HERE / "suite.npz",
        image=test_images[chosen],
        labels=test_labels[chosen],
        id=np.array([f"test-{i:05d}" for i in chosen]),
        class_name=CLASSES[test_labels[chosen]],
        brightness=brightness(test_images[chosen]),
    )
    chosen = pick(labels, CALIBRATION_PER_CLASS, rng)
    np.savez_compressed(HERE / "calibration.npz", image=images[chosen], id=np.array([f"train-{i:05d}" for i in chosen]))


def brightness(images: np.ndarray) -> np.ndarray:
    """Dark, middle or bright, by the mean grey level of each image."""
    mean = images.reshape(len(images), -1).mean(axis=1)
    return np.array(["dark", "middle", "bright"])[np.digitize(mean, [50, 90])]


def pick(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted indices with `per_class` rows of every class, drawn without looking at the images."""
    drawn = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(len(CLASSES))]
    return np.sort(np.concatenate(drawn))


def train(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """AdamW with one cycle of the learning rate (peak 4e-3), horizontal flips."""
    torch.manual_seed(SEED)
    model = build().train()
    inputs, targets = torch.from_numpy(preprocess({"image": images})["image"]), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    steps = EPOCHS * (len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(inputs))[: len(inputs) // BATCH * BATCH].split(BATCH):
            loss = nn.functional.cross_entropy(model(flip_half(inputs[rows])), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{EPOCHS} last loss {loss.item():.3f}", flush=True)
    return model.eval()


def flip_half(images: Tensor) -> Tensor:
    """Each image mirrored left to right with probability one half."""
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(-1), images)


@torch.inference_mode()
def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    model.eval()
    inputs = torch.from_numpy(preprocess({"image": images})["image"])
    answers = torch.cat([model(part).argmax(1) for part in inputs.split(1000)]).numpy()
    return float((answers == labels).mean())


if __name__ == "__main__":
    main()
