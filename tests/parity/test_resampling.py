"""BCa and the exact bounds over groups: against scipy and closed forms, and by how often they are wrong.

Simulations are seeded (`--seed N` takes others) and count: at the edge of a margin a model may pass in at most 6 of 100
suites (bootstrap), in at most 5.5 of 100 (exact). A rule that is known to be unsound is simulated beside them, so that the
count can tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import f1_score

from parity.statistics import betting, estimate
from parity.statistics.bounds import LEAST_DISCORDANT, bounds, carriers
from parity.statistics.resampling import Sums, Weighted, bca

Array = np.ndarray
Simulated = Callable[[int], np.random.Generator]
SIMULATIONS = 20_000


def mean(values: Array) -> Sums:
    return Sums(np.arange(len(values)), np.stack([values, np.ones(len(values))], 1), lambda s: s[..., 0] / s[..., 1])


@pytest.mark.parametrize("seed", range(3))
def test_bca_is_scipys(seed: int) -> None:
    """Of a skewed sample's mean: where one-sided 95 % bounds are a two-sided 90 % interval. Both are drawn at random."""
    values = np.random.default_rng(seed).exponential(size=300)
    found = bca(mean(values), 300, None, 0.95, 50_000)
    wanted = bootstrap((values,), np.mean, confidence_level=0.9, n_resamples=50_000, method="BCa", rng=seed)
    width = wanted.confidence_interval.high - wanted.confidence_interval.low
    assert found.low == pytest.approx(wanted.confidence_interval.low, abs=0.02 * width)
    assert found.high == pytest.approx(wanted.confidence_interval.high, abs=0.02 * width)


def test_bca_of_a_ratio_over_groups_is_scipys_over_their_sums() -> None:
    """scipy resamples the pair of sums that a group adds; the figure is their ratio."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(5, 40, 200)
    groups = np.repeat(np.arange(200), sizes)
    values = rng.random(len(groups)) < rng.beta(2, 30, 200)[groups]
    counts = np.bincount(groups, values)
    figure = Sums(values.astype(int), np.array([[0.0, 1], [1, 1]]), lambda s: s[..., 0] / s[..., 1])
    found = bca(figure, len(groups), groups, 0.95, 50_000)
    wanted = bootstrap(
        (counts, sizes), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, vectorized=True, confidence_level=0.9,
        n_resamples=50_000, method="BCa", rng=3,
    ).confidence_interval  # fmt: skip
    width = wanted.high - wanted.low
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.03 * width)


def test_both_ways_of_drawing_give_the_same_bounds() -> None:
    """Few kinds are drawn as counts, many as rows: the same figure either way, up to the resampling's own noise."""
    values = np.random.default_rng(2).integers(0, 3, 500).astype(float)
    few = bca(
        Sums(values.astype(int), np.array([[0.0, 1], [1, 1], [2, 1]]), lambda s: s[..., 0] / s[..., 1]), 500, None, 0.95
    )
    of = Weighted(lambda w: (w * values).sum(axis=1) / w.sum(axis=1))
    many = bca(of, 500, None, 0.95)
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=0.05 * (few.high - few.low))


def test_more_rows_than_units_are_pooled_and_cost_no_width() -> None:
    values = np.random.default_rng(3).standard_normal(50_000)
    found = bca(mean(values), len(values), None, 0.95)
    half = 1.6449 * values.std() / math.sqrt(len(values))
    assert (found.high - found.value, found.value - found.low) == pytest.approx((half, half), rel=0.08)


def test_the_same_rows_give_the_same_bounds() -> None:
    values = np.random.default_rng(4).random(300)
    assert bca(mean(values), 300, None, 0.95) == bca(mean(values), 300, None, 0.95)


def test_where_nothing_differs_the_bound_is_the_exact_one_times_the_worst() -> None:
    """scipy's BCa is NaN here. 0 of 600 differ: at most 0.498 % do, and each may cost three."""
    figure = Sums(np.zeros(600, int), np.zeros((1, 1)), lambda s: s[..., 0])
    found = bounds(figure, np.zeros(600, bool), 3.0, None, 0.95)
    assert found.method == "exact"
    assert found.interval.value == 0
    assert found.interval.low == pytest.approx(-3 * (1 - 0.05 ** (1 / 600)))


