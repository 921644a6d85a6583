"""Limits that answers of other rows would keep: such a limit is named, and a policy of nothing but such limits is a FAIL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.config import TaskConfig
from parity import detection, others
from parity.answers import agree
from parity.limit import KINDS, Limit
from parity.policy import Route
from parity.rows import Rows, of_answers
from parity.verdict import Finding, Status, overall
from tests.parity.judged import LIMITS, Case, sound

WHY = "a limit for a test"
SPEED = next(limit for limit in LIMITS if limit["metric"] == "latency_ratio")
N = 600
RNG = np.random.default_rng(5)


def found(case: Case, *limits: dict[str, Any]) -> list[Finding]:
    case.limits = [*({"why": WHY, **limit} for limit in limits), SPEED]
    return case.examine()


def tells(metric: str, bound: float, rows: Rows, route: Route | None = None, **more: Any) -> bool | None:
    kind = more.pop("kind", KINDS[metric].bounds[0])  # type: ignore[index]
    return others.tell(Limit.model_validate({"metric": metric, kind: bound, "why": WHY, **more}), rows, route)


def rows(kind: str, answers: Any, labels: Any = None, groups: Any = None, **more: Any) -> Rows:
    """A copy of the reference, as the judge keeps it."""
    task = TaskConfig.model_validate({"kind": kind, **more.pop("task", {})})
    facts = {"confidence": more.pop("confidence")} if "confidence" in more else {}
    if kind in ("binary_score", "regression"):
        facts = of_answers(task, answers, answers)
    columns = {} if labels is None else {"labels": np.asarray(labels)}
    same = np.ones(len(answers), bool) if kind == "embedding" else agree(task, answers, answers)
    return Rows(task, answers, answers, same, facts, columns | more, groups, 0)


@pytest.mark.parametrize(("margin", "told"), [(0.01, True), (0.5, True), (0.99, False)])
def test_a_margin_that_answers_of_other_rows_keep_is_said_and_passes_nobody_alone(
    tmp_path: Path, margin: float, told: bool
) -> None:
    """Of four classes other rows' answers are right on a quarter, where the source is on nine tenths."""
    findings = found(sound(tmp_path), {"metric": "correct", "margin": margin})
    (mine,) = [one for one in findings if one.of == "correct" and one.against == "source"]
    assert (mine.tells, mine.status) == (told, Status.PASS)
    assert ("answers of other rows would keep it too" in mine.sentence) != told
    assert overall(findings) is (Status.PASS if told else Status.FAIL)
    (law,) = [one for one in findings if one.metric == "limits"]
    assert ("that none can fail" in law.sentence) != told


def test_one_limit_that_tells_is_enough_and_speed_is_none(tmp_path: Path) -> None:
    idle = {"metric": "agreement", "at_least": 0.1}
    beside = found(sound(tmp_path / "one"), idle, {"metric": "correct", "margin": 0.01})
    assert overall(beside) is Status.PASS
    assert [one.tells for one in beside if one.of == "agreement"] == [False, False]
    quick = sound(tmp_path / "two")
    quick.precision = "int8"
    assert overall(found(quick, idle)) is Status.FAIL
    strict = sound(tmp_path / "three")
    assert overall(found(strict, idle, {"metric": "float_error", "at_most": 10})) is Status.PASS


def test_what_one_class_in_twenty_is_worth() -> None:
    """Where 95 % of the answers are one class, other rows' answers agree in nine of ten: 80 % say nothing, 98 % do."""
    answers = (RNG.random(N) < 0.05).astype(np.int64)
    unbalanced = rows("classification", answers, answers)
    assert tells("agreement", 0.8, unbalanced) is False
    assert tells("agreement", 0.98, unbalanced) is True
    assert tells("correct", 0.2, unbalanced) is False
    assert tells("correct", 0.2, unbalanced, kind="relative_margin") is False
    assert tells("macro_f1", 0.2, unbalanced) is True
    assert tells("worst_slice", 0.5, unbalanced) is True, "of the rare kind nothing agrees"


