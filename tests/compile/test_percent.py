"""Shares in per cent: none and all are said of nothing else, bounds claim no more than was proved, one spelling everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compile import percent

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.99999, "99.999 %"),
        (0.00001, "0.001 %"),
        (0.9988, "99.88 %"),
        (1 - 1e-12, "over 99.999999 %"),
        (1e-12, "under 0.000001 %"),
        (float("nan"), "–"),
    ],
)
def test_a_share_that_is_not_all_never_reads_as_all(value: float, text: str) -> None:
    assert percent.share(value) == text


def test_bounds_are_rounded_away_from_what_was_measured() -> None:
    assert percent.at_most(0.000749) == "0.08 %"
    assert percent.at_least(0.99925) == "99.92 %"
    assert percent.at_most(0.5) == "50.00 %"
    assert percent.at_least(0.999999) == "99.99 %"


@pytest.mark.parametrize("package", ["compile", "parity", "registry"])
def test_no_message_spells_per_cent_in_another_way(package: str) -> None:
    """Python's `:.1%` writes no space before the sign."""
    bare = re.compile(r":[+.0-9,]*%\}")
    found = [path.name for path in (ROOT / package).rglob("*.py") if bare.search(path.read_text())]
    assert found == []
