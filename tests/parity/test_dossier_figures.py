"""Figures as text: beside its limit a figure reads on the side on which it lies."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.dossier import figures, plots
from parity.dossier.beside import interval, value
from parity.dossier.document import FindingFact
from parity.dossier.pair import SliceFact
from parity.dossier.reading import findings
from parity.judge import behind
from parity.limit import KINDS, Limit
from parity.policy import Policy
from parity.verdict import Finding, Measured, Status
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
        ("plain", 0.99, (0.99996, 0.99994, 0.999975), "0.99996 (0.99994 to 0.99998)"),
        ("plain", 0.99, (1.0, 0.9999, 1.0), "1 (0.9999 to 1)"),
        ("plain", 0.1, (1.0003, 0.9, 1.2), "1.0003 (0.9 to 1.2)"),
        ("dB", 15, (14.9996, 14.9996, 14.9996), "14.9996 dB"),
        ("floors", 10, (1.2689, 1.2689, 1.2689), "1.269 floors"),
    ],
)
def test_a_figure_reads_on_the_side_of_its_limit_on_which_it_lies(
    unit: str, limit: float, found: tuple[float, float, float], text: str
) -> None:
    one = finding(unit=unit, limit=limit, **dict(zip(("value", "low", "high"), found, strict=True)))
    assert figures.measured(one) == text


def test_slices_without_an_interval_are_drawn_from_nothing_to_all() -> None:
    """Fewer groups than an interval needs: no plot, and no page, may fail for that."""
    open_ended = SliceFact(name="a = 1", n=10, differ=0, value=1.0, low=-math.inf, high=math.inf)
    assert figures.least([open_ended]) == 0.0
    assert "inf" not in plots.slice_bar(open_ended, 0.0, 0.9)


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


UNITS: dict[str, tuple[dict[str, float], tuple[float, float, float], str, str]] = {
    "float_error": ({"at_most": 10}, (4, 4, 4), "4 floors", "at most 10 floors"),
    "sqnr_db": ({"at_least": 15}, (20, 20, 20), "20 dB", "at least 15 dB"),
    "agreement": ({"at_least": 0.98}, (0.99, 0.985, 0.995), "99.00 % (98.50 to 99.50 %)", "at least 98 %"),
    "worst_slice": ({"at_least": 0.9}, (0.95, 0.92, 0.97), "95.00 % (92.00 to 97.00 %)", "at least 90 %"),
    "correct": ({"margin": 0.01}, (-0.002, -0.004, 0), "−0.20 points (−0.40 to +0.00)", "at most 1 point lost"),
    "macro_f1": ({"margin": 0.02}, (-0.002, -0.004, 0), "−0.20 points (−0.40 to +0.00)", "at most 2 points lost"),
    "f1": ({"margin": 0.02}, (-0.002, -0.004, 0), "−0.20 points (−0.40 to +0.00)", "at most 2 points lost"),
    "auc": ({"margin": 0.02}, (-0.002, -0.004, 0), "−0.20 points (−0.40 to +0.00)", "at most 2 points lost"),
    "character_errors": (
        {"margin": 0.01},
        (-0.002, -0.004, 0),
        "+0.20 points (+0.00 to +0.40)",
        "at most 1 point more",
    ),
    "word_errors": ({"margin": 0.01}, (0.002, 0, 0.004), "−0.20 points (−0.40 to +0.00)", "at most 1 point more"),
    "mean_error": ({"margin": 0.5}, (-0.12, -0.25, 0.01), "+0.12 (−0.01 to +0.25)", "at most 0.5 more"),
    "recall_at_k": ({"margin": 0.02}, (-0.002, -0.004, 0), "−0.20 points (−0.40 to +0.00)", "at most 2 points lost"),
    "mean_average_precision": (
        {"margin": 0.02},
        (-0.1, -0.2, 0),
        "−10.00 points (−20.00 to +0.00)",
        "at most 2 points lost",
    ),
    "kl": ({"at_most": 0.02}, (0.0123, 0.01, 0.015), "0.0123 nats (0.01 to 0.015)", "at most 0.02 nats"),
    "confidence_drift": ({"at_most": 0.02}, (0.0123, 0.01, 0.015), "0.0123 (0.01 to 0.015)", "at most 0.02"),
    "cosine_mean": ({"at_least": 0.99}, (0.995, 0.994, 0.996), "0.995 (0.994 to 0.996)", "at least 0.99"),
    "cosine_minimum": ({"at_least": 0.9}, (0.95, 0.95, 0.95), "0.95", "at least 0.9"),
    "rank_overlap": ({"at_least": 0.9}, (0.95, 0.92, 0.97), "95.00 % (92.00 to 97.00 %)", "at least 90 %"),
    "rank_correlation": ({"at_least": 0.99}, (0.995, 0.994, 0.996), "0.995 (0.994 to 0.996)", "at least 0.99"),
    "state_drift": ({"at_most": 0.02}, (0.0123, 0.01, 0.015), "0.0123 (0.01 to 0.015)", "at most 0.02"),
    "route_flips": ({"at_most": 0.02}, (0.01, 0.005, 0.015), "1.00 % (0.50 to 1.50 %)", "at most 2 %"),
    "escalation_change": ({"at_most": 0.02}, (0.01, 0.005, 0.015), "1.00 points (0.50 to 1.50)", "at most 2 points"),
    "kept_errors": ({"margin": 0.01}, (-0.002, -0.004, 0), "+0.20 points (+0.00 to +0.40)", "at most 1 point more"),
    "latency_ratio": ({"at_most": 1}, (0.5, 0.49, 0.51), "0.5 × (0.49 to 0.51)", "at most 1 ×"),
    "size_ratio": ({"at_most": 0.5}, (0.3, 0.3, 0.3), "0.3 ×", "at most 0.5 ×"),
    "quantized_share": ({"at_least": 0.9}, (0.95, 0.95, 0.95), "95.00 %", "at least 90 %"),
}
"""Of every metric a bound, a value with its bounds as judged, and how both read, by hand."""
RELATIVE = {
    "correct": ((0.995, 0.992, 1.001), "−0.50 % (−0.80 to +0.10 %)", "at most 1 % lost"),
    "macro_f1": ((0.006, 0.002, 0.009), "+0.60 points of room (+0.20 to +0.90)", "at most 1 % lost"),
    "word_errors": ((0.006, 0.002, 0.009), "+0.60 points of room (+0.20 to +0.90)", "at most 1 % more"),
    "mean_error": ((0.25, 0.125, 0.375), "+0.25 of room (+0.125 to +0.375)", "at most 1 % more"),
}


def told(metric: str, bound: dict[str, float], measured: tuple[float, float, float]) -> FindingFact:
    """The finding as the dossier reads it from a verdict."""
    limit = Limit(metric=metric, why="for a test", **bound)  # type: ignore[arg-type]
    figures_ = Measured(*measured, n=1000)
    one = Finding(metric, "source", Status.PASS, limit.sense, limit.threshold, figures_, "", *behind(limit))
    policy = Policy(limits=(Limit(metric="latency_ratio", at_most=1, why="for a test"),))
    return findings({"findings": [asdict(one)]}, policy, "int8")[0]


def test_the_table_of_units_is_whole() -> None:
    assert set(UNITS) == set(KINDS)


@pytest.mark.parametrize("metric", UNITS)
def test_every_metric_is_told_in_its_own_unit(metric: str) -> None:
    bound, measured, value_text, limit_text = UNITS[metric]
    one = told(metric, bound, measured)
    assert (figures.measured(one), figures.limit(one)) == (value_text, limit_text)


@pytest.mark.parametrize("metric", RELATIVE)
def test_a_relative_margin_is_told_in_per_cent_of_the_reference(metric: str) -> None:
    measured, value_text, limit_text = RELATIVE[metric]
    one = told(metric, {"relative_margin": 0.01}, measured)
    assert (figures.measured(one), figures.limit(one)) == (value_text, limit_text)


def test_nothing_is_ever_less_than_nothing() -> None:
    assert figures.signed(-0.04) == "+0.0"
