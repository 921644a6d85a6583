"""Labels that cannot speak about the answers are refused before anything is judged; a suite may have none."""

from __future__ import annotations

import shutil
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from compile.config import ModelFile
from compile.errors import ConfigError
from parity.labels import met_by_chance, refuse_strange
from parity.verdict import Status
from tests.parity.judged import BATCH, MODEL, ROWS, Case, status


def test_shuffled_labels_are_refused(case: Case) -> None:
    """A paired test cannot see labels that are wrong for both sides: nothing is lost where nothing is known."""
    case.columns["labels"] = np.random.default_rng(6).permutation(case.columns["labels"])
    with pytest.raises(ConfigError, match="shuffled labels would give"):
        case.examine()


@pytest.mark.parametrize(("shuffled", "refused"), [(0, False), (10, False), (60, True), (500, True)])
def test_a_source_that_is_right_less_often_than_expected_of_it_is_refused(
    case: Case, shuffled: int, refused: bool
) -> None:
    """Half of the labels are other rows': both sides lose alike, and twice the margin could be lost unseen."""
    case.expected = {"at_least": 0.88, "why": "it is right on nine of ten rows"}
    labels = case.columns["labels"]
    labels[:shuffled] = np.random.default_rng(6).permutation(labels[:shuffled])
    if not refused:
        assert status(case.examine()) is Status.PASS
        return
    with pytest.raises(
        ConfigError, match=r"of 1,000 rows by their labels, [58].\... %; the policy expects 88\.00 % at least"
    ):
        case.examine()


def test_labels_that_stand_for_the_opposite_are_refused(case: Case) -> None:
    """1 means normal in one file and anomaly in another: every second model meets that once."""
    case.model = {
        **MODEL,
        "outputs": {"score": {"dtype": "float32", "shape": ["batch", 1]}},
        "task": {"kind": "binary_score"},
    }
    scores = np.random.default_rng(0).random((ROWS, 1)).astype(np.float32)
    for side in ("source", "candidate", "baseline"):
        setattr(case, side, [{"score": scores[i : i + BATCH]} for i in range(0, ROWS, BATCH)])
    case.columns["labels"] = (scores[:, 0] >= 0.5).astype(int)
    case.columns["labels"][:100] = 0
    assert status(case.examine()) is Status.PASS
    shutil.rmtree(case.root)
    case.columns["labels"] = 1 - case.columns["labels"]
    with pytest.raises(ConfigError, match="what 1 means"):
        case.examine()


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        ([0, 1], None),
        ([-1.0, 1.0], None),
        ([False, True], None),
        ([1, 2], "int64 such as 1, 2"),
        ([0, 1, 2, 9], "int64 such as 0, 1, 2"),
        ([0.2, 0.9], "float64 such as 0.2, 0.9"),
        (["no", "yes"], "<U3 such as no, yes"),
        ([1.0, np.nan], "float64 such as 1.0, nan"),
    ],
)
def test_scores_have_labels_of_two_sides(labels: list[Any], refused: str | None) -> None:
    tensor = {"dtype": "float32", "shape": ["batch", 1]}
    config = ModelFile.model_validate({**MODEL, "outputs": {"score": tensor}, "task": {"kind": "binary_score"}})
    if refused is None:
        refuse_strange(config, np.asarray(labels))
        return
    with pytest.raises(ConfigError, match=f"found {refused}; expected 0 and 1"):
        refuse_strange(config, np.asarray(labels))


def test_matches_by_chance_are_those_of_all_orders() -> None:
    """Mean and deviation over every permutation of six rows, one by one."""
    one, other = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 2, 2, 2])
    counts = [int((one == np.array(order)).sum()) for order in permutations(other.tolist())]
    met, mean, deviation = met_by_chance(one, other)
    assert met == 4
    assert (mean, deviation) == pytest.approx((np.mean(counts), np.std(counts)), abs=1e-12)


@pytest.mark.parametrize(
    "labels", [np.full(ROWS, 7), np.eye(4, dtype=np.int64)[np.zeros(ROWS, np.int64)], ["a"] * ROWS]
)
def test_labels_that_no_answer_can_equal_are_refused(case: Case, labels: Any) -> None:
    """With nothing right there is nothing to lose: the metric could not fail."""
    case.columns["labels"] = np.asarray(labels)
    with pytest.raises(ConfigError, match="labels"):
        case.examine()


def test_a_suite_without_labels_is_judged_on_agreement_alone(case: Case) -> None:
    del case.columns["labels"]
    findings = case.examine()
    assert status(findings) is Status.PASS
    assert "correct" not in {f.metric for f in findings}