def test_where_no_resample_moves_the_figure_the_bound_is_the_exact_one_too() -> None:
    """Every row differs a little and the figure does not: BCa would prove that it never can."""
    figure = Weighted(lambda w: np.zeros(len(w)))
    found = bounds(figure, np.ones(600, bool), 3.0, None, 0.95)
    assert found.method == "exact"
    assert found.interval.low == pytest.approx(-3 * (1 - 0.05 ** (1 / 600)))


def test_few_groups_are_not_supported_and_twenty_are() -> None:
    for count, supported in ((19, False), (20, True)):
        groups = np.repeat(np.arange(count), 5)
        found = bounds(mean(np.zeros(len(groups))), np.zeros(len(groups), bool), 1.0, groups, 0.95)
        assert math.isfinite(found.interval.low) == supported


def test_a_figure_that_is_often_undefined_has_no_bounds() -> None:
    figure = Weighted(lambda w: np.where(w[:, 0] > 0, 1.0, np.nan))
    assert bca(figure, 100, None, 0.95).high == math.inf


# how often they are wrong


def f1_of(counts: Array) -> Array:
    """F1 less F1 of both sides, from counts of rows by (label, reference, candidate)."""
    label, one, other = np.moveaxis(np.indices((2, 2, 2)).reshape(3, 8), 0, 0)
    there, told, said = counts @ label, counts @ one, counts @ other
    return 2 * (counts @ (label & other)) / (there + said) - 2 * (counts @ (label & one)) / (there + told)


def truth(flip_down: float, flip_up: float) -> Array:
    """Probabilities of (label, reference, candidate): a good reference, and a candidate that flips some answers."""
    p = np.zeros((2, 2, 2))
    for label, told, base in ((1, 1, 0.36), (1, 0, 0.04), (0, 1, 0.03), (0, 0, 0.57)):
        flip = flip_down if told else flip_up
        p[label, told, told], p[label, told, 1 - told] = base * (1 - flip), base * flip
    return p.ravel()


def test_a_candidate_at_the_margin_seldom_passes_by_bca(simulated: Simulated) -> None:
    """20,000 suites of 1,000 rows, 38 discordant ones expected: F1 lies exactly at the margin."""
    p = truth(0.06, 0.025)
    margin = -float(f1_of(p))
    assert margin > 0.01
    rng = simulated(20_26)
    suites = rng.multinomial(1000, p, SIMULATIONS)
    kinds = np.eye(8)
    passed = covered = 0
    for number, counts in enumerate(suites):
        figure = Sums(np.repeat(np.arange(8), counts), kinds, f1_of)
        passed += bca(figure, 1000, None, 0.95, 1000).low >= -margin
        if number % 4 == 0:
            two_sided = bca(figure, 1000, None, 0.975, 1000)
            covered += two_sided.low <= -margin <= two_sided.high
    assert passed / SIMULATIONS <= 0.06
    assert covered / (SIMULATIONS / 4) >= 0.94


def test_f1_of_counts_is_scikit_learns() -> None:
    counts = np.random.default_rng(5).integers(1, 30, 8)
    label, one, other = np.indices((2, 2, 2)).reshape(3, 8).repeat(counts, axis=1)
    assert f1_of(counts) == pytest.approx(f1_score(label, other) - f1_score(label, one))


def streams(rng: np.random.Generator, count: int, flips: float) -> tuple[Array, Array]:
    """Rows of streams that flip together: half of the streams never, the others at their own rate."""
    sizes = rng.integers(30, 81, count)
    rate = np.where(rng.random(count) < 0.5, 0.0, rng.beta(1, 1 / (2 * flips) - 1, count))
    groups = np.repeat(np.arange(count), sizes)
    return groups, rng.random(len(groups)) < rate[groups]


def test_the_group_is_the_unit_and_rows_would_be_too_sure(simulated: Simulated) -> None:
    """300 streams, 2 % of rows flip, in few of the streams: agreement at the truth passes in at most 6 of 100 suites,
    and far more often where rows are taken as independent."""
    rng = simulated(6)
    of_groups = of_rows = 0
    runs = 300
    for _ in range(runs):
        groups, flipped = streams(rng, 300, 0.02)
        of_groups += estimate.share(~flipped, groups, 0.95)(len(groups)).interval.low >= 0.98
        of_rows += estimate.share(~flipped, None, 0.95)(len(groups)).interval.low >= 0.98
    assert binomtest(of_groups, runs, 0.06, "greater").pvalue > 0.01
    assert of_rows / runs > 0.15


