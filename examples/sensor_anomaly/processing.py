"""From what the network gives to the answer: one anomaly score a row. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# An anomaly is a score above it: the 99.5th percentile over 5,000 normal rows that make.py keeps aside for this alone.
THRESHOLD = 0.3955


def postprocess(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """`score` float32 [n, 1] → anomaly score [n], 0 for a row rebuilt exactly; compare with THRESHOLD."""
    return outputs["score"][:, 0]
