"""Time and size of an integer artifact beside its float twin, as limits."""

from __future__ import annotations

import pytest

from parity.verdict import Status
from tests.parity.judged import Case, broken, integer, status


def test_an_integer_artifact_faster_than_float_passes(case: Case) -> None:
    assert status(integer(case, 0.5).examine()) is Status.PASS


def test_an_integer_artifact_slower_than_float_is_refused_with_the_figures(case: Case) -> None:
    findings = integer(case, 1.25).examine()
    assert status(findings) is Status.FAIL
    sentence = broken(findings)["latency ratio against float"]
    assert "1.25" in sentence
    assert "at most 1" in sentence


def test_an_integer_artifact_whose_speed_was_not_measured_beside_float_fails(case: Case) -> None:
    integer(case, 0.5).seconds.pop("float")
    findings = case.examine()
    assert list(broken(findings)) == ["latency ratio against float"]
    assert status(findings) is Status.FAIL


@pytest.mark.parametrize("bad", [float("nan"), 0.0])
def test_a_time_that_is_no_time_fails(case: Case, bad: float) -> None:
    integer(case, 0.5).seconds["float"][50] = bad
    assert list(broken(case.examine())) == ["latency ratio against float"]


def test_a_noisy_timing_is_inconclusive_and_says_to_measure_again(case: Case) -> None:
    integer(case, 1.0).seconds["artifact"] = [1e-3 * (1.2 if i % 2 else 0.8) for i in range(100)]
    findings = case.examine()
    assert status(findings) is Status.INCONCLUSIVE
    assert "measure again" in broken(findings)["latency ratio against float"]


def test_size_as_the_goal_lets_a_slower_artifact_pass(case: Case) -> None:
    integer(case, 1.25).goal = {"kind": "size", "why": "it must fit into 2 MB of flash"}
    findings = case.examine()
    assert status(findings) is Status.PASS
    assert "latency ratio" not in {f.metric for f in findings}


@pytest.mark.parametrize(("limit", "wanted"), [(0.25, Status.PASS), (0.24, Status.FAIL)])
def test_size_ratio_is_bytes_over_the_bytes_of_the_float_twin(case: Case, limit: float, wanted: Status) -> None:
    """1000 bytes beside 4000."""
    integer(case, 0.5).limits.append({"metric": "size_ratio", "at_most": limit, "why": "flash is what is short here"})
    assert status(case.examine()) is wanted


def test_a_size_that_has_nothing_to_be_compared_with_fails(case: Case) -> None:
    integer(case, 0.5).limits.append({"metric": "size_ratio", "at_most": 0.5, "why": "flash is what is short here"})
    del case.sizes["float"]
    assert list(broken(case.examine())) == ["size ratio against float"]
