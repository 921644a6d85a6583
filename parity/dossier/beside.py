"""A measured figure as it stands beside its limit.

Law: it reads on the side of the limit on which it lies, and bounds are rounded away from the value: 97.996 % does not meet
98 %, and is not shown as 98.00 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from compile import percent
from parity.dossier.document import FindingFact
from parity.limit import KINDS

SCALES = {"share": 100.0, "points": 100.0, "relative": 100.0}
"""What a unit's figures are multiplied with to be read; 1 for the others."""
SIGNED = ("points", "relative", "label")
"""Units of figures that are what a candidate gained or lost, under a margin."""
FEWEST = {"share": 2, "points": 2, "relative": 2}
"""Decimals; of other units as many as make four digits."""
WHOLE = {"share": (0.0, 100.0), "plain": (1.0,)}
"""What a figure must not be rounded to."""
ERRORS = [metric for metric, kind in KINDS.items() if kind.errors]
MOST = percent.MOST_DECIMALS
Rounded = Callable[[float, int], float]


def value(found: FindingFact) -> str:
    """The value alone, to the nearest."""
    return _written(found, found.value, round)


def interval(found: FindingFact) -> str:
    """From its lower to its upper bound, the unit once; of one that is open the other alone."""
    unit = " %" if found.unit in ("share", "relative") else ""
    low, high = (found.high, found.low) if grown(found) else (found.low, found.high)
    if math.isinf(low) and math.isinf(high):
        return "no interval"
    if math.isinf(low) or math.isinf(high):
        return (
            f"at most {_written(found, high, _up)}{unit}"
            if math.isinf(low)
            else f"at least {_written(found, low, _down)}{unit}"
        )
    return f"{_written(found, low, _down)} to {_written(found, high, _up)}{unit}"


def grown(found: FindingFact) -> bool:
    """Whether it is read as how much more errors there are: judged, their sign is turned."""
    return found.kind == "margin" and found.of in ERRORS


def _read(found: FindingFact, figure: float) -> float:
    """A figure as it is read: of a ratio to the reference's what it is more or less than all of it."""
    return -figure if grown(found) else figure - 1 if found.unit == "relative" else figure


def _written(found: FindingFact, figure: float, rounded: Rounded) -> str:
    """With as many decimals as it takes to compare with the limit as the figure itself does; a share never as all or none, and
    a cosine or a correlation as 1 only within a millionth of it."""
    scale = SCALES.get(found.unit, 1.0)
    exact, limit = _read(found, figure) * scale, _read(found, found.limit) * scale
    if not math.isfinite(exact):
        return "∞" if exact > 0 else "−∞"
    if exact in WHOLE.get(found.unit, ()):
        return f"{exact:.0f}"
    for decimals in range(_fewest(found.unit, exact), MOST + 1):
        shown = rounded(exact, decimals)
        if _side(shown, limit) == _side(exact, limit) and shown not in WHOLE.get(found.unit, ()):
            break
    if found.unit == "share" and shown in WHOLE["share"]:
        return percent.share(figure).removesuffix(" %")
    sign = "+" if found.unit in SIGNED and found.sense == "at_least" else ""
    text = f"{shown:{sign}z,.{decimals}f}".replace("-", "−")
    return text if found.unit in FEWEST or "." not in text else text.rstrip("0").rstrip(".")


def _down(exact: float, decimals: int) -> float:
    return math.floor(round(exact * 10.0**decimals, 6)) / 10.0**decimals


def _up(exact: float, decimals: int) -> float:
    return -_down(-exact, decimals)


def _fewest(unit: str, exact: float) -> int:
    if unit in FEWEST:
        return FEWEST[unit]
    digits = 3 if abs(exact) < 1 else 4
    most = [_decimals(exact, digits)] + ([_decimals(1 - exact, 1)] if unit in WHOLE else [])
    return min(max(most), MOST)


def _decimals(exact: float, digits: int) -> int:
    """After how many decimals a number has so many digits."""
    return 0 if exact == 0 else max(digits - 1 - math.floor(math.log10(abs(exact))), 0)


def _side(figure: float, limit: float) -> int:
    """-1 below the limit, 0 on it, 1 above it; within a hundred-billionth it is on it."""
    return 0 if math.isclose(figure, limit, rel_tol=1e-11) else -1 if figure < limit else 1
