"""The bars of the issue and which of them a contest clears. The only file of the bench where a number meets a limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.contest import FLOAT, NNCF, OURS, STATIC, STATIC_DEFAULT, Contest
from bench.measure import Estimate


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. `verdict`: met, missed, or undecided where the interval holds the limit."""

    case: str
    runtime: str
    what: str
    value: Estimate
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
        yield agreement(contest, STATIC, "mean cosine" if transformer else "top-1 agreement")
        return
    yield latency(contest, NNCF, 1.05 if transformer else 1.0)
    yield agreement(contest, NNCF, "mean cosine" if transformer else "top-1 agreement")
    if transformer:
        yield minimum(contest, NNCF)
        yield minimum_of_100(contest, NNCF)


def latency(contest: Contest, rival: str, limit: float) -> Row:
    """Ours over a rival's, against the most it may be."""
    ratio = contest.ratios[rival]
    verdict = "met" if ratio.high <= limit else "missed" if ratio.low > limit else "undecided"
    return Row(contest.case, contest.runtime, f"latency / {rival}", ratio, f"≤ {limit:.2f}", verdict)


def size(contest: Contest, limit: float) -> Row:
    """Our file over the float one; exact, so without an interval."""
    value = contest.standings[OURS].size_bytes / contest.standings[FLOAT].size_bytes
    verdict = "met" if value <= limit else "missed"
    return Row(contest.case, contest.runtime, "file / float", Estimate(value, value, value), f"≤ {limit:.2f}", verdict)


def agreement(contest: Contest, rival: str, what: str) -> Row:
    """Ours less a rival's over all samples: no worse."""
    return no_worse(contest, f"{what} less {rival}'s", contest.gains[rival])


def minimum_of_100(contest: Contest, rival: str) -> Row:
    """The minimum to expect of a hundred samples: no worse."""
    return no_worse(contest, f"minimum cosine of 100 less {rival}'s", contest.gains_of_100[rival])


def minimum(contest: Contest, rival: str) -> Row:
    """The one smallest cosine of the whole suite: no worse. It hangs on one sample and has no interval."""
    gain = contest.standings[OURS].minimum - contest.standings[rival].minimum
    return no_worse(contest, f"minimum cosine less {rival}'s", Estimate(gain, gain, gain))


def no_worse(contest: Contest, what: str, gain: Estimate) -> Row:
    """Met where we are not behind; undecided where we are, within the interval."""
    verdict = "met" if gain.value >= 0 else "missed" if gain.high < 0 else "undecided"
    return Row(contest.case, contest.runtime, what, gain, "≥ 0", verdict)
