"""Limits by the judge, on observations written by hand: groups as the unit, repeated rows, metrics of tasks, routing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from compile.config import ModelFile
from compile.errors import ConfigError
from parity.judge import examine
from parity.policy import Policy, Route
from parity.route import restoring_confidence, routed, summary
from parity.rows import Rows
from parity.verdict import Finding, Status
from tests.parity.judged import BATCH, LIMITS, MODEL, ROWS, Case, batches

SPEED = next(limit for limit in LIMITS if limit["metric"] == "latency_ratio")
WHY = "a limit for a test"
ROUTE = {"confidence": 0.9, "why": "as the gateway is set"}


def binary(root: Path, scores: np.ndarray, found: np.ndarray, **columns: np.ndarray) -> Case:
    """A binary score of 1,000 rows."""

    def sides(values: np.ndarray) -> list[dict[str, np.ndarray]]:
        column = values.astype(np.float32)[:, None]
        return [{"score": column[i : i + BATCH]} for i in range(0, len(values), BATCH)]

    return Case(
        root / "case",
        model={
            **MODEL,
            "outputs": {"score": {"dtype": "float32", "shape": ["batch", 1]}},
            "task": {"kind": "binary_score"},
        },
        source=sides(scores),
        candidate=sides(found),
        baseline=sides(scores),
        columns={"row": np.arange(len(scores)), **columns},
        seconds={"artifact": [1e-3] * 100, "float": [2e-3] * 100},
        sizes={"build": 1000, "float": 4000},
    )


def judged(case: Case, limit: dict[str, Any], route: dict[str, Any] | None = None) -> list[Finding]:
    """What one limit finds against the source."""
    policy = Policy.model_validate({"limits": [{"why": WHY, **limit}, SPEED], "route": route})
    found = examine(ModelFile.model_validate(case.model), case.target(), policy, case.places())[0]
    return [f for f in found if f.of == limit["metric"] and f.against == "source"]


@pytest.mark.parametrize(
    ("groups", "status", "said"),
    [
        (10, Status.INCONCLUSIVE, "not supported below 20 groups"),
        (50, Status.INCONCLUSIVE, "groups"),
        (250, Status.PASS, ""),
    ],
)
def test_a_thousand_equal_rows_decide_by_how_many_groups_they_are(
    tmp_path: Path, groups: int, status: Status, said: str
) -> None:
    """250 groups of which none differs: at most 1.24 % of rows do (0.05^(1/250), and 4 % on it); 50 prove 6 %."""
    scores = np.random.default_rng(0).random(ROWS)
    case = binary(tmp_path, scores, scores, group=np.arange(ROWS) % groups)
    found = judged(case, {"metric": "agreement", "at_least": 0.98})
    assert [f.status for f in found] == [status]
    assert said in found[0].sentence
    assert ("(no interval), n = 1,000 in 10 groups" in found[0].sentence) == (groups == 10)
    assert "inf" not in found[0].sentence
    assert found[0].measured.groups == groups


def test_the_same_rows_without_groups_decide_alone(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random(ROWS)
    found = judged(binary(tmp_path, scores, scores), {"metric": "agreement", "at_least": 0.98})
    assert found[0].status is Status.PASS
    assert found[0].measured.groups is None


@pytest.mark.parametrize("wrong", [0, 3])
def test_a_row_is_answered_otherwise_where_a_copy_of_it_is(tmp_path: Path, wrong: int) -> None:
    """Of 600 rows, with 400 copies of the first hundred, copies of `wrong` rows are answered otherwise: so many of 600 differ."""
    scores = np.random.default_rng(0).random(600)
    original = np.concatenate([np.arange(600), np.tile(np.arange(100), 4)])
    told = scores[original]
    said = told.copy()
    said[700 : 700 + wrong] = 1 - said[700 : 700 + wrong]
    said[900 : 900 + wrong] = 1 - said[900 : 900 + wrong]
    columns = {"copy": original != np.arange(ROWS), "original": original}
    found = judged(binary(tmp_path / "a", told, said, **columns), {"metric": "agreement", "at_least": 0.9})
    assert found[0].measured.value == pytest.approx(1 - wrong / 600)
    assert found[0].measured.n == 600
    (rank,) = judged(binary(tmp_path / "b", told, said, **columns), {"metric": "rank_correlation", "at_least": 0.5})
    moved = np.concatenate([1 - scores[:wrong], scores[wrong:]])
    assert rank.measured.value == pytest.approx(spearmanr(scores, moved).statistic, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "side"), [(np.linspace(0.6, 0.9, ROWS), "at or above"), (np.linspace(0, 0.4, ROWS), "below")]
)
def test_scores_on_one_side_of_the_threshold_are_no_suite(tmp_path: Path, scores: np.ndarray, side: str) -> None:
    """A threshold of 50 where 0.5 was meant: even answers turned round would pass."""
    with pytest.raises(ConfigError, match=f"the source is {side} 0.5 in all of its 1,000 rows"):
        judged(binary(tmp_path, scores, scores), {"metric": "agreement", "at_least": 0.98})


def test_a_rule_that_keeps_nothing_or_everything_is_refused(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random(ROWS)
    limit = {"metric": "route_flips", "at_most": 0.02}
    for confidence, says in ((1.5, "keeps none of the 1,000 rows"), (0.05, "every answer is surer than 0.05")):
        with pytest.raises(ConfigError, match=says):
            judged(binary(tmp_path / str(confidence), scores, scores), limit, {**ROUTE, "confidence": confidence})
    assert judged(binary(tmp_path / "sound", scores, scores), limit, {**ROUTE, "confidence": 0.8})


def test_a_repeated_row_is_counted_once(tmp_path: Path) -> None:
    """A hundred rows ten times over are a hundred rows: 0.05^(1/100) is 97.05 %, not 99.7 %."""
    scores = np.tile(np.random.default_rng(0).random(100), 10)
    case = binary(tmp_path, scores, scores, copy=np.arange(ROWS) >= 100)
    found = judged(case, {"metric": "agreement", "at_least": 0.98})
    assert found[0].status is Status.INCONCLUSIVE
    assert found[0].measured.n == 100
    assert found[0].measured.low == pytest.approx(0.05 ** (1 / 100))


def test_a_difference_of_two_shares_is_no_wider_than_they_are(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random(ROWS)
    case = binary(tmp_path, scores, 1 - scores, labels=(scores > 0.5).astype(int))
    (found,) = judged(case, {"metric": "auc", "margin": 0.01})
    assert found.status is Status.FAIL
    assert -1 == found.measured.value == found.measured.low


@pytest.mark.parametrize("kind", [0, 1])
def test_no_area_is_measured_of_one_kind_of_row(tmp_path: Path, kind: int) -> None:
    scores = np.random.default_rng(0).random(ROWS)
    with pytest.raises(ConfigError, match="auc needs rows of both kinds; the labels of the suite are all alike"):
        judged(binary(tmp_path, scores, scores, labels=np.full(ROWS, kind)), {"metric": "auc", "margin": 0.01})


def test_auc_that_falls_fails_and_noise_that_keeps_the_order_passes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, ROWS)
    scores = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.1 * rng.standard_normal(ROWS), 0, 1)
    limit = {"metric": "auc", "margin": 0.01}
    good = binary(tmp_path / "good", scores, scores * 0.999, labels=labels)
    assert [f.status for f in judged(good, limit)] == [Status.PASS]
    worse = np.where(rng.random(ROWS) < 0.2, rng.random(ROWS), scores)
    bad = binary(tmp_path / "bad", scores, worse, labels=labels)
    assert [f.status for f in judged(bad, limit)] == [Status.FAIL]


def test_a_relative_margin_of_a_metric_is_a_contrast_at_nought(tmp_path: Path) -> None:
    """At most 2 % relative worse: F1 of the candidate less 98 % of the reference's."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, ROWS)
    scores = np.where(rng.random(ROWS) < 0.9, labels, 1 - labels) * 0.8 + 0.1
    flips = np.zeros(ROWS, bool)
    flips[:30] = True
    found = judged(
        binary(tmp_path, scores, np.where(flips, 1 - scores, scores), labels=labels),
        {"metric": "f1", "relative_margin": 0.02},
    )
    from sklearn.metrics import f1_score

    ours, theirs = f1_score(labels, scores >= 0.5), f1_score(labels, np.where(flips, 1 - scores, scores) >= 0.5)
    assert found[0].limit == 0
    assert found[0].measured.value == pytest.approx(theirs - 0.98 * ours, abs=1e-9)
    assert found[0].measured.method == "BCa"


