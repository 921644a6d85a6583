"""Intervals against other sources than their code: statsmodels, a numerical likelihood, closed forms, enumeration."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm
from statsmodels.stats.proportion import proportion_confint

from parity.statistics import counted
from parity.verdict import Measured, Status, decide

Z = float(norm.ppf(0.95))
CONFIDENCE = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@st.composite
def counts(draw: st.DrawFn, most: int = 3000) -> tuple[int, int]:
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


@st.composite
def discordant(draw: st.DrawFn, most: int = 2000) -> tuple[int, int, int]:
    """Gained, lost and n of a paired comparison."""
    n = draw(st.integers(2, most))
    gained = draw(st.integers(0, n))
    return gained, draw(st.integers(0, n - gained)), n


@given(counts(), CONFIDENCE)
@settings(max_examples=200, deadline=None)
@example((0, 1), 0.95)
@example((600, 600), 0.95)
def test_share_equals_the_two_sided_interval_of_statsmodels_at_twice_the_tail(
    case: tuple[int, int], confidence: float
) -> None:
    count, n = case
    low, high = proportion_confint(count, n, alpha=2 * (1 - confidence), method="beta")
    found = counted.share(count, n, confidence)
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)
    assert found.value == count / n


@pytest.mark.parametrize("n", [1, 7, 600, 10_000])
def test_no_disagreement_in_n_proves_what_the_closed_form_says(n: int) -> None:
    """All alike: the exact lower bound is tail^(1/n); 0 in 600 proves at most 0.5 % at 95 %."""
    assert counted.share(n, n, 0.95).low == pytest.approx(0.05 ** (1 / n), abs=1e-12)
    assert counted.share(n, n, 0.95).high == 1


def likelihood_score(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's statistic from its definition: the likelihood is maximized numerically under the hypothesis.

    p_lost = q, p_gained = q + difference; the variance is the multinomial's, p10 + p01 - (p10 - p01)^2 over n.
    """

    def cost(q: float) -> float:
        terms = ((lost, q), (gained, q + difference), (n - gained - lost, 1 - 2 * q - difference))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in terms if k)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = float(minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x)
    q = min((low, high, q), key=cost)
    variance = (2 * q + difference - difference**2) / n
    return ((gained - lost) / n - difference) / math.sqrt(variance)


@given(discordant(), st.floats(-0.95, 0.95))
@settings(max_examples=200, deadline=None)
def test_tango_score_equals_the_score_under_a_numerically_constrained_likelihood(
    case: tuple[int, int, int], difference: float
) -> None:
    gained, lost, n = case
    assume(abs(difference) > 1e-3)
    wanted = likelihood_score(gained, lost, n, difference)
    assert counted.tango_score(gained, lost, n, difference) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 9, 100), (12, 2, 50), (0, 5, 600), (40, 55, 2000), (7, 0, 300)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.975])
def test_tango_bounds_are_where_the_likelihood_score_meets_the_normal_quantile(
    gained: int, lost: int, n: int, confidence: float
) -> None:
    z = float(norm.ppf(confidence))
    found = counted.paired_difference(gained, lost, n, confidence)
    assert likelihood_score(gained, lost, n, found.low) == pytest.approx(z, abs=1e-4)
    assert likelihood_score(gained, lost, n, found.high) == pytest.approx(-z, abs=1e-4)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("n", [1, 10, 600, 100_000])
def test_tango_bounds_without_a_discordant_pair_have_their_closed_form(n: int) -> None:
    """No discordant pair: score^2 = n d / (1 - d), so the bounds are -+ z^2 / (n + z^2)."""
    found = counted.paired_difference(0, 0, n, 0.95)
    assert found.low == pytest.approx(-(Z**2) / (n + Z**2), abs=1e-9)
    assert found.high == pytest.approx(Z**2 / (n + Z**2), abs=1e-9)