@pytest.mark.parametrize("count", [20, 60, 200])
@pytest.mark.parametrize("whole", [True, False])
def test_exact_bounds_over_groups_hold_where_few_flip(simulated: Simulated, count: int, whole: bool) -> None:
    """Groups that flip throughout, or in a tenth of their rows; the share of rows that agree lies at the limit."""
    rng = simulated(7)
    rate, part = 0.05, 1.0 if whole else 0.1
    passed = 0
    runs = 1000
    sizes = np.full(count, 10.0)
    for _ in range(runs):
        flipped = (rng.random(count) < rate) * part * 10
        passed += betting.share(sizes - flipped, sizes, 0.95).low >= 1 - rate * part + 1e-12
    assert binomtest(passed, runs, 0.05, "greater").pvalue > 0.01


def test_no_group_of_g_differs_proves_what_counts_of_groups_prove_or_nearly() -> None:
    for count in (20, 26, 160, 2000):
        sizes = np.full(count, 100.0)
        closed = 1 - 0.05 ** (1 / count)
        assert closed <= 1 - betting.share(sizes, sizes, 0.95).low <= 1.04 * closed
        assert closed <= -betting.difference(0 * sizes, 0 * sizes, sizes, 0.95).low <= 1.04 * closed


def test_a_rare_event_and_its_absence_have_the_same_bounds_over_groups() -> None:
    """What no group showed may still be: in 330 groups at most 1 - 0.05^(1/330) of the rows, or 4 % more (binomial)."""
    groups, never = np.repeat(np.arange(330), 25), np.zeros(8_250, bool)
    seen, unseen = (estimate.share(flags, groups, 0.95)(8_250).interval for flags in (never, ~never))
    assert seen.high == pytest.approx(1 - unseen.low)
    assert 1 - 0.05 ** (1 / 330) <= seen.high <= 1.04 * (1 - 0.05 ** (1 / 330))


def test_groups_exchanged_and_sides_exchanged_mirror_the_bounds() -> None:
    rng = np.random.default_rng(8)
    sizes = rng.integers(5, 20, 50).astype(float)
    gained, lost = np.minimum(rng.poisson(0.2, 50), sizes), np.minimum(rng.poisson(0.1, 50), 2)
    one, other = (betting.difference(a, b, sizes, 0.95) for a, b in ((gained, lost), (lost, gained)))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    order = rng.permutation(50)
    mixed = betting.difference(gained[order], lost[order], sizes[order], 0.95)
    assert (mixed.low, mixed.high) == pytest.approx((one.low, one.high), abs=1e-9)
    assert one.low < one.value < one.high


def bad_groups(
    rng: np.random.Generator, count: int, bad: float, *, unequal: bool = False
) -> tuple[Array, Array, Array]:
    """Groups of 25 rows, or of 2 to 400, of whose answers one in twenty turns wrong; in the bad groups nine of ten."""
    sizes = (
        np.clip(np.round(rng.lognormal(np.log(18), 0.9, count)), 2, 400).astype(int) if unequal else np.full(count, 25)
    )
    groups = np.repeat(np.arange(count), sizes)
    rate = np.where(rng.random(count) < bad, 0.9, 0.05)
    return groups, rng.random(len(groups)) < rate[groups], sizes


@pytest.mark.parametrize("count", [30, 100])
def test_right_answers_of_few_groups_seldom_pass_at_the_margin_and_resampled_they_would(
    simulated: Simulated, count: int
) -> None:
    """One group in fifty is bad. Where none was drawn, BCa knows of none: it passes 13 of 100 suites of 100."""
    rng, runs, margin = simulated(11), 300, 0.02 * 0.9 + 0.98 * 0.05
    passed = resampled = 0
    for _ in range(runs):
        groups, lost, sizes = bad_groups(rng, count, 0.02)
        right = np.ones(len(lost), bool)
        passed += estimate.difference(right, ~lost, groups, 0.95)(len(lost)).interval.low >= -margin
        sums = np.stack([-np.bincount(groups, lost), sizes], axis=1)
        spread = bca(Sums(np.arange(count), sums, lambda s: s[..., 0] / s[..., 1]), count, None, 0.95, 1000)
        resampled += spread.low >= -margin
    assert binomtest(passed, runs, 0.06, "greater").pvalue > 0.01
    assert resampled / runs > 0.06


