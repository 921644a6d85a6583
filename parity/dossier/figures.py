"""Figures as text, the same in every rendering. Law: a share that is not exactly 0 or 1 never reads as 0 % or 100 %."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from parity.dossier.document import FindingFact, LimitFact, Target
from parity.dossier.pair import SliceFact

UNKNOWN = "–"
EXACT = ("float_error", "sqnr_db", "size_ratio")
"""Metrics that are measured without an interval."""
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


def at_most(value: float) -> str:
    """An upper bound of a share: rounded up, for rounded down it would claim more than was proved."""
    return _bound(value, math.ceil)


def at_least(value: float) -> str:
    """A lower bound of a share: rounded down."""
    return _bound(value, math.floor)


def _bound(value: float, rounded: Callable[[float], int]) -> str:
    if not math.isfinite(value):
        return share(value)
    for digits in (2, 3, 4, 6):
        text = f"{rounded(round(value * 100 * 10**digits, 6)) / 10**digits:.{digits}f}"
        if float(text) not in (0.0, 100.0):
            return f"{text} %"
    return share(value)


def number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    digits = 3 if abs(value) < 1 else 4
    return f"{value:.{digits}g}".replace("-", "−")


def sized(size_bytes: int | None) -> str:
    if size_bytes is None:
        return UNKNOWN
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 9.95e6 else f"{size_bytes / 1e3:,.0f} kB"


def seconds(value: float | None) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-4 else f"{value * 1e6:.3g} µs"


def count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def in_unit(value: float, unit: str) -> str:
    """One figure of a finding."""
    match unit:
        case "share":
            return share(value)
        case "points":
            return f"{_points(value)} points"
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
    if math.isnan(found.value):
        return "not measured"
    value = in_unit(found.value, found.unit)
    if found.low == found.high or math.isnan(found.low) or math.isnan(found.high):
        return value
    return f"{value} ({interval(found.low, found.high, found.unit)})"


def interval(low: float, high: float, unit: str) -> str:
    """From its lower to its upper bound, the unit once; shares are rounded outwards."""
    if unit == "share":
        return f"{at_least(low).removesuffix(' %')} to {at_most(high)}"
    text = _points if unit == "points" else number
    return f"{text(low)} to {text(high)}"


def _points(value: float) -> str:
    """A difference of shares in hundredths, with its sign."""
    return f"{value * 100:+.2f}".replace("-", "−") if math.isfinite(value) else number(value)


def limit(found: FindingFact) -> str:
    """What the policy asks for, in the words of whoever has to live with it."""
    if found.unit == "points":
        lost = number(-found.limit * 100)
        return f"at most {lost} point{'' if lost == '1' else 's'} lost"
    return f"{found.sense.replace('_', ' ')} {in_unit(found.limit, found.unit)}"


def metric(found: FindingFact) -> str:
    """A finding's name for a person who did not write the policy."""
    if found.unit == "breaches":
        return f"{found.metric}: {PLAIN.get(found.metric, 'a law')}"
    return found.metric.removesuffix(" in dB").removesuffix(" in floors")


def laws(target: Target) -> str | None:
    """The laws in one line where all of them hold; None where one does not, and each needs its own."""
    found = [one for one in target.findings if one.unit == "breaches"]
    if not found or any(one.status != "PASS" for one in found):
        return None
    return "; ".join(PLAIN.get(one.metric, one.metric) for one in found)


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
    return f"{metric(found)} against {found.against} is {measured(found)}; {limit(found)} is asked"


def brief(found: FindingFact) -> str:
    """A finding in a few words: what, how much, of what is asked."""
    return f"{metric(found)} against {found.against}, {in_unit(found.value, found.unit)} ({limit(found)})"


def policy_limit(one: LimitFact) -> str:
    """A limit's bound as the policy writes it."""
    words = {"at_least": "at least", "at_most": "at most", "margin": "margin", "relative_margin": "relative margin"}
    sure = "" if one.metric in EXACT else f", {one.confidence:.0%} confidence"
    return f"{words[one.kind]} {one.bound:g}{sure}"


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
