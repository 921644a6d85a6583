"""How a target met its limits, in words: what is the same beside source and cloud once, and why a target does not pass.

Facts in, text out; pure. The rule: no limit that is missed or open goes unnamed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parity.dossier import figures
from parity.dossier.document import FindingFact, Target

WORDS = {"FAIL": "missed", "INCONCLUSIVE": "open"}
WORST_FIRST = ("FAIL", "INCONCLUSIVE", "PASS")
Limited = tuple[str | None, str, tuple[str, ...], str | None, float | None]


@dataclass(frozen=True, slots=True)
class Judged:
    """A limit with its finding, and every side against which the finding is the same to the figure."""

    found: FindingFact
    sides: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What was measured, what is asked and, of what is open, what would decide."""
        decides = figures.would_decide(self.found) if self.found.status == "INCONCLUSIVE" else ""
        return figures.said(self.found, self.sides) + (f"; {decides}" if decides else "")


def judged(target: Target) -> list[Judged]:
    """In the policy's order, each with all its sides."""
    found: dict[tuple[object, ...], list[FindingFact]] = {}
    for one in target.findings:
        key = (one.status, figures.said(one, ()), one.n, one.groups, one.needed, one.confidence, one.why)
        found.setdefault(key, []).append(one)
    return [
        Judged(alike[0], tuple(figures.opposite(one.against, target.baseline_used) for one in alike))
        for alike in found.values()
    ]


def missed(target: Target) -> list[Judged]:
    """Those that are missed or open."""
    return [one for one in judged(target) if one.found.status in WORDS]


def deciding(target: Target) -> Judged | None:
    """What gives a target its status: of several the one furthest beyond its limit, a broken law first."""
    found = [one for one in missed(target) if one.found.status == target.status]
    return max(found, key=_far_out, default=None)


def _far_out(one: Judged) -> tuple[int, float]:
    """Laws, then what was not measured, then by the allowance that is taken; last what has no bounds yet."""
    found = one.found
    if found.unit == "breaches" or math.isnan(found.value):
        return (2 if found.unit == "breaches" else 1), 0.0
    return 0, -1.0 if found.used is None else found.used


def reason(target: Target) -> str:
    """Why a target does not pass: its error, why it waits, or every limit that it does not meet."""
    first = deciding(target)
    others = [] if first is None else [one for one in missed(target) if one.found is not first.found]
    return " ".join([brief_reason(target), *_also(first, others)])


def brief_reason(target: Target) -> str:
    """The same with one limit alone: how many are not met, and the one furthest out."""
    first = deciding(target)
    if first is None:
        return (target.why or "nothing was judged").splitlines()[0].removesuffix("; the last lines:")
    if len(missed(target)) == 1:
        return f"{first.sentence}."
    return f"{_counted(target)}. Furthest out: {first.sentence}."


def limits(target: Target) -> dict[Limited, str]:
    """The policy's limits that bind it, each once with the worst status of its sides; the laws are none of them."""
    found: dict[Limited, str] = {}
    for one in target.findings:
        if one.unit != "breaches":
            name = "" if one.of == "worst_slice" else one.metric
            key = (one.of, name, one.by, one.kind, one.bound)
            found[key] = min(found.get(key, one.status), one.status, key=WORST_FIRST.index)
    return found


def nothing_to_explain(target: Target) -> bool:
    """Whether no answer differs and nothing is missed that answers could mend, or nothing was compared at all."""
    missed = any(one.status == "FAIL" and one.metric != "limits" for one in target.findings)
    return not missed and not any(pair.differ for pair in target.pairs) and (bool(target.pairs) or not target.findings)


def all_hold(target: Target) -> str:
    """Of a target that passes."""
    return f"All {len(limits(target))} limits hold, against every side that they bind."


def _counted(target: Target) -> str:
    """`2 of 9 limits are missed, 1 is open, a law is broken`."""
    statuses = list(limits(target).values())
    parts: list[str] = []
    for status, word in WORDS.items():
        count = statuses.count(status)
        of = "" if parts else f" of {len(statuses)} limits"
        parts += [f"{count}{of} {'is' if count == 1 else 'are'} {word}"] if count else []
    broken = sum(one.unit == "breaches" and one.status == "FAIL" for one in target.findings)
    return ", ".join([*parts, *([f"{broken} {'law is' if broken == 1 else 'laws are'} broken"] if broken else [])])


def _also(first: Judged | None, others: Sequence[Judged]) -> Iterator[str]:
    """The other limits by name: `Also missed: agreement, SQNR.` `Also open: correct.`"""
    for status, word in WORDS.items():
        names = dict.fromkeys(_named(one, first) for one in others if one.found.status == status)
        if names:
            yield f"Also {word}: {'; '.join(names)}."


def _named(one: Judged, first: Judged | None) -> str:
    """The metric, and its side where the metric alone was named before."""
    name = figures.metric(one.found)
    return f"{name} against {' and '.join(one.sides)}" if first and name == figures.metric(first.found) else name
