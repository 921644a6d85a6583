"""Plots as inline SVG: geometry only, every figure comes from the facts.

Drawn by hand rather than by a plotting library: text stays text, colours are the page's own variables (so that dark mode
and print work), the bytes depend on nothing but the facts. Every plot has a title and a description for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from parity.dossier import figures
from parity.dossier.document import FindingFact
from parity.dossier.evidence import Tensor
from parity.dossier.pair import Shift, Shown, SliceFact

WIDE, HIGH = 400, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 40
LEAST_GAP = 12
"""Between two labels of an axis."""
MOST_USED = 1.5
"""Where the bar of a limit's allowance ends: half again what is allowed."""


def svg(name: str, title: str, text: str, size: tuple[int, int], parts: Iterable[str]) -> str:
    """An image that says what it shows; `name` makes its ids unique on a page."""
    width, height = size
    return (
        f'<svg role="img" aria-labelledby="{name}-t {name}-d" viewBox="0 0 {width} {height}" class="plot">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(text)}</desc>{"".join(parts)}</svg>'
    )


def used(found: FindingFact) -> str:
    """A bar of how much of a limit's allowance is used up: the tick is all of it. The cell beside it says it in words."""
    if found.used is None:
        return ""
    end = min(found.used, MOST_USED) / MOST_USED * 96
    tick = 96 / MOST_USED
    colour = "c-no" if found.used > 1 else "c-candidate"
    return (
        '<svg class="bar" viewBox="0 0 100 12" aria-hidden="true">'
        f'<rect class="track" x="0" y="3" width="96" height="6" rx="3"/>'
        f'<rect class="{colour}" x="0" y="3" width="{end:.1f}" height="6" rx="3"/>'
        f'<line class="tick" x1="{tick:.1f}" x2="{tick:.1f}" y1="0" y2="12"/></svg>'
    )


def slice_bar(part: SliceFact, least: float, limit: float | None) -> str:
    """One slice's agreement with its interval on an axis from `least` to 1; the figures stand beside it."""

    def at(value: float) -> float:
        return 4 + 152 * (min(max(value, least), 1.0) - least) / max(1 - least, 1e-9)

    tick = "" if limit is None else f'<line class="tick" x1="{at(limit):.1f}" x2="{at(limit):.1f}" y1="0" y2="16"/>'
    return (
        '<svg class="slice" viewBox="0 0 160 16" aria-hidden="true"><line class="track-line" x1="4" x2="156" y1="8" y2="8"/>'
        f'{tick}<line class="whisker" x1="{at(part.low):.1f}" x2="{at(part.high):.1f}" y1="8" y2="8"/>'
        f'<circle class="c-candidate" cx="{at(part.value):.1f}" cy="8" r="4"/></svg>'
    )


def wave(shown: Shown, name: str) -> str:
    """A frame of sound within its stream; the frame itself is marked."""
    middle, count = 40, max(len(shown.wave) - 1, 1)
    x = [300 * i / count for i in range(len(shown.wave))]
    upper = [f"{x[i]:.1f},{middle - 38 * high:.1f}" for i, (_, high) in enumerate(shown.wave)]
    lower = [f"{x[i]:.1f},{middle - 38 * low:.1f}" for i, (low, _) in enumerate(shown.wave)]
    first, last = (300 * edge for edge in shown.marked)
    parts = [
        f'<rect class="marked" x="{first:.1f}" y="0" width="{last - first:.1f}" height="80"/>',
        f'<polygon class="wave" points="{" ".join([*upper, *reversed(lower)])}"/>',
    ]
    return svg(name, f"Waveform of {shown.name}", f"{shown.note}; the judged frame is marked", (300, 80), parts)