def test_requests_that_change_sides_of_the_rule_are_counted(tmp_path: Path) -> None:
    """Forty of a thousand lose confidence and escalate: 4 % is above 2 %, below 8 %."""
    scores = np.full(ROWS, 0.95)
    scores[::2] = 0.03
    moved = scores.copy()
    moved[:80:2] = 0.2
    case = binary(tmp_path / "a", scores, moved)
    found = judged(case, {"metric": "route_flips", "at_most": 0.02}, ROUTE)
    assert found[0].status is Status.FAIL
    assert found[0].measured.value == pytest.approx(0.04)
    wide = judged(binary(tmp_path / "b", scores, moved), {"metric": "escalation_change", "at_most": 0.08}, ROUTE)
    assert wide[0].status is Status.PASS
    assert wide[0].measured.value == pytest.approx(0.04)


def test_a_large_payload_escalates_whatever_the_confidence(tmp_path: Path) -> None:
    scores = np.full(ROWS, 0.95)
    scores[::2] = 0.03
    case = binary(tmp_path, scores, scores, payload=np.where(np.arange(ROWS) < 300, 3e6, 1e6))
    route = {**ROUTE, "payload": {"column": "payload", "below": 2e6}}
    policy = Policy.model_validate(
        {"limits": [{"metric": "route_flips", "at_most": 0.02, "why": WHY}, SPEED], "route": route}
    )
    told = examine(ModelFile.model_validate(case.model), case.target(), policy, case.places())[1]["route"]
    assert told["escalated by the reference"] == pytest.approx(0.3)
    assert told["change sides"] == 0


