"""The exit codes that CI acts on, and which one a run's outcomes give."""

from __future__ import annotations

from collections.abc import Iterable

from compile.errors import CONFIG, FAILED, PASSED, TOOLCHAIN, UNDECIDED
from parity.check import Outcome
from parity.policy import Policy

ORDER = (CONFIG, TOOLCHAIN, FAILED, UNDECIDED, PASSED)


def of_outcomes(outcomes: Iterable[Outcome], policy: Policy) -> int:
    """The first of 2, 3, 1, 4, 0 that a required target gives."""
    codes = {of_status(o.status, policy.allows_deferred(o.name)) for o in outcomes if o.use.required} | {PASSED}
    return next(code for code in ORDER if code in codes)


def of_status(status: str, deferral_allowed: bool) -> int:
    """The code of one target's status."""
    if status == "DEFERRED":
        return PASSED if deferral_allowed else UNDECIDED
    return {"PASS": PASSED, "BUILT": PASSED, "FAIL": FAILED, "ERROR": TOOLCHAIN, "INCONCLUSIVE": UNDECIDED}[status]
