"""A small image classifier: `image` float32 [batch, 1, 28, 28] → `logits` float32 [batch, 10]."""

from __future__ import annotations

from torch import Tensor, nn


class FashionCnn(nn.Module):
    """conv32 – pool – conv64 – conv64 – pool – fc64, batch norm and ReLU behind each convolution; 257,322 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, kernel_size=3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(64 * 7 * 7, 64)
        self.classifier = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = self.pool(self.norm1(self.conv1(image)).relu())
        features = self.norm2(self.conv2(features)).relu()
        features = self.pool(self.norm3(self.conv3(features)).relu())
        logits: Tensor = self.classifier(self.hidden(features.flatten(1)).relu())
        return logits


def build() -> nn.Module:
    """The untrained network; its weights are in `weights.safetensors`."""
    return FashionCnn()
