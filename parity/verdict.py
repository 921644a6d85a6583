"""Where a number meets a limit: the only place that says PASS or FAIL.

PASS: the bound on the bad side of the measurement is still on the good side of the limit. FAIL: even the bound on
the good side is on the bad side. Else INCONCLUSIVE. A measurement without uncertainty has both bounds at its value.
What could not be measured, NaN above all, has not passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, assert_never


class Status(StrEnum):
    PASS = "PASS"  # not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    DEFERRED = "DEFERRED"


Sense = Literal["at_least", "at_most"]
LEAST_GROUPS = 20
"""Fewer independent groups give no interval."""
TOO_SMALL = "all of them too small"
"""How a finding on slices ends where no kind of a column has rows enough for one."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A value, its one-sided bounds, the rows it rests on, and the rows that would decide it.

    `groups`: how many independent groups those rows are, where they are grouped. `method`: how the bounds were had. `parts`:
    the slices that it was looked up in.
    """

    value: float
    low: float
    high: float
    n: int
    needed: int | None = None
    groups: int | None = None
    method: str = ""
    parts: tuple[Mapping[str, object], ...] = ()

    @classmethod
    def exactly(cls, value: float, n: int) -> Measured:
        return cls(value, value, value, n)


@dataclass(frozen=True, slots=True)
class Finding:
    """One limit met by one measurement. `metric` is what was measured, in words; `of` the policy's name of it, `by` the columns
    that it names, `kind` and `bound` what the policy asks of it. `tells`: False where the reference's own answers, each at another
    row, would keep it as well; None where that was not asked."""

    metric: str
    against: str
    status: Status
    sense: Sense
    limit: float
    measured: Measured
    sentence: str
    of: str = ""
    why: str = ""
    confidence: float | None = None
    by: tuple[str, ...] = ()
    kind: str = ""
    bound: float | None = None
    tells: bool | None = None


def decide(measured: Measured, sense: Sense, limit: float) -> Status:
    """The status of one measurement under one limit."""
    numbers = (measured.value, measured.low, measured.high, limit)
    if any(math.isnan(x) for x in numbers) or measured.n <= 0:
        return Status.FAIL
    match sense:
        case "at_least":
            good, possible = measured.low >= limit, measured.high >= limit
        case "at_most":
            good, possible = measured.high <= limit, measured.low <= limit
        case _:
            assert_never(sense)
    return Status.PASS if good else Status.INCONCLUSIVE if possible else Status.FAIL


def overall(findings: Iterable[Finding]) -> Status:
    """The status of a target: the worst of its findings. No finding at all is a FAIL: nothing was judged."""
    found = {finding.status for finding in findings}
    if Status.FAIL in found or not found:
        return Status.FAIL
    return Status.INCONCLUSIVE if Status.INCONCLUSIVE in found else Status.PASS
