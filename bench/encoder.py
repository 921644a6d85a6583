"""A transformer encoder with the shape of BERT-mini and the outlier channels of a trained one.

`input_ids` and `attention_mask`, int64 [batch, sequence], come in; a sentence embedding, float32 [batch, 256], goes
out. Weights are seeded, not trained. What makes trained encoders hard to quantize is put in by hand: a few channels
of every LayerNorm have gains 10 to 20 times the others' (Kovaleva et al. 2021, "BERT Busters"; Bondarenko et al.
2021, "Understanding and Overcoming the Challenges of Efficient Transformer Quantization"), always the same channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from compile.signature import Axis, Signature
from compile.signature import Tensor as Slot
from examples.text_search.model import Size, TextEncoder

LAYERS, HIDDEN, HEADS, VOCABULARY, LONGEST = 4, 256, 4, 30_522, 512
"""BERT-mini (Turc et al. 2019) with the vocabulary and the longest sequence of BERT."""

OUTLIER_CHANNELS = (7, 61, 133, 200)
OUTLIER_GAINS = (20.0, 14.0, 12.0, 10.0)
SEED = 20_240

SIGNATURE = Signature(
    inputs=(
        Slot("input_ids", "int64", ("batch", "sequence")),
        Slot("attention_mask", "int64", ("batch", "sequence")),
    ),
    outputs=(Slot("embedding", "float32", ("batch", HIDDEN)),),
    axes={"batch": Axis(1, 8, 64), "sequence": Axis(2, 64, LONGEST)},
)


def build() -> nn.Module:
    """The seeded encoder with its outlier channels."""
    generator = torch.Generator().manual_seed(SEED)
    encoder = TextEncoder(Size(LAYERS, HIDDEN, HEADS, VOCABULARY, LONGEST)).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "norm" in name:
                continue
            spread = 0.02 if name.startswith(("words", "positions")) else parameter.shape[-1] ** -0.5
            parameter.normal_(0.0, 0.02 if name.endswith("bias") else spread, generator=generator)
        for module in encoder.modules():
            if isinstance(module, nn.LayerNorm):
                add_outliers(module, generator)
    return encoder


def add_outliers(norm: nn.LayerNorm, generator: torch.Generator) -> None:
    """Gains near one, but for a few channels that every norm amplifies."""
    norm.weight.normal_(1.0, 0.1, generator=generator)
    norm.bias.normal_(0.0, 0.1, generator=generator)
    norm.weight[list(OUTLIER_CHANNELS)] = torch.tensor(OUTLIER_GAINS)


def sentences(count: int, batch: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Batches of token ids with Zipf-distributed words and padding behind the shorter sentences."""
    random = np.random.default_rng(seed)
    batches = []
    for _ in range(count // batch):
        longest = int(random.integers(32, 97))
        lengths = np.maximum(random.integers(longest // 3, longest + 1, batch), 2)
        mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
        ids = np.minimum(random.zipf(1.3, (batch, longest)) + 999, VOCABULARY - 1).astype(np.int64)
        batches.append({"input_ids": ids * mask, "attention_mask": mask})
    return batches


def cosines(found: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> np.ndarray:
    """The cosine of each embedding with its reference."""
    left, right = np.concatenate(found), np.concatenate(reference)
    products = (left * right).sum(-1)
    cosine: np.ndarray = products / (np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1))
    return cosine
