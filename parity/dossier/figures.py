"""Figures as text, the same in every rendering."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from compile import percent
from parity.dossier import beside
from parity.dossier.document import FindingFact, LimitFact, Target
from parity.dossier.pair import SliceFact
from parity.verdict import LEAST_GROUPS, TOO_SMALL

UNKNOWN = percent.UNKNOWN
UNITS = {
    "share": " %",
    "points": " points",
    "relative": " %",
    "label": "",
    "plain": "",
    "dB": " dB",
    "ratio": " ×",
    "floors": " floors",
    "nats": " nats",
    "breaches": "",
}
EXACT = ("float_error", "sqnr_db", "cosine_minimum", "size_ratio", "quantized_share")
"""Metrics that are measured without an interval."""
PLAIN = {
    "schema": "every answer is there, in shape",
    "finite": "no NaN, no infinity",
    "not constant": "outputs move with their inputs",
    "steady": "the same rows get the same answers, again and alone",
    "limits": "a limit applies that answers of other rows would miss",
}


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
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def measured(found: FindingFact) -> str:
    """The value, and its bounds where it has any."""
    if math.isnan(found.value):
        return "not measured"
    if found.low == found.high or math.isnan(found.low) or math.isnan(found.high):
        return value(found)
    return f"{value(found)} ({beside.interval(found)})"


def value(found: FindingFact) -> str:
    """The value with its unit; of a relative margin that is what is left of it, but of right answers."""
    room = " of room" if found.kind == "relative_margin" and found.unit != "relative" else ""
    return f"{beside.value(found)}{UNITS[found.unit]}{room}"


def beside_float(target: Target) -> str:
    """Latency over that of the float twin with its bounds, as the limit on it is read where there is one."""
    limited = next((one for one in target.findings if one.of == "latency_ratio"), None)
    if limited is not None:
        return f"{beside.value(limited)} × ({beside.interval(limited)})"
    speed = target.speed
    return (
        UNKNOWN
        if speed is None
        else f"{number(speed.ratio)} × ({number(speed.ratio_low)} to {number(speed.ratio_high)})"
    )


def part(some: int | None, of: int | None) -> str:
    """So many of so many."""
    return UNKNOWN if some is None else f"{count(some)} of {count(of)}"


def decibels(value: float | None) -> str:
    return UNKNOWN if value is None else f"{number(value)} dB"


def span(low: float, high: float) -> str:
    """From the lower to the upper bound of a share, both rounded outwards."""
    return f"{percent.at_least(low).removesuffix(' %')} to {percent.at_most(high)}"


def limit(found: FindingFact) -> str:
    """What the policy asks for, in the words of whoever has to live with it."""
    worse = "more" if found.of in beside.ERRORS else "lost"
    if found.kind == "relative_margin":
        return f"at most {number((found.bound or 0.0) * 100)} % {worse}"
    if found.unit in beside.SIGNED and found.sense == "at_least":
        most = number(-found.limit * beside.SCALES.get(found.unit, 1.0))
        return f"at most {most}{UNITS[found.unit].removesuffix('s' if most == '1' else '')} {worse}"
    return f"{found.sense.replace('_', ' ')} {found.limit * beside.SCALES.get(found.unit, 1.0):.6g}{UNITS[found.unit]}"


def metric(found: FindingFact) -> str:
    """A finding's name for a person who did not write the policy."""
    if found.unit == "breaches":
        return f"{found.metric}: {PLAIN.get(found.metric, 'a law')}"
    name = found.metric.removesuffix(" in dB").removesuffix(" in floors")
    return f"share of correct answers{name.removeprefix('correct')}" if found.of == "correct" else name


def laws(target: Target) -> str | None:
    """The laws in one line where all of them hold; None where one does not, and each needs its own."""
    found = [one for one in target.findings if one.unit == "breaches"]
    if not found or any(one.status != "PASS" for one in found):
        return None
    return "; ".join(PLAIN.get(one.metric, one.metric) for one in found)


def opposite(against: str, baseline: str | None) -> str:
    """What a finding compares with."""
    return {"source": "the source", "float": "its float twin", "baseline": baseline or "cloud baseline"}.get(
        against, against
    )


def said(found: FindingFact, sides: Sequence[str]) -> str:
    """A finding in a sentence's worth of words, against these sides."""
    if found.unit == "breaches":
        return found.sentence
    against = f"{metric(found)} against {' and '.join(sides)}"
    if math.isnan(found.value):
        return f"{against} could not be measured; {limit(found)} is asked"
    return f"{against} is {measured(found)}; {limit(found)} is asked"


def would_decide(found: FindingFact) -> str:
    """What would decide a limit that is open, and which way it would decide; nothing where nothing was measured."""
    if math.isnan(found.value) or not found.n:
        return ""
    if found.against == "float":
        return "measuring again on a quiet machine may decide"
    if found.of == "worst_slice" and found.metric.endswith(TOO_SMALL):
        return "more rows of each kind would decide, or other columns in `by`, or a lower `smallest`"
    if found.groups is not None and found.groups < LEAST_GROUPS:
        return f"so few groups give no interval: {LEAST_GROUPS} at least would"
    if found.low == -math.inf and found.of == "worst_slice":
        return "more rows of each kind would decide, or other columns in `by`, or a lower `smallest`"
    if found.needed is None:
        return "no number of rows at these rates would decide"
    holds = found.value >= found.limit if found.sense == "at_least" else found.value <= found.limit
    rows = f"{count(found.needed)} fresh rows{' of that slice' if found.of == 'worst_slice' else ''}"
    if found.groups is not None:
        rows = f"{count(math.ceil(found.groups * found.needed / found.n))} fresh groups ({count(found.needed)} rows)"
    return f"at these rates about {rows} would show that it {'holds' if holds else 'is missed'}"


def telling_nothing(limits: Iterable[tuple[str, str, float]]) -> list[str]:
    """What a policy's owner is told of limits (metric, kind, bound) that answers of other rows would keep as well, each once."""
    spelled = dict.fromkeys(f"{metric} {kind.replace('_', ' ')} {bound:g}" for metric, kind, bound in limits)
    return [
        f"The policy's limit `{one}` tells nothing here: answers of other rows would keep it too." for one in spelled
    ]


def agreeing(value: float, low: float) -> str:
    """A share of agreement and its bound; without one where rows are too few to have any."""
    return f"{percent.share(value)} ({bounded_below(low)})"


def bounded_below(low: float) -> str:
    """The least a share can be, in words where nothing is known of it."""
    return f"≥ {percent.at_least(low)}" if low > 0 else "no bound"


def policy_limit(one: LimitFact) -> str:
    """A limit's bound as the policy writes it."""
    words = {"at_least": "at least", "at_most": "at most", "margin": "margin", "relative_margin": "relative margin"}
    sure = "" if one.metric in EXACT else f", {percent.whole(one.confidence)} confidence"
    return f"{words[one.kind]} {one.bound:g}{sure}"


def taken(used: float) -> str:
    """The share of an allowance that is taken up, which may well be more than all of it."""
    if used < 10:
        return "under 1 %" if 0 < used < 0.005 else percent.whole(used)
    return f"{used:.0f} times" if used < 100 else "over 100 times" if math.isfinite(used) else "far beyond"


def signed(z: float | None) -> str:
    return UNKNOWN if z is None else f"{z:+z.1f}".replace("-", "−")


def sure(value: float | None) -> str:
    """A confidence or a score, with four digits: where answers flip, two often read alike."""
    return UNKNOWN if value is None else f"{value:.4g}".replace("-", "−")


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
    return math.floor(min(max(part.low, 0.0) for part in slices) * 10) / 10
