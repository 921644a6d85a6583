"""Figures as text: beside its limit a figure reads on the side on which it lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.dossier import figures
from parity.dossier.beside import interval, value
from tests.parity.dossier_facts import finding


@pytest.mark.parametrize(
    ("unit", "limit", "found", "text"),
    [
        ("share", 0.98, (0.99, 0.985, 0.995), "99.00 % (98.50 to 99.50 %)"),
        ("share", 0.98, (0.979962, 0.97, 0.979999), "97.996 % (97.00 to 97.9999 %)"),
        ("share", 0.00125, (0.0011, 0.001, 0.00124), "0.11 % (0.10 to 0.124 %)"),
        ("share", 0.99, (1 - 1e-12, 0.998, 1.0), "over 99.999999 % (99.80 to 100 %)"),
        ("points", -0.01, (-0.002, -0.010004, 0.0012), "−0.20 points (−1.01 to +0.12)"),
        ("points", -0.01, (-0.00001, -0.001, 0.001), "+0.00 points (−0.10 to +0.10)"),
        ("ratio", 1.0, (1.00004, 1.00001, 1.0004), "1.00004 × (1.00001 to 1.001)"),
        ("ratio", 1.0, (0.4876, 0.4871, 0.4882), "0.488 × (0.487 to 0.489)"),
        ("dB", 15, (14.9996, 14.9996, 14.9996), "14.9996 dB"),
        ("floors", 10, (1.2689, 1.2689, 1.2689), "1.269 floors"),
    ],
)
def test_a_figure_reads_on_the_side_of_its_limit_on_which_it_lies(
    unit: str, limit: float, found: tuple[float, float, float], text: str
) -> None:
    one = finding(unit=unit, limit=limit, **dict(zip(("value", "low", "high"), found, strict=True)))
    assert figures.measured(one) == text


@given(
    st.sampled_from([("share", 100.0), ("points", 100.0), ("ratio", 1.0)]),
    st.floats(0.001, 0.999),
    st.floats(0.001, 0.999),
    st.floats(0.001, 0.999),
)
def test_bounds_are_rounded_outwards_and_never_across_a_limit(
    unit: tuple[str, float], limit: float, low: float, high: float
) -> None:
    one = finding(unit=unit[0], limit=limit, value=low, low=low, high=high)
    shown = [float(text.strip(" %")) / unit[1] for text in interval(one).split(" to ")]
    assert shown[0] <= low * (1 + 1e-9)
    assert shown[1] >= high * (1 - 1e-9)
    for text, exact in ((shown[0], low), (shown[1], high), (float(value(one)) / unit[1], low)):
        if abs(exact - limit) > 1e-6:
            assert (text < limit) == (exact < limit)


@pytest.mark.parametrize(
    ("unit", "sense", "limit", "text"),
    [
        ("share", "at_least", 0.98, "at least 98 %"),
        ("share", "at_most", 0.00125, "at most 0.125 %"),
        ("points", "at_least", -0.015, "at most 1.5 points lost"),
        ("ratio", "at_most", 1.0, "at most 1 ×"),
    ],
)
def test_a_limit_reads_as_the_policy_wrote_it(unit: str, sense: str, limit: float, text: str) -> None:
    assert figures.limit(finding(unit=unit, sense=sense, limit=limit)) == text


def test_nothing_is_ever_less_than_nothing() -> None:
    assert figures.signed(-0.04) == "+0.0"
