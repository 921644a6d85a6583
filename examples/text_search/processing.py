"""From word numbers as stored to what the network takes. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def preprocess(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`words` uint16 [n, 48], 0 behind the last word → `input_ids` and `attention_mask`, int64 [n, 48]."""
    ids = batch["words"].astype(np.int64)
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}
