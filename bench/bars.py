"""The bars of the issue and which of them a contest clears. The only file of the bench where a number meets a limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.contest import FLOAT, NNCF, OURS, STATIC, STATIC_DEFAULT, Contest
from bench.measure import Ratio


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. `verdict`: met, missed, or undecided where the interval holds the limit."""

    case: str
    runtime: str
    what: str
    value: Ratio
    limit: str
    verdict: str


def rows(contest: Contest) -> Iterator[Row]:
    """The bars that apply to a contest, judged."""
    transformer = contest.case.startswith("encoder")
    if contest.runtime == "ONNX Runtime":
        rival_limit, float_limit, size_limit = (1.0, 0.55, 0.35) if transformer else (0.90, 0.50, 0.30)
        for rival in (STATIC, STATIC_DEFAULT):
            yield latency(contest, rival, rival_limit)
        yield latency(contest, FLOAT, float_limit)
        yield size(contest, size_limit)
        if transformer:
            yield agreement(contest, STATIC, "agreement", "mean cosine", strictly=True)
        return
    yield latency(contest, NNCF, 1.05 if transformer else 1.0)
    yield agreement(contest, NNCF, "agreement", "mean cosine" if transformer else "top-1 agreement")
    if transformer:
        yield agreement(contest, NNCF, "worst", "minimum cosine")


def latency(contest: Contest, rival: str, limit: float) -> Row:
    """Ours over a rival's, against the most it may be."""
    ratio = contest.ratios[rival]
    verdict = "met" if ratio.high <= limit else "missed" if ratio.low > limit else "undecided"
    return Row(contest.case, contest.runtime, f"latency / {rival}", ratio, f"≤ {limit:.2f}", verdict)


def size(contest: Contest, limit: float) -> Row:
    """Our file over the float one; exact, so without an interval."""
    value = contest.standings[OURS].size_bytes / contest.standings[FLOAT].size_bytes
    verdict = "met" if value <= limit else "missed"
    return Row(contest.case, contest.runtime, "file / float", Ratio(value, value, value), f"≤ {limit:.2f}", verdict)


def agreement(contest: Contest, rival: str, field: str, what: str, *, strictly: bool = False) -> Row:
    """Ours against a rival's on the same suite; deterministic, so without an interval."""
    ours, theirs = (float(getattr(contest.standings[name], field)) for name in (OURS, rival))
    met = ours > theirs if strictly else ours >= theirs
    limit = f"{'>' if strictly else '≥'} {theirs:.4f} ({rival})"
    return Row(contest.case, contest.runtime, what, Ratio(ours, ours, ours), limit, "met" if met else "missed")
