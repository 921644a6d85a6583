"""Shares in per cent, the same in every message, table and page: a space before the sign, as SI has it.

Law: a share that is not exactly none or all never reads as 0 % or 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable

UNKNOWN = "–"
MOST_DECIMALS = 6


def share(value: float | None, decimals: int = 2) -> str:
    """With as many decimals as it takes to differ from none and from all."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞"
    if value in (0.0, 1.0):
        return f"{value * 100:.0f} %"
    for digits in range(decimals, MOST_DECIMALS + 1):
        text = f"{value * 100:.{digits}f}"
        if float(text) not in (0.0, 100.0):
            return f"{text} %"
    least = 10.0**-MOST_DECIMALS
    return f"under {least:f} %" if value < 0.5 else f"over {100 - least:f} %"


def at_most(value: float) -> str:
    """An upper bound of a share: rounded up, for rounded down it would claim more than was proved."""
    return _bound(value, math.ceil)


def at_least(value: float) -> str:
    """A lower bound of a share: rounded down."""
    return _bound(value, math.floor)


def whole(value: float) -> str:
    """A part of something that is itself an estimate, without decimals."""
    return f"{value * 100:.0f} %"


def _bound(value: float, rounded: Callable[[float], int]) -> str:
    if not math.isfinite(value):
        return share(value)
    for digits in range(2, MOST_DECIMALS + 1):
        text = f"{rounded(round(value * 100 * 10**digits, 6)) / 10**digits:.{digits}f}"
        if float(text) not in (0.0, 100.0):
            return f"{text} %"
    return share(value)