@pytest.mark.parametrize(("count", "bad", "unequal"), [(30, 0.02, False), (100, 0.02, False), (220, 0.02, True)])
def test_a_figure_of_groups_seldom_passes_at_the_margin_and_resampled_it_would(
    simulated: Simulated, count: int, bad: float, unequal: bool
) -> None:
    """A mean on which every row differs a little, as errors do: of few groups, and of groups of which few are long."""
    rng, runs, margin = simulated(12), 200, bad * 0.9 + (1 - bad) * 0.05
    passed = resampled = 0
    for _ in range(runs):
        groups, worse, _ = bad_groups(rng, count, bad, unequal=unequal)
        figure = Sums(worse.astype(int), np.array([[0.0, 1], [-1, 1]]), lambda s: s[..., 0] / s[..., 1])
        passed += bounds(figure, np.ones(len(worse), bool), 1.0, groups, 0.95).interval.low >= -margin
        resampled += bca(figure, len(worse), groups, 0.95, 1000).low >= -margin
    assert binomtest(passed, runs, 0.06, "greater").pvalue > 0.01
    assert resampled / runs > 0.06


def test_enough_equal_groups_that_differ_throughout_are_resampled_and_hold(simulated: Simulated) -> None:
    """The rule is no wall: 200 groups, all of which lose a little, are judged by BCa, and err as often as they may."""
    rng, runs = simulated(13), 250
    passed = resampled = 0
    for _ in range(runs):
        groups, worse, _ = bad_groups(rng, 200, 0.0)
        figure = Sums(worse.astype(int), np.array([[0.0, 1], [-1, 1]]), lambda s: s[..., 0] / s[..., 1])
        found = bounds(figure, np.ones(len(worse), bool), 1.0, groups, 0.95)
        resampled += found.method == "BCa"
        passed += found.interval.low >= -0.05
    assert resampled / runs > 0.95  # 1,499 of 1,500 simulated: of the other one few groups happened to carry all
    assert passed / runs > 0.01
    assert binomtest(passed, runs, 0.06, "greater").pvalue > 0.01


def test_carriers_count_the_groups_that_carry_a_figure() -> None:
    """Few of many that add alike are counted; of normal ones a third (their fourth moment is 3); of none, 0."""
    few = np.zeros(10_000)
    few[:25] = 1.0
    assert carriers(few) == pytest.approx(25, rel=0.01)
    assert carriers(np.random.default_rng(14).standard_normal(30_000)) == pytest.approx(10_000, rel=0.05)
    assert carriers(np.full(300, 0.25)) == 0
    assert carriers(0.25 + 1e-17 * np.arange(300)) == 0


def test_bets_on_what_groups_add_are_the_exact_bounds_of_a_difference() -> None:
    """As many lost as gained: what a group adds, found by leaving it out, is what it gained less what it lost."""
    rng = np.random.default_rng(15)
    groups = np.repeat(np.arange(60), rng.integers(5, 20, 60))
    moved = rng.permutation(np.repeat([1, -1, 0], [40, 40, len(groups) - 80]))
    figure = Sums(moved + 1, np.array([[-1.0, 1], [0, 1], [1, 1]]), lambda s: s[..., 0] / s[..., 1])
    found = bounds(figure, moved != 0, 1.0, groups, 0.95).interval
    gained, lost, sizes = (np.bincount(groups, part).astype(float) for part in (moved > 0, moved < 0, moved < 2))
    wanted = betting.difference(gained, lost, sizes, 0.95)
    assert (found.value, found.low, found.high) == pytest.approx((0, wanted.low, wanted.high), abs=1e-9)


