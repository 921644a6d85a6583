"""The models of the bench with their data: a trained small CNN, the CNN of the issue's trial, a transformer encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench import encoder
from bench.runtimes import Batch
from compile.recipe import Recipe
from compile.signature import Axis, Signature
from compile.signature import Tensor as Slot

FASHION = Path(__file__).parents[1] / "examples" / "fashion_cnn"
IMAGE_SAMPLES, SENTENCES = 4_000, 2_000
BATCH = 16
IMAGES = Signature(
    inputs=(Slot("image", "float32", ("batch", 1, 28, 28)),),
    outputs=(Slot("logits", "float32", ("batch", 10)),),
    axes={"batch": Axis(1, BATCH, 64)},
)


@dataclass(frozen=True, slots=True)
class Case:
    """One model with what it is calibrated, judged and timed on. `agreement` gives one score, at most 1, per sample."""

    name: str
    module: nn.Module
    signature: Signature
    calibration: Sequence[Batch]
    suite: Sequence[Batch]
    timed: Batch
    agreement: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]
    transformer: bool
    recipe: Recipe


class TrialCnn(nn.Module):
    """conv16 - conv32 - fc64 with max pooling, 105,866 parameters: the network of the issue's trial, untrained."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(image))
        return logits


def all_cases() -> list[Case]:
    """The cases in the order of the report."""
    torch.manual_seed(0)
    return [fashion_case(), images_case("conv16-conv32-fc64 (untrained)", TrialCnn()), encoder_case()]


def fashion_case() -> Case:
    """The shipped Fashion-MNIST classifier."""
    from safetensors.torch import load_file

    from examples.fashion_cnn.model import build

    module = build()
    module.load_state_dict(load_file(FASHION / "weights.safetensors"))
    return images_case("fashion-cnn (shipped)", module)


def images_case(name: str, module: nn.Module) -> Case:
    """A classifier of Fashion-MNIST images, calibrated on its training split."""
    return Case(
        name=name,
        module=module.eval(),
        signature=IMAGES,
        calibration=image_batches("calibration.npz", 400),
        suite=(suite := image_batches("suite.npz", IMAGE_SAMPLES)),
        timed={"image": suite[0]["image"][:BATCH]},
        agreement=same_class,
        transformer=False,
        recipe=Recipe("uint8-asymmetric"),
    )


def encoder_case() -> Case:
    """The encoder with outlier channels, on sentences of 32 to 96 tokens; timed at 8 x 64."""
    ids = encoder.sentences(8, 8, seed=3)[0]["input_ids"]
    shape = (8, 64)
    timed = {"input_ids": np.resize(ids[ids > 0], shape), "attention_mask": np.ones(shape, np.int64)}
    return Case(
        name="encoder 4 x 256, dynamic length",
        module=encoder.build(),
        signature=encoder.SIGNATURE,
        calibration=encoder.sentences(128, 8, seed=1),
        suite=encoder.sentences(SENTENCES, 8, seed=2),
        timed=timed,
        agreement=encoder.cosines,
        transformer=True,
        recipe=Recipe("uint8-asymmetric", smoothing=0.75),
    )


def image_batches(file: str, count: int) -> list[Batch]:
    """The first images of a file of the shipped example, preprocessed as it says, in batches of 50."""
    from examples.fashion_cnn.processing import preprocess

    with np.load(FASHION / file) as arrays:
        images = preprocess({"image": arrays["image"][:count]})["image"]
    return [{"image": images[start : start + 50]} for start in range(0, len(images), 50)]


def same_class(found: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> np.ndarray:
    """1 for each sample with float's class, else 0."""
    same: np.ndarray = np.concatenate(found).argmax(1) == np.concatenate(reference).argmax(1)
    return same.astype(np.float64)
