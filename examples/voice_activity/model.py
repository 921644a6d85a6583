"""Silero VAD (16 kHz) as a plain module: how likely is speech in these 32 ms? Context and state go in and come out.

`audio` [batch, 512], `context` [batch, 64], `state` [2, batch, 128]
→ `probability` [batch, 1], `context_out` [batch, 64], `state_out` [2, batch, 128]; all float32.
A stream starts with context and state of zeros.
The network and its weights are Silero's (version 6.2.3, MIT: LICENSE-weights).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FRAME, CONTEXT, HIDDEN = 512, 64, 128
# The spectrum: 256-point windows, 128 apart, as a convolution whose 258 channels are 129 real and 129 imaginary parts.
WINDOW, HOP, BINS = 256, 128, 129


class VoiceActivity(nn.Module):
    """Spectrum – four convolutions – LSTM cell – one logit; 309,633 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, WINDOW, stride=HOP, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, HIDDEN, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(HIDDEN, HIDDEN)
        self.final_conv = nn.Conv1d(HIDDEN, 1, 1)

    def forward(self, audio: Tensor, context: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One frame of each stream: samples in -1…1, the 64 samples before them, and the cell's (h, c) stacked."""
        samples = torch.cat([context, audio], dim=1)
        features = self.magnitudes(samples)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = layer(features).relu()
        hidden, cell = self.lstm_cell(features.squeeze(-1), (state[0], state[1]))
        probability = self.final_conv(hidden.relu().unsqueeze(-1)).squeeze(-1).sigmoid()
        return probability, audio[:, -CONTEXT:], torch.stack([hidden, cell])

    def magnitudes(self, samples: Tensor) -> Tensor:
        """Magnitude spectrum [batch, 129, 4] of 576 samples, mirrored at the right end."""
        padded = functional.pad(samples.unsqueeze(1), (0, CONTEXT), mode="reflect")
        spectrum = self.stft_conv(padded)
        real, imaginary = spectrum[:, :BINS], spectrum[:, BINS:]
        magnitude: Tensor = (real * real + imaginary * imaginary).sqrt()
        return magnitude


def build() -> nn.Module:
    """The network without its weights; they are in `weights.safetensors`."""
    return VoiceActivity()