@pytest.mark.parametrize("n", [5, 200])
def test_tango_bounds_where_every_pair_is_discordant_one_way_have_their_closed_form(n: int) -> None:
    """All gained: q = (1 - d) / 2, so score^2 = n (1 - d) / (1 + d) and the bound is (n - z^2) / (n + z^2)."""
    assert counted.paired_difference(n, 0, n, 0.95).low == pytest.approx((n - Z**2) / (n + Z**2), abs=1e-9)
    assert counted.paired_difference(0, n, n, 0.95).low == -1
    assert counted.paired_difference(0, n, n, 0.95).high == pytest.approx(-(n - Z**2) / (n + Z**2), abs=1e-9)


@given(discordant())
@settings(max_examples=200, deadline=None)
def test_gains_and_losses_exchanged_mirror_the_interval(case: tuple[int, int, int]) -> None:
    gained, lost, n = case
    one, other = (
        counted.paired_difference(gained, lost, n, 0.95),
        counted.paired_difference(lost, gained, n, 0.95),
    )
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert -1 <= one.low <= one.value + 1e-9
    assert one.value - 1e-9 <= one.high <= 1


@given(discordant())
@settings(max_examples=200, deadline=None)
def test_one_more_lost_row_never_raises_the_lower_bound(case: tuple[int, int, int]) -> None:
    gained, lost, n = case
    assume(gained + lost < n)
    fewer, more = (counted.paired_difference(gained, k, n, 0.95).low for k in (lost, lost + 1))
    assert more <= fewer + 1e-9


def passes(gained: int, lost: int, n: int, margin: float) -> bool:
    found = counted.paired_difference(gained, lost, n, 0.95)
    return decide(Measured(found.value, found.low, found.high, n), "at_least", -margin) is Status.PASS


@cache
def fewest_gains_that_pass(lost: int, n: int, margin: float) -> int:
    """Bisected: more gains never turn a pass into a fail (tested above as its mirror)."""
    low, high = 0, n - lost + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if middle > n - lost or passes(middle, lost, n, margin) else (middle + 1, high)
    return low


def error_at_the_margin(n: int, discordance: float, margin: float) -> float:
    """Exact chance of PASS when the true loss is the margin: every outcome with its multinomial probability.

    Given k discordant pairs (binomial), the losses among them are binomial. k outside of all but 1e-9 of its mass is
    counted as a pass: the sum is an upper bound.
    """
    first, last = (int(k) for k in binom.ppf([5e-10, 1 - 5e-10], n, discordance))
    losing = (discordance + margin) / 2 / discordance
    total = 1e-9
    for k in range(first, last + 1):
        lost = [b for b in range(k + 1) if k - b >= fewest_gains_that_pass(b, n, margin)]
        total += float(binom.pmf(k, n, discordance) * binom.pmf(lost, k, losing).sum()) if lost else 0.0
    return total


SETTINGS = [
    (300, 0.02, 0.01),
    (300, 0.06, 0.02),
    (300, 0.15, 0.05),
    (600, 0.02, 0.01),
    (600, 0.08, 0.01),
    (1000, 0.03, 0.01),
    (2000, 0.02, 0.01),
    (2000, 0.05, 0.01),
]


@pytest.mark.parametrize(("n", "discordance", "margin"), SETTINGS)
def test_a_loss_as_large_as_the_margin_passes_in_at_most_five_and_a_half_percent(
    n: int, discordance: float, margin: float
) -> None:
    """The score test is asymptotic; at its nominal 5 % it gets half a point of room. Exact, by enumeration."""
    assert error_at_the_margin(n, discordance, margin) <= 0.055


@pytest.mark.parametrize(("n", "discordance", "margin"), SETTINGS)
def test_not_significant_by_mcnemar_passes_a_loss_as_large_as_the_margin_far_more_often(
    n: int, discordance: float, margin: float
) -> None:
    """What a gate of `p > 0.05` would let through on the same inputs: exact two-sided McNemar, enumerated."""
    losing = (discordance + margin) / 2 / discordance
    chance = 0.0
    for k in range(n + 1):
        lost = np.arange(k + 1)
        p_value = np.minimum(1.0, 2 * binom.cdf(np.minimum(lost, k - lost), k, 0.5))
        chance += float(binom.pmf(k, n, discordance) * binom.pmf(lost, k, losing)[p_value > 0.05].sum())
        if k > n * discordance + 12 * math.sqrt(n * discordance):
            break
    assert chance > 2.5 * error_at_the_margin(n, discordance, margin)
    assert n > 300 or chance > 0.4  # the smaller the suite, the more it lets through