def histogram(name: str, shift: Shift, reference: str, candidate: str) -> str:
    """Rows by confidence, score or error: both sides as outlines, the rows that differ as filled bars; root scale."""
    most = max((c for series in shift.series for c in series.counts), default=1) or 1
    low, high = shift.edges[0], shift.edges[-1]

    def x(value: float) -> float:
        return LEFT + (WIDE - LEFT - RIGHT) * (value - low) / (high - low)

    def y(count: float) -> float:
        return HIGH - BOTTOM - (HIGH - BOTTOM - TOP) * math.sqrt(count / most)

    parts = [_count_tick(value, y(value)) for value in _apart(_tens(most), y)]
    for i, count in enumerate(shift.flips):
        if count:
            width = x(shift.edges[i + 1]) - x(shift.edges[i]) - 1
            box = f'x="{x(shift.edges[i]) + 0.5:.1f}" y="{y(count):.1f}" width="{width:.1f}"'
            parts.append(f'<rect class="c-flip" {box} height="{y(0) - y(count):.1f}"/>')
    for series, kind in zip(shift.series, ("reference", "candidate"), strict=False):
        parts.append(f'<path class="line l-{kind}" d="{_outline(shift.edges, series.counts, x, y)}"/>')
    if shift.mark is not None and low <= shift.mark <= high:
        at = x(shift.mark)
        parts.append(f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{y(0):.1f}"/>')
        parts.append(_label(min(max(at, LEFT + 40), WIDE - 50), TOP - 4, f"limit {shift.mark:g}"))
    parts += [_label(x(v), HIGH - BOTTOM + 14, figures.number(v)) for v in _ticks(low, high)]
    parts.append(_label((LEFT + WIDE - RIGHT) / 2, HIGH - 6, shift.name))
    differ = sum(shift.flips)
    text = (
        f"{shift.name} of {reference} and {candidate} over {sum(shift.series[0].counts):,} rows; {differ:,} rows differ. "
        f"Half of the rows move by at most {figures.number(shift.median)}, the largest move is {figures.number(shift.largest)}."
    )
    return svg(name, f"How {shift.name} is spread", text, (WIDE, HIGH), parts)


def depth(name: str, tensors: Sequence[Tensor]) -> str:
    """Signal over noise of every tensor from the input to the output: where the error comes in, and where it grows."""
    known = [(i, t.sqnr_db) for i, t in enumerate(tensors) if t.sqnr_db is not None and math.isfinite(t.sqnr_db)]
    if not known:
        return ""
    high, low = max(1.0, *(v for _, v in known)), min(0.0, *(v for _, v in known))
    last = max(len(tensors) - 1, 1)

    def x(i: int) -> float:
        return LEFT + (WIDE - LEFT - RIGHT) * i / last

    def y(value: float) -> float:
        return HIGH - BOTTOM - (HIGH - BOTTOM - TOP) * (value - low) / ((high - low) or 1)

    worst = min(known, key=lambda pair: pair[1])
    parts = [_count_tick(round(v), y(v)) for v in _ticks(low, high)]
    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in known)
    parts.append(f'<polyline class="line l-candidate" points="{points}"/>')
    parts += [
        f'<circle class="{"c-flip" if i == worst[0] else "c-candidate"}" cx="{x(i):.1f}" cy="{y(v):.1f}" r="3"/>'
        for i, v in known
    ]
    parts.append(_label((LEFT + WIDE - RIGHT) / 2, HIGH - 8, f"input → output, {len(tensors)} tensors; SQNR in dB"))
    text = f"Lowest at {tensors[worst[0]].module}: {worst[1]:.1f} dB; highest {high:.1f} dB."
    return svg(name, "Error against depth", text, (WIDE, HIGH), parts)


def _outline(
    edges: Sequence[float], counts: Sequence[int], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    steps = [f"M{x(edges[0]):.1f},{y(0):.1f}"]
    for i, count in enumerate(counts):
        steps.append(f"V{y(count):.1f}H{x(edges[i + 1]):.1f}")
    return "".join(steps) + f"V{y(0):.1f}"


def _tens(most: int) -> list[int]:
    """0, 1, 10, 100 … up to the largest count."""
    return [0, *(10**k for k in range(len(str(most))))]


def _apart(values: Sequence[int], y: Callable[[float], float]) -> list[int]:
    """Those that can be read without touching the one below."""
    found: list[int] = []
    for value in values:
        if not found or y(found[-1]) - y(value) >= LEAST_GAP:
            found.append(value)
    return found


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within the range (steps of 1, 2 or 5 times a power of ten)."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _count_tick(value: int, at: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{value:,}</text>'
    )


def _label(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'