def test_each_metric_of_a_task_tells_where_it_is_tight_and_does_not_where_it_is_idle() -> None:
    scores = RNG.random(N)
    truth = (scores > 0.5).astype(int)
    binary = rows("binary_score", scores, truth, groups=np.arange(N) // 20)
    lines = rows("sequence", RNG.integers(0, 9, (N, 6)), labels=RNG.integers(0, 9, (N, 6)))
    lines = Rows(lines.task, *[lines.columns["labels"]] * 2, lines.same, {}, lines.columns, None, 0)
    numbers = RNG.standard_normal((N, 1))
    regression = rows("regression", numbers, numbers)
    near = rows("embedding", RNG.integers(0, N, (N, 10)), labels=np.arange(N))
    boxes = np.tile(np.array([0.0, 0, 10, 10, 0]), (N, 1, 1))
    boxes[:, 0, :4] += 20 * RNG.integers(0, 9, N)[:, None]
    detector = rows("detection", detection.labelled(boxes), boxes)
    cases: list[tuple[str, Rows, float, float | None]] = [
        ("f1", binary, 0.01, 0.9),
        ("auc", binary, 0.01, 0.9),
        ("rank_correlation", binary, 0.9, None),
        ("confidence_drift", binary, 0.01, 0.9),
        ("character_errors", lines, 0.01, 0.99),
        ("word_errors", lines, 0.01, 0.99),
        ("mean_error", regression, 0.01, 9.0),
        ("cosine_mean", regression, 0.9, None),
        ("agreement", regression, 0.9, None),
        ("rank_overlap", near, 0.9, None),
        ("mean_average_precision", detector, 0.01, 0.999),
        ("agreement", detector, 0.9, 0.001),
    ]
    for metric, of, tight, idle in cases:
        assert tells(metric, tight, of) is True, metric
        if idle is not None:
            assert tells(metric, idle, of) is False, metric
    above = 100 + np.abs(numbers)
    assert tells("cosine_mean", 0.9, rows("regression", above, above)) is False, "all numbers point the same way"


def test_a_rule_that_keeps_nearly_all_flips_little_whoever_answers() -> None:
    answers = RNG.integers(0, 4, N)
    sure = np.where(RNG.random(N) < 0.02, 0.5, 0.99)
    few = rows("classification", answers, answers, confidence=sure)
    many = rows("classification", answers, answers, confidence=np.where(RNG.random(N) < 0.5, 0.5, 0.99))
    route = Route(confidence=0.9, why=WHY)
    assert tells("route_flips", 0.1, few, route) is False
    assert tells("route_flips", 0.1, many, route) is True
    assert tells("kept_errors", 0.1, few, route) is True
    assert tells("kept_errors", 0.95, few, route) is False


def test_what_rare_rows_decide_is_not_asked_of_a_part_that_may_lack_them() -> None:
    """Of 200,000 rows a part of 2,000 may hold no positive one: an F1 of nothing would not move."""
    truth = np.zeros(200_000, np.int64)
    truth[:20] = 1
    large = rows("binary_score", truth.astype(float), truth)
    for metric in ("f1", "auc"):
        assert tells(metric, 0.1, large) is None
    assert tells("worst_slice", 0.5, large) is None
    assert tells("agreement", 0.9, large) is False
    some = rows("binary_score", truth[:9_000].astype(float), truth[:9_000])
    assert [tells(metric, 0.1, some) for metric in ("f1", "auc")] == [True, True]


def test_so_few_rows_are_not_asked_and_of_more_each_is_given_another() -> None:
    answers = np.arange(40)
    assert tells("agreement", 0.01, rows("classification", answers[:29])) is None
    assert tells("agreement", 0.01, rows("classification", answers)) is True, "not one stays where it is"


def test_what_no_other_order_changes_is_not_asked() -> None:
    scores = RNG.random(N)
    binary = rows("binary_score", scores, (scores > 0.5).astype(int), groups=np.arange(N) // 20)
    assert tells("state_drift", 0.01, binary) is None
    assert tells("escalation_change", 0.01, binary, Route(confidence=0.9, why=WHY)) is None
    assert tells("float_error", 10, binary) is None
    assert tells("kl", 0.1, rows("classification", RNG.integers(0, 4, N))) is None
