"""A network where every row is dear: the mistake is found all the same, in the time that was given; what was not tried is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from parity.explain.experiment import several
from parity.explain.graph.simulate import Batch
from parity.explain.mistake import preprocessing
from parity.explain.mistake.hypotheses import FIT, FITTED, Bench, Trial, tried
from parity.explain.mistake.pace import Pace
from parity.explain.mistake.screening import few_rows, halves_of_few, screened
from tests.parity.test_explain_pictures import INFER, LIGHT, bench

ROW_S = 0.4
Change = preprocessing.Change


class Slow:
    """A network that takes so long for a row, by a clock of its own, and counts what it was asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def __call__(self, feeds: Batch) -> Batch:
        self.now += ROW_S * len(feeds["x"])
        return INFER(feeds)


def slow(seen: np.ndarray, seconds: float) -> tuple[Bench, Slow]:
    network = Slow()
    pace = Pace(ROW_S, seconds, network.clock, 0.0)
    return replace(bench(LIGHT[:16], seen[:16]), infer=network, pace=pace), network


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("reversed along axis 1 (colours", lambda x: x[:, ::-1]),
        ("in grey (red", lambda x: np.broadcast_to((x * np.reshape((0.299, 0.587, 0.114), (3, 1, 1))).sum(1)[:, None], x.shape)),
        ("moved by 1 along axis 3", lambda x: x[..., np.clip(np.arange(12) - 1, 0, 11)]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_though_a_row_takes_long(said: str, change: Change) -> None:
    made, network = slow(change(LIGHT), 300)
    best = screened(made, preprocessing.suspicions)[0]
    assert best.holds
    assert said in best.name
    assert network.now < 120
    assert "hypotheses were ruled out by" in str(made.pace.told())


def test_a_fit_takes_few_rows_where_they_are_dear() -> None:
    made, network = slow(0.6 * LIGHT + 0.1, 300)
    best = tried(made, list(preprocessing.fitted_scale(made, made.infer, FITTED)))[0]
    assert best.holds
    assert "× 0.6 +0.1" in best.name
    assert network.now < 100


def test_what_time_does_not_allow_is_counted_and_told() -> None:
    made, network = slow(LIGHT[:, ::-1], 10)
    trials: list[Trial] = screened(made, preprocessing.suspicions, "mistakes with the inputs")
    several.pairs(made, trials)
    assert network.now < 40
    assert "not tried for lack of time" in str(made.pace.told())
    assert made.pace.left_out["mistakes with the inputs"] > 0


def test_noise_is_no_mistake_however_few_rows_screen() -> None:
    made, _ = slow(LIGHT + np.random.default_rng(8).normal(0, 0.3, LIGHT.shape), 300)
    assert not any(one.holds for one in screened(made, preprocessing.suspicions))


def test_a_fast_network_is_screened_as_ever_and_says_nothing() -> None:
    made = replace(bench(LIGHT, LIGHT[:, ::-1]), pace=Pace(1e-5, 300, started=0.0, clock=lambda: 1.0))
    assert few_rows(made, 32, 500).rows == 32
    assert few_rows(made, 32, 500).batches[0] is made.batches[0]
    assert screened(made, preprocessing.suspicions)[0].holds
    assert made.pace.told() is None


def test_the_rows_that_are_furthest_off_are_taken_and_of_one_half_where_something_is_fitted() -> None:
    seen = LIGHT.copy()
    seen[[3, 6, 8]] = 1 - seen[[3, 6, 8]]
    made, _ = slow(seen, 3)
    np.testing.assert_array_equal(np.sort(_of(few_rows(made, 16, 1))), [3])
    wide = replace(made, pace=Pace(ROW_S, 6 * ROW_S * 3, lambda: 0.0, 0.0))
    assert set(_of(few_rows(wide, 16, 1))) == {3, 6, 8}
    assert set(_of(few_rows(wide, 16, 1, FIT))) > {6, 8}
    assert all(row % 2 == FIT for row in _of(few_rows(wide, 16, 1, FIT)))
    both = _of(halves_of_few(wide, 16, 1))
    assert [row % 2 for row in both] == [0, 1]


def _of(few: Bench) -> list[int]:
    """Which of the pictures these are."""
    found = np.concatenate([batch["x"] for batch in few.batches])
    return [int(np.argmin(((LIGHT.astype(np.float32) - one) ** 2).sum((1, 2, 3)))) for one in found]
