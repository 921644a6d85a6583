"""Figures as text, the same in every rendering. Law: a share that is not exactly 0 or 1 never reads as 0 % or 100 %."""

from __future__ import annotations

import math
from collections.abc import Sequence

from parity.dossier.document import FindingFact, LimitFact, SliceFact, Target

UNKNOWN = "–"
PLAIN = {
    "schema": "every answer is there, in shape",
    "finite": "no NaN, no infinity",
    "not constant": "outputs move with their inputs",
    "limits": "at least one limit applies",
}


def share(value: float | None) -> str:
    """A share in per cent, with as many decimals as it takes to differ from none and from all."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞"
    for digits in (2, 3, 4, 6):
        text = f"{value * 100:.{digits}f}"
        if (float(text) not in (0.0, 100.0)) or value in (0.0, 1.0):
            break
    return f"{text.rstrip('0').rstrip('.') if value in (0.0, 1.0) else text} %"


def number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.4g}".replace("-", "−")


def sized(size_bytes: int | None) -> str:
    if size_bytes is None:
        return UNKNOWN
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 9.95e6 else f"{size_bytes / 1e3:,.0f} kB"


def seconds(value: float | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def in_unit(value: float, unit: str) -> str:
    """One figure of a finding."""
    match unit:
        case "share":
            return share(value)
        case "points":
            return f"{number(value * 100)} points" if not math.isnan(value) else UNKNOWN
        case "dB":
            return f"{number(value)} dB"
        case "ratio":
            return f"{number(value)} ×"
        case "floors":
            return f"{number(value)} floors"
        case _:
            return number(value)


def measured(found: FindingFact) -> str:
    """The value, and its bounds where it has any."""
    value = in_unit(found.value, found.unit)
    if found.low == found.high or math.isnan(found.low) or math.isnan(found.high):
        return value
    return f"{value} ({in_unit(found.low, found.unit)} to {in_unit(found.high, found.unit)})"


def limit(found: FindingFact) -> str:
    return f"{found.sense.replace('_', ' ')} {in_unit(found.limit, found.unit)}"


def metric(found: FindingFact) -> str:
    """A finding's name for a person who did not write the policy."""
    if found.unit == "breaches":
        return f"{found.metric}: {PLAIN.get(found.metric, 'a law')}"
    return found.metric


def opposite(against: str, baseline: str | None) -> str:
    """What a finding compares with."""
    return {"source": "source model", "float": "its float twin", "baseline": baseline or "cloud baseline"}.get(
        against, against
    )


def said(found: FindingFact) -> str:
    """A finding in a sentence's worth of words."""
    if found.unit == "breaches":
        return found.sentence
    if math.isnan(found.value):
        return f"{found.metric} against {found.against} could not be measured; {limit(found)} is asked"
    return f"{found.metric} against {found.against} is {measured(found)}; {limit(found)} is asked"


def policy_limit(one: LimitFact) -> str:
    """A limit's bound as the policy writes it."""
    words = {"at_least": "at least", "at_most": "at most", "margin": "margin", "relative_margin": "relative margin"}
    return f"{words[one.kind]} {one.bound:g}, {one.confidence:.0%} confidence"


def percent(used: float) -> str:
    """The share of an allowance, which may well be more than all of it."""
    return f"{used:.0%}" if used < 100 else "over 100 times" if math.isfinite(used) else "far beyond"


def signed(z: float | None) -> str:
    return UNKNOWN if z is None else f"{z:+.1f}".replace("-", "−")


def sure(value: float | None) -> str:
    """A confidence or a score, with four digits: where answers flip, two often read alike."""
    return UNKNOWN if value is None else f"{value:.4g}".replace("-", "−")


def yes_no(value: bool | None) -> str:
    return UNKNOWN if value is None else "yes" if value else "no"


def verdict_by_label(right: tuple[bool, bool]) -> str:
    """What the label says of a changed answer; `right` is of reference and candidate."""
    return {(True, False): "got worse", (False, True): "got better", (False, False): "wrong before and after"}.get(
        right, "right before and after"
    )


def slice_limit(target: Target, against: str) -> float | None:
    """The limit that slices are held to, where the policy has one."""
    return next((f.limit for f in target.findings if f.against == against and "slice" in f.metric), None)


def least(slices: Sequence[SliceFact]) -> float:
    """Where the axis of a plot of slices begins: at the lowest bound, on a round 10 %."""
    return max(0.0, math.floor(min(part.low for part in slices) * 10) / 10)