@given(st.integers(20, 400), st.integers(1, 30), st.integers(0, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_of_groups_none_is_better_than_nothing_lost_and_one_more_loss_never_helps(
    count: int, size: int, lose: int, seed: int
) -> None:
    """However many groups lose a row, and whatever the method: the fewer rows are lost, the higher the bound."""
    groups, right = np.repeat(np.arange(count), size), np.ones(count * size, bool)
    order = np.random.default_rng(seed).permutation(len(right))
    lows = []
    for lost in (0, min(lose, len(right) - 1), min(lose, len(right) - 1) + 1):
        candidate = right.copy()
        candidate[order[:lost]] = False
        lows.append(estimate.difference(right, candidate, groups, 0.95)(len(right)).interval.low)
        shares = estimate.share(candidate, groups, 0.95)(len(right)).interval
        assert shares.low <= estimate.share(right, groups, 0.95)(len(right)).interval.low
    assert lows == sorted(lows, reverse=True)


@pytest.mark.parametrize("times", [2, 3, 7])
def test_bounds_at_more_groups_are_those_of_so_many_groups(times: int) -> None:
    """The groups laid side by side so many times, unequal ones and some that differ throughout."""
    rng = np.random.default_rng(times)
    sizes = rng.integers(3, 30, 80).astype(float)
    lost = np.where(rng.random(80) < 0.04, sizes, rng.binomial(sizes.astype(int), 0.01))
    gained = rng.binomial((sizes - lost).astype(int), 0.02).astype(float)
    tiled = [np.tile(one, times) for one in (gained, lost, sizes)]
    for found, real in (
        (betting.share(sizes - lost, sizes, 0.95, times), betting.share(tiled[2] - tiled[1], tiled[2], 0.95)),
        (betting.difference(gained, lost, sizes, 0.95, times), betting.difference(*tiled, 0.95)),
        (
            betting.ratio(sizes - lost, sizes, sizes, 0.95, times),
            betting.ratio(tiled[2] - tiled[1], tiled[2], tiled[2], 0.95),
        ),
    ):
        assert (found.value, found.low, found.high) == pytest.approx((real.value, real.low, real.high), abs=1e-9)


@given(st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
@settings(max_examples=100, deadline=None)
def test_a_bound_is_proven_exactly_up_to_where_it_lies(count: int, seed: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, count).astype(float)
    gained, lost = rng.binomial(sizes.astype(int), 0.3), rng.binomial(sizes.astype(int), 0.1)
    low = betting.share(gained, sizes, 0.95).low
    assert betting.proves_share(gained, sizes, 0.95, least) == (low >= least)
    low = betting.difference(gained, lost, sizes, 0.95).low
    assert betting.proves_difference(gained, lost, sizes, 0.95, -least) == (low >= -least)


def test_the_ratio_over_groups_holds_the_value_and_is_one_for_equal_sides() -> None:
    sizes, right = np.full(100, 10.0), np.random.default_rng(9).integers(6, 11, 100).astype(float)
    same = betting.ratio(right, right, sizes, 0.95)
    assert same.low < 1 == same.value < same.high
    assert math.isnan(betting.ratio(right, 0 * right, sizes, 0.95).value)


def test_where_nothing_differs_the_bound_nears_as_fast_as_rows_are_added() -> None:
    """No row of 150 differs: at most 2 of 100 may, at most 2 of 1,000 of ten times as many. As the root it would be 6."""
    figure = Sums(np.zeros(150, int), np.array([[0.0, 1], [1, 1]]), lambda s: s[..., 0] / s[..., 1])
    at = estimate.figure_of(figure, np.zeros(150, bool), 1.0, None, 0.95)
    assert at(150).interval.high == pytest.approx(1 - 0.05 ** (1 / 150), abs=1e-12)
    assert at(1500).interval.high == pytest.approx(1 - 0.05 ** (1 / 1500), abs=1e-12)
    groups = np.repeat(np.arange(30), 5)
    bets = estimate.figure_of(figure, np.zeros(150, bool), 1.0, groups, 0.95)
    assert bets(1500).interval.high < bets(150).interval.high / 5


def test_how_far_a_share_moves_stays_open_over_too_few_groups() -> None:
    groups, kept = np.repeat(np.arange(15), 25), np.ones(375, bool)
    found = estimate.absolute(estimate.difference(kept, kept, groups, 0.95))(375).interval
    assert (found.value, found.low, found.high) == (0.0, -math.inf, math.inf)


def test_rows_that_would_decide_are_asked_of_the_same_rates() -> None:
    groups = np.repeat(np.arange(40), 10)
    at = estimate.share(np.ones(400, bool), groups, 0.95)
    assert at(400).interval.low < 0.98 < at(400 * 8).interval.low
    assert LEAST_DISCORDANT == 20