def rows(sure: np.ndarray, shift: np.ndarray) -> Rows:
    config = ModelFile.model_validate(MODEL)
    n = len(sure)
    facts = {"confidence": sure, "shift": shift}
    return Rows(config.task, np.zeros(n), np.zeros(n), np.ones(n, bool), facts, {}, None, 0)


def test_the_confidence_that_restores_the_risk_by_hand() -> None:
    """The reference keeps four of which one is wrong (25 %). The candidate, surest first, is right, right, wrong, wrong,
    wrong, right: above 0.7 two of two are right, above 0.6 one of three is wrong already."""
    sure = np.array([0.95, 0.94, 0.93, 0.92, 0.5, 0.4])
    now = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    seen = rows(sure, now - sure)
    route = Route.model_validate(ROUTE)
    right = (np.array([1, 1, 1, 0, 0, 0], bool), np.array([1, 1, 0, 0, 0, 1], bool))
    kept = routed(seen, route)
    assert kept.reference.tolist() == [True] * 4 + [False] * 2
    assert restoring_confidence(seen, kept, right) == pytest.approx(0.7)
    assert summary(seen, route, right)["confidence that restores the reference's risk"] == pytest.approx(0.7)
    never = (np.ones(6, bool), np.array([0, 1, 1, 1, 1, 1], bool))
    assert restoring_confidence(seen, kept, never) is None


def test_route_without_confidence_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path / "case", model={**MODEL, "task": {"kind": "none"}})
    logits = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
    case.source, case.candidate, case.baseline = batches(logits), batches(logits), batches(logits)
    case.columns = {"row": np.arange(ROWS)}
    case.seconds = {"artifact": [1e-3] * 100}
    with pytest.raises(ConfigError, match="have no confidence"):
        judged(case, {"metric": "route_flips", "at_most": 0.02}, ROUTE)


def test_the_share_of_integers_is_read_from_what_was_built(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random(ROWS)
    for share, status in ((0.95, Status.PASS), (0.5, Status.FAIL), (None, Status.FAIL)):
        case = binary(tmp_path / str(share), scores, scores)
        case.precision = "int8"
        places = case.places()
        (places["build"] / "build.json").write_text(json.dumps({"quantized_share": share}))
        policy = Policy.model_validate({"limits": [{"metric": "quantized_share", "at_least": 0.9, "why": WHY}, SPEED]})
        found = examine(ModelFile.model_validate(case.model), case.target(), policy, places)[0]
        assert [f.status for f in found if f.of == "quantized_share"] == [status]


def test_a_cosine_minimum_speaks_of_the_worst_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((ROWS, 4)).astype(np.float32)
    turned = logits.copy()
    turned[7] = [-logits[7, 1], logits[7, 0], -logits[7, 3], logits[7, 2]]  # a right angle
    case = Case(tmp_path / "case", model={**MODEL, "task": {"kind": "embedding"}})
    case.source, case.candidate, case.baseline = batches(logits), batches(turned), batches(logits)
    case.columns, case.seconds, case.sizes = {"row": np.arange(ROWS)}, {"artifact": [1e-3] * 100}, {"build": 1000}
    found = judged(case, {"metric": "cosine_minimum", "at_least": 0.9})
    assert found[0].status is Status.FAIL
    assert found[0].measured.value == pytest.approx(0, abs=1e-6)