def test_a_candidate_as_good_as_the_reference_can_pass() -> None:
    """The gate is no wall: 2000 rows, eight gained, eight lost, one point of margin."""
    assert passes(8, 8, 2000, 0.01)
    assert not passes(8, 8, 200, 0.01)


@pytest.mark.parametrize("n", [*range(1, 61), 99, 100, 200, 1001])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_median_bounds_cover_the_true_median_as_often_as_promised_and_no_tighter_ones_do(
    n: int, confidence: float
) -> None:
    """Exact, for any continuous distribution: P(X_(r) > median) = P(Bin(n, 1/2) < r), by scipy's binomial."""
    found = counted.median([float(i) for i in range(n)], confidence)
    if found.low == -math.inf:
        assert found.high == math.inf
        assert binom.cdf(0, n, 0.5) > 1 - confidence
        return
    rank = int(found.low) + 1
    assert binom.cdf(rank - 1, n, 0.5) <= 1 - confidence
    assert binom.cdf(rank, n, 0.5) > 1 - confidence
    assert found.high == n - 1 - found.low


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_the_median_is_numpys_in_any_order(values: list[float]) -> None:
    found = counted.median(values, 0.95)
    assert found.value == pytest.approx(float(np.median(values)))
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("values", [[], [math.nan], [1.0] * 99 + [math.nan]])
def test_a_median_of_nothing_or_of_nan_is_nan_throughout(values: list[float]) -> None:
    found = counted.median(values, 0.95)
    assert all(math.isnan(x) for x in (found.value, found.low, found.high))


@given(st.integers(1, 2000), st.integers(1, 200_000))
def test_rows_needed_decide_and_are_the_fewest_within_half_a_percent(n: int, threshold: int) -> None:
    assume(threshold > n)
    needed = counted.rows_needed(n, lambda rows: rows >= threshold)
    assert needed is not None
    assert threshold <= needed <= threshold + max(1, threshold // 200)
    assert threshold >= 400 or needed == threshold


def test_rows_needed_is_none_where_no_number_decides() -> None:
    assert counted.rows_needed(100, lambda rows: False) is None


@given(st.integers(20, 500), st.sampled_from([0.9, 0.95, 0.98]), st.floats(-0.02, 0.02))
@settings(max_examples=150, deadline=None)
def test_rows_needed_for_a_share_decide_there_and_not_here(n: int, limit: float, offset: float) -> None:
    count = min(n, round(n * (limit + offset)))

    def decided(rows: int) -> bool:
        found = counted.share(round(count / n * rows), rows, 0.95)
        return found.low >= limit or found.high < limit

    assume(not decided(n))
    needed = counted.rows_needed(n, decided)
    if needed is None:
        assert abs(count / n - limit) < 1e-3
    else:
        assert needed > n
        assert decided(needed)


@pytest.mark.parametrize(("limit", "wanted"), [(0.98, 149), (0.99, 299), (0.9, 29)])
def test_rows_needed_without_any_disagreement_are_the_closed_form(limit: float, wanted: int) -> None:
    """All alike: the first n with tail^(1/n) >= limit is ceil(ln 0.05 / ln limit)."""
    assert wanted == math.ceil(math.log(0.05) / math.log(limit))
    assert counted.rows_needed(10, lambda rows: counted.share(rows, rows, 0.95).low >= limit) == wanted


def test_rows_needed_grow_as_the_rate_nears_the_limit() -> None:
    def needed(rate: float) -> int:
        found = counted.rows_needed(100, lambda rows: counted.share(round(rate * rows), rows, 0.95).low >= 0.98)
        assert found is not None
        return found

    grown = [needed(rate) for rate in (1.0, 0.995, 0.99, 0.985)]
    assert grown == sorted(grown)
    assert len(set(grown)) == 4


def likelihood_ratio_score(both: int, gained: int, lost: int, ratio: float) -> float:
    """The score of a ratio from its definition: the likelihood is maximized numerically under the hypothesis.

    With p_lost = q among the rows that somebody got right, p_both = (1 - q) / r - q and p_gained = 1 - q - p_both; a row
    contributes 1 - r, 1 or -r, and the variance is the mean of the squares.
    """
    n = both + gained + lost

    def cells(q: float) -> tuple[float, float, float]:
        p_both = (1 - q) / ratio - q
        return p_both, 1 - q - p_both, q

    def cost(q: float) -> float:
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip((both, gained, lost), cells(q), strict=True) if k)

    low, high = max(0.0, 1 - ratio), 1 / (1 + ratio)
    q = float(minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x)
    p_both, p_gained, p_lost = cells(min((low, high, q), key=cost))
    variance = n * ((1 - ratio) ** 2 * p_both + p_gained + ratio**2 * p_lost)
    return (both + gained - ratio * (both + lost)) / math.sqrt(variance)


