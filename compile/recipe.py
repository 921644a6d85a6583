"""What one quantization is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dialect = Literal["uint8-asymmetric", "int8-symmetric"]
Algorithm = Literal["minmax", "kl"]
Granularity = Literal["per_channel", "per_tensor"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The effective options of one quantization.

    `smoothing`: the share (0 to 1) of a Linear's outlier range that moves from its input into its weights; None for
    none (Xiao et al. 2023, SmoothQuant; their alpha). `granularity`: one scale for each output channel of the weights, or
    one for all of them. `keep_float`: shell patterns of module or node names.
    """

    dialect: Dialect
    algorithm: Algorithm = "minmax"
    smoothing: float | None = None
    embeddings: bool = True
    keep_float: tuple[str, ...] = ()
    granularity: Granularity = "per_channel"
