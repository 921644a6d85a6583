"""How far apart two sides' numbers are, output by output, whatever they mean: summed up a batch at a time.

In: batches of outputs of reference and candidate. Out: signal, noise and the largest gap of every output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(slots=True)
class Levels:
    """Of float outputs the sums of r² and of (r - c)²; of all outputs the largest |r - c|: infinite for integers that differ.

    NaN stays: what is no number has no level.
    """

    rows: int = 0
    signal: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    gap: dict[str, float] = field(default_factory=dict)

    def see(self, reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
        """Take in one batch."""
        self.rows += len(next(iter(reference.values())))
        for name, one in reference.items():
            if name not in candidate:
                continue
            if one.dtype.kind != "f":
                self._widen(name, 0.0 if np.array_equal(one, candidate[name]) else np.inf)
                continue
            exact = one.astype(np.float64).ravel()
            apart = exact - candidate[name].ravel()
            self.signal[name] = self.signal.get(name, 0.0) + float(exact @ exact)
            self.noise[name] = self.noise.get(name, 0.0) + float(apart @ apart)
            self._widen(name, float(np.abs(apart).max(initial=0.0)))

    def _widen(self, name: str, gap: float) -> None:
        self.gap[name] = float(np.maximum(self.gap.get(name, 0.0), gap))  # keeps NaN, as max() does not

    def sqnr_db(self, name: str) -> float:
        """Signal to quantization noise: 10 log10(sum r² / sum (r - c)²)."""
        if self.noise[name] == 0:
            return float(np.inf)
        return 10 * float(np.log10(max(self.signal[name], np.finfo(float).tiny) / self.noise[name]))
