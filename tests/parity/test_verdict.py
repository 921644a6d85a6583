"""The only place where a number meets a limit: its boundaries, its NaNs, and what no input may reach."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.verdict import Finding, Measured, Sense, Status, decide, overall

NUMBER = st.floats(allow_nan=False)
SENSE: st.SearchStrategy[Sense] = st.sampled_from(["at_least", "at_most"])
SENSES: tuple[Sense, ...] = ("at_least", "at_most")


@st.composite
def intervals(draw: st.DrawFn) -> Measured:
    low, value, high = sorted(draw(st.tuples(NUMBER, NUMBER, NUMBER)))
    return Measured(value, low, high, draw(st.integers(1, 10_000)))


@pytest.mark.parametrize("sense", SENSES)
@pytest.mark.parametrize("where", range(4))
def test_nan_anywhere_fails(where: int, sense: Sense) -> None:
    numbers = [0.5, 0.5, 0.5, 0.5]
    assert decide(Measured(*numbers[:3], 10), sense, numbers[3]) is Status.PASS
    numbers[where] = math.nan
    assert decide(Measured(*numbers[:3], 10), sense, numbers[3]) is Status.FAIL


@pytest.mark.parametrize("sense", SENSES)
@pytest.mark.parametrize("n", [0, -1])
def test_a_measurement_on_no_rows_fails(n: int, sense: Sense) -> None:
    assert decide(Measured(1, 1, 1, n), sense, 1) is Status.FAIL


@pytest.mark.parametrize(
    ("low", "high", "sense", "wanted"),
    [
        (0.98, 0.99, "at_least", Status.PASS),
        (math.nextafter(0.98, 0), 0.99, "at_least", Status.INCONCLUSIVE),
        (0.9, 0.98, "at_least", Status.INCONCLUSIVE),
        (0.9, math.nextafter(0.98, 0), "at_least", Status.FAIL),
        (0.9, 0.98, "at_most", Status.PASS),
        (0.9, math.nextafter(0.98, 1), "at_most", Status.INCONCLUSIVE),
        (0.98, 0.99, "at_most", Status.INCONCLUSIVE),
        (math.nextafter(0.98, 1), 0.99, "at_most", Status.FAIL),
        (-math.inf, math.inf, "at_most", Status.INCONCLUSIVE),
        (math.inf, math.inf, "at_least", Status.PASS),
        (math.inf, math.inf, "at_most", Status.FAIL),
    ],
)
def test_the_limit_itself_is_on_the_good_side(low: float, high: float, sense: Sense, wanted: Status) -> None:
    """By hand, at the limit 0.98 and one float away from it."""
    assert decide(Measured(low, low, high, 10), sense, 0.98) is wanted


@given(NUMBER, NUMBER, SENSE)
def test_an_exact_measurement_is_never_inconclusive(value: float, limit: float, sense: Sense) -> None:
    holds = value >= limit if sense == "at_least" else value <= limit
    assert decide(Measured.exactly(value, 1), sense, limit) is (Status.PASS if holds else Status.FAIL)


@given(intervals(), NUMBER, SENSE, st.tuples(NUMBER, NUMBER))
def test_widening_an_interval_never_decides_otherwise(
    measured: Measured, limit: float, sense: Sense, wider: tuple[float, float]
) -> None:
    """It may lose a decision; it turns no FAIL into PASS, no PASS into FAIL, and decides nothing that was open."""
    before = decide(measured, sense, limit)
    low, high = min(measured.low, *wider), max(measured.high, *wider)
    after = decide(Measured(measured.value, low, high, measured.n), sense, limit)
    assert after in (before, Status.INCONCLUSIVE)


@given(intervals(), NUMBER, NUMBER, SENSE)
def test_pass_and_fail_are_never_both_reachable_under_stricter_limits(
    measured: Measured, one: float, other: float, sense: Sense
) -> None:
    """A stricter limit never turns FAIL into PASS."""
    loose, strict = sorted((one, other), reverse=sense == "at_most")
    order = [Status.FAIL, Status.INCONCLUSIVE, Status.PASS]
    assert order.index(decide(measured, sense, strict)) <= order.index(decide(measured, sense, loose))


@given(intervals(), NUMBER)
def test_the_two_senses_mirror_each_other(measured: Measured, limit: float) -> None:
    mirrored = Measured(-measured.value, -measured.high, -measured.low, measured.n)
    assert decide(measured, "at_least", limit) is decide(mirrored, "at_most", -limit)


def finding(status: Status) -> Finding:
    return Finding("agreement", "source", status, "at_least", 0.98, Measured.exactly(1, 1), "")


def test_no_finding_at_all_fails() -> None:
    assert overall([]) is Status.FAIL


def test_a_target_is_as_good_as_its_worst_finding() -> None:
    worst_first = [Status.FAIL, Status.INCONCLUSIVE, Status.PASS]
    for size in (1, 2, 3):
        for statuses in itertools.product(worst_first, repeat=size):
            wanted = next(s for s in worst_first if s in statuses)
            assert overall(finding(s) for s in statuses) is wanted
