"""An autoencoder that scores sensor rows: `features` [batch, 9] → `reconstruction` [batch, 9], `score` [batch, 1].

All float32. Rows come in as the sensors give them; centre and scale are buffers of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURES = 9
# Normalised readings are clipped here: raw ones reach 26,739, whose square does not fit in float16.
CLIP = 10.0


class SensorAutoencoder(nn.Module):
    """9 – 64 – 3 – 64 – 9; 1,676 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, FEATURES))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction in sensor units, and the mean squared error of the normalised, clipped row."""
        center, scale = self.get_buffer("center"), self.get_buffer("scale")
        normalised = ((features - center) / scale).clamp(-CLIP, CLIP)
        rebuilt: Tensor = self.decoder(self.encoder(normalised))
        error = rebuilt - normalised
        return rebuilt * scale + center, (error * error).mean(dim=1, keepdim=True)


def build() -> nn.Module:
    """The untrained network; its weights are in `weights.safetensors`."""
    return SensorAutoencoder()