@given(st.integers(1, 2000), st.integers(0, 60), st.integers(0, 60), st.floats(0.5, 2))
@settings(max_examples=200, deadline=None)
def test_ratio_score_equals_the_score_under_a_numerically_constrained_likelihood(
    both: int, gained: int, lost: int, ratio: float
) -> None:
    assume(abs(ratio - 1) > 1e-3)
    wanted = likelihood_ratio_score(both, gained, lost, ratio)
    assert counted.ratio_score(both, gained, lost, ratio) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("both", [1, 30, 4000])
def test_ratio_bounds_without_a_discordant_pair_have_their_closed_form(both: int) -> None:
    """Both right everywhere: score^2 = both (1 - r) / r, so the lower bound is both / (both + z^2)."""
    found = counted.paired_ratio(both, 0, 0, 0.95)
    assert found.low == pytest.approx(both / (both + Z**2), abs=1e-9)
    assert found.high == pytest.approx((both + Z**2) / both, rel=1e-9)


@given(st.integers(1, 2000), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_sides_exchanged_give_the_ratio_upside_down(both: int, gained: int, lost: int) -> None:
    one, other = counted.paired_ratio(both, gained, lost, 0.95), counted.paired_ratio(both, lost, gained, 0.95)
    assert one.low <= one.value <= one.high
    assert (one.low, one.high) == pytest.approx((1 / other.high, 1 / other.low), rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "right", "lost"),
    [(0.9, 0.9, 0.12), (0.97, 0.9, 0.08), (0.9, 0.7, 0.12), (0.97, 0.7, 0.12), (0.97, 0.95, 0.06), (0.9, 0.95, 0.1)],
)
def test_relative_non_inferiority_errs_in_at_most_five_and_a_half_per_cent(
    ratio: float, right: float, lost: float
) -> None:
    """Exact: every outcome of 150 rows, at the margin itself. `right`: the reference's share of right answers."""
    n, gained = 150, ratio * right - (right - lost)
    shares = (right - lost, gained, lost)
    error = total = 0.0
    for wins in range(n + 1):
        p_wins = binom.pmf(wins, n, gained)
        for losses in range(n + 1 - wins):
            p_losses = p_wins * binom.pmf(losses, n - wins, lost / (1 - gained)) if p_wins > 1e-9 else 0.0
            if p_losses < 1e-9:
                continue
            both = np.arange(n + 1 - wins - losses)
            weights = p_losses * binom.pmf(both, len(both) - 1, shares[0] / (1 - gained - lost))
            total += weights.sum()
            kept = [b for b in both if weights[b] > 1e-12]
            error += sum(weights[b] for b in kept if counted.ratio_score(int(b), wins, losses, ratio) >= Z)
    assert total == pytest.approx(1, abs=1e-3)
    assert error <= 0.055


def test_a_reference_that_is_never_right_has_no_ratio() -> None:
    found = counted.paired_ratio(0, 5, 0, 0.95)
    assert decide(Measured(found.value, found.low, found.high, 5), "at_least", 0.99) is Status.FAIL
