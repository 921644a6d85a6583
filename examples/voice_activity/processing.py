"""From samples as stored to what the network takes, and from its answer to one probability a frame. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# Silero's own default: speech where the probability is at least this.
THRESHOLD = 0.5


def preprocess(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`audio` int16 [n, 512] → `audio` float32 [n, 512] in -1…1. Context and state are the network's own to carry."""
    return {"audio": batch["audio"].astype(np.float32) / np.float32(32768)}


def postprocess(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """`probability` float32 [n, 1] → probability of speech [n]; compare with THRESHOLD."""
    return outputs["probability"][:, 0]
