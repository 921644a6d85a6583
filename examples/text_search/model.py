"""A small text encoder: `input_ids` and `attention_mask` int64 [batch, sequence] → `embedding` float32 [batch, 128]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, LONGEST = 1_800, 48
LAYERS, HIDDEN, HEADS = 2, 128, 4
OUTLIER_CHANNELS, OUTLIER_GAINS = (7, 31, 64, 100), (20.0, 14.0, 12.0, 10.0)
"""Large encoders grow a few channels that every LayerNorm amplifies, always the same ones (Kovaleva et al. 2021, "BERT
Busters"; Bondarenko et al. 2021); one as small as this does not, so its training starts from them."""


class Size(NamedTuple):
    """How large an encoder is; as it stands, the shipped one."""

    layers: int = LAYERS
    hidden: int = HIDDEN
    heads: int = HEADS
    vocabulary: int = VOCABULARY
    longest: int = LONGEST


class Attention(nn.Module):
    """Multi-head self-attention over the words that the mask keeps."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.query = nn.Linear(size.hidden, size.hidden)
        self.key = nn.Linear(size.hidden, size.hidden)
        self.value = nn.Linear(size.hidden, size.hidden)
        self.output = nn.Linear(size.hidden, size.hidden)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        batch, length, _ = states.shape
        heads = (batch, length, self.size.heads, self.size.hidden // self.size.heads)
        query, key, value = (layer(states).view(heads).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        result: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, self.size.hidden))
        return result


class Block(nn.Module):
    """Attention and feed-forward, each added to its input and then normed, as in BERT."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention = Attention(size)
        self.attention_norm = nn.LayerNorm(size.hidden)
        self.widen = nn.Linear(size.hidden, 4 * size.hidden)
        self.narrow = nn.Linear(4 * size.hidden, size.hidden)
        self.norm = nn.LayerNorm(size.hidden)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        states = self.attention_norm(states + self.attention(states, bias))
        result: Tensor = self.norm(states + self.narrow(functional.gelu(self.widen(states))))
        return result


class TextEncoder(nn.Module):
    """Word and position embeddings, blocks, the mean over the mask, unit length; 633,344 parameters as shipped."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.words = nn.Embedding(size.vocabulary, size.hidden)
        self.positions = nn.Embedding(size.longest, size.hidden)
        self.norm = nn.LayerNorm(size.hidden)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1])
        states = self.norm(self.words(input_ids) + self.positions(positions))
        kept = attention_mask.to(states.dtype)
        bias = (1.0 - kept)[:, None, None, :] * -1e4
        for block in self.blocks:
            states = block(states, bias)
        pooled = (states * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        return functional.normalize(pooled, dim=-1)


def build() -> nn.Module:
    """The untrained network; its weights are in `weights.safetensors`."""
    return TextEncoder(Size())


def grow_outliers(encoder: nn.Module) -> None:
    """The gains that training starts from: near one, but for the outlier channels of every norm before the last."""
    norms = [module for module in encoder.modules() if isinstance(module, nn.LayerNorm)]
    with torch.no_grad():
        for norm in norms[:-1]:
            norm.weight[list(OUTLIER_CHANNELS)] = torch.tensor(OUTLIER_GAINS)
