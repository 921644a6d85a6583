"""What a suite can decide: the plan's figures against the judge's own decisions and against simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.config import ModelFile, TargetFile
from parity.limit import Against, Limit
from parity.plan import outlook
from parity.plan.account import lines
from parity.plan.exact import chance, passes
from parity.plan.rehearsal import Rehearsals
from parity.plan.station import Shape, planned, shape_of
from parity.policy import Goal, Policy, Route
from parity.statistics import counted
from parity.verdict import Measured, Status, decide
from tests.conftest import json_of, run_in

WHY = "a limit for a test"
AGREEMENT = Limit(metric="agreement", at_least=0.98, why=WHY)
CORRECT = Limit(metric="correct", margin=0.01, why=WHY)
ONE_OUTPUT = {"y": {"dtype": "float32", "shape": ["batch", 1]}}
MODEL: dict[str, Any] = {
    "source": {"onnx": "m.onnx"},
    "inputs": {"x": {"dtype": "float32", "shape": ["batch", 2]}},
    "suite": {"npz": "suite.npz"},
    "targets": ["edge"],
}
TARGET = TargetFile.model_validate(
    {"role": "edge", "hardware": "a CPU", "toolchain": "onnxruntime", "precision": "float32", "dialect": "float32"}
)


def judged(limit: Limit, d: int, gained: int, n: int) -> bool:
    """What the judge would decide of these counts."""
    if limit.metric == "agreement":
        found = counted.share(n - d, n, limit.confidence)
    else:
        found = counted.paired_difference(gained, d - gained, n, limit.confidence)
    return decide(Measured(found.value, found.low, found.high, n), "at_least", limit.threshold) is Status.PASS


@pytest.mark.parametrize("limit", [AGREEMENT, CORRECT])
@pytest.mark.parametrize("n", [150, 400, 2000])
def test_the_plan_decides_as_the_judge_does(limit: Limit, n: int) -> None:
    passed = passes(limit)
    cases = [(d, g) for d in range(0, 60, 3) for g in range(0, d + 1, 2)]
    assert [passed(d, g, n) for d, g in cases] == [judged(limit, d, g, n) for d, g in cases]


@pytest.mark.parametrize("limit", [AGREEMENT, CORRECT])
@pytest.mark.parametrize(("n", "flips"), [(600, 0.005), (600, 0.012), (2000, 0.015)])
def test_the_chance_is_what_simulation_gives(limit: Limit, n: int, flips: float) -> None:
    random = np.random.default_rng(0)
    differ = random.binomial(n, flips, 20_000)
    gained = random.binomial(differ, 0.5)
    passed = passes(limit)
    rate = np.mean([passed(int(d), int(g), n) for d, g in zip(differ, gained, strict=True)])
    assert chance(passed, n, flips) == pytest.approx(rate, abs=4 * np.sqrt(0.25 / 20_000))


def test_most_is_the_last_count_that_passes() -> None:
    plan = planned("t", [(AGREEMENT, "source")], 600, 0.005).plans[0]
    assert plan.most is not None
    assert judged(AGREEMENT, plan.most, 0, 600)
    assert not judged(AGREEMENT, plan.most + 1, 0, 600)


def test_needed_rows_give_the_power_and_half_of_them_do_not() -> None:
    needed = planned("t", [(CORRECT, "source")], 300, 0.01).plans[0].needed
    assert needed is not None
    assert chance(passes(CORRECT), needed, 0.01) >= 0.8
    assert chance(passes(CORRECT), needed // 2, 0.01) < 0.8


def test_too_few_rows_can_pass_nothing_and_too_many_flips_never_pass() -> None:
    few = planned("t", [(AGREEMENT, "source")], 100, 0.005).plans[0]
    assert (few.most, few.chance) == (None, 0.0)
    many = planned("t", [(AGREEMENT, "source")], 4000, 0.05).plans[0]
    assert many.needed is None
    assert many.chance < 1e-6


def test_all_limits_together_are_no_likelier_than_the_least_likely_and_bounded_from_below() -> None:
    found = planned("t", [(AGREEMENT, "source"), (CORRECT, "source")], 600, 0.01)
    least = min(plan.chance for plan in found.plans)
    assert sum(plan.chance for plan in found.plans) - 1 <= found.all_limits <= least


WORST = Limit(metric="worst_slice", at_least=0.95, why=WHY)


def test_slices_of_one_column_pass_together_as_simulation_says() -> None:
    """Two slices of 300 rows and one of 100: every one has to pass. Counts as the judge bounds them."""
    sizes, flips, random = (300, 300, 100), 0.01, np.random.default_rng(1)
    differ = np.stack([random.binomial(size, flips, 20_000) for size in sizes], axis=1)
    low = {(int(d), n): counted.share(n - int(d), n, 0.95).low for n in set(sizes) for d in np.unique(differ)}
    rate = np.mean([all(low[(int(d), n)] >= 0.95 for d, n in zip(row, sizes, strict=True)) for row in differ])
    assert outlook.of_slices(WORST, [sizes], flips) == pytest.approx(rate, abs=4 * np.sqrt(0.25 / 20_000))
    assert outlook.of_slices(WORST, [sizes, sizes], flips) <= rate + 0.02


def test_a_slice_too_small_to_pass_makes_the_limit_hopeless() -> None:
    """Of 58 rows none may differ: 0.05^(1/58) is 0.9497, just below the limit; of 59 it is above."""
    assert outlook.most_of_slice(WORST, 58) is None
    assert outlook.most_of_slice(WORST, 59) == 0
    found = planned("t", [(WORST, "source")], 600, 0.001, Shape(None, {WORST: [[542, 58]]}))
    assert (found.plans[0].most, found.plans[0].chance, found.all_limits) == (None, 0.0, 0.0)


def test_a_target_that_no_limit_binds_is_refused_and_copies_are_not_counted(project: Path) -> None:
    suite = project / "tiny" / "suite.npz"
    with np.load(suite) as arrays:
        twice = {name: np.concatenate([arrays[name][:200], arrays[name]]) for name in arrays.files}
        np.savez(suite, **twice | {"id": np.arange(800)})
    done = run_in(project, "plan", "tiny")
    assert done.returncode == 0, done.stderr
    assert "600 rows (and 200 repeated, which are not counted)" in done.stdout
    policy = project / "configs" / "policies" / "default.yaml"
    text = policy.read_text().replace("precision: [float32]", "precision: [float16]")
    policy.write_text(
        text.replace("    at_least: 0.98\n", "    at_least: 0.98\n    precision: [int8]\n").replace(
            "    margin: 0.01\n", "    margin: 0.01\n    precision: [int8]\n"
        )
    )
    done = run_in(project, "plan", "tiny")
    assert done.returncode == 2
    assert "no limit binds cloud-cpu-onnxruntime, which is float32" in done.stderr


@pytest.mark.parametrize("grouped", [False, True])
def test_kinds_that_are_all_too_small_are_said_not_to_pass(grouped: bool) -> None:
    """Two hundred stores of five rows: the judge cuts no slice. In `by` of a column that it can cut there is a chance."""
    rows = np.arange(1000)
    columns = {"row": rows, "store": rows // 5, "camera": rows % 2} | ({"group": rows // 4} if grouped else {})

    def told(by: str) -> tuple[float, str]:
        limit = Limit(metric="worst_slice", at_least=0.9, by=[by], why=WHY)
        shape = shape_of(columns, Policy(limits=[limit], goal=Goal(kind="size", why=WHY)), "classification")
        found = planned("t", [(limit, "source")], 1000, 0.001, shape)
        return found.plans[0].chance, "\n".join(lines([found]))

    assert told("store")[0] == 0
    assert "no kind has the 50 rows" in told("store")[1]
    assert told("camera")[0] > 0.9
    assert "no kind" not in told("camera")[1]


def test_groups_decide_and_not_their_rows() -> None:
    few, many = (Shape(np.full(count, 100.0)) for count in (19, 400))
    assert planned("t", [(AGREEMENT, "source")], 1900, 0.005, few).plans[0].chance == 0
    found = planned("t", [(AGREEMENT, "source")], 40_000, 0.005, many)
    assert found.groups == 400
    assert found.plans[0].most == 0
    assert found.plans[0].chance > 0.9
    assert planned("t", [(AGREEMENT, "source")], 40_000, 0.04, many).plans[0].chance == 0


def test_the_verb_reads_the_suite_and_runs_nothing_else(project: Path) -> None:
    found = json_of(run_in(project, "plan", "tiny", "--json"))["targets"]
    assert [one["target"] for one in found] == ["cloud-cpu-onnxruntime", "edge-x86-openvino-fp32"]
    assert {one["rows"] for one in found} == {600}
    assert [(p["metric"], p["against"]) for p in found[1]["plans"]] == [
        ("agreement", "source"),
        ("agreement", "baseline"),
        ("correct", "source"),
        ("correct", "baseline"),
    ]
    shown = run_in(project, "plan", "tiny", "--flips", "0.05").stdout
    assert "no number of rows makes it 80 %" in shown
    assert json_of(run_in(project, "artifacts", "tiny", "--json"))["ran"] == []


def rehearsed(limit: Limit, columns: dict[str, np.ndarray], flips: float = 0.005, kind: str = "classification") -> Any:
    outputs = {"y": {"dtype": "float32", "shape": ["batch", 4]}} if kind == "classification" else ONE_OUTPUT
    config = ModelFile.model_validate({**MODEL, "outputs": outputs, "task": {"kind": kind}})
    suite = {"row": np.arange(len(columns["labels"])), **columns}
    return Rehearsals(config, suite, Route(confidence=0.7, why=WHY), flips).of(limit, ["source"], TARGET)


def labels(rows: int, classes: int = 4) -> dict[str, np.ndarray]:
    return {"labels": np.random.default_rng(3).integers(0, classes, rows)}


MACRO_F1 = Limit(metric="macro_f1", margin=0.015, why=WHY)


def test_a_resampled_limit_is_rehearsed_with_the_judges_own_bounds() -> None:
    few, enough = (rehearsed(MACRO_F1, labels(rows), 0.02) for rows in (300, 6000))
    assert few.chance < 0.5
    assert enough.chance > 0.9
    assert few.needed is not None
    assert few.needed > 300
    assert enough.needed < 6000
    assert rehearsed(MACRO_F1, labels(few.needed), 0.02).chance >= 0.8
    assert rehearsed(MACRO_F1, labels(few.needed // 4), 0.02).chance < 0.8


def test_more_flips_make_it_less_likely_and_no_rows_help_where_the_limit_is_below_them() -> None:
    change = Limit(metric="kept_errors", margin=0.01, why=WHY)
    chances = [rehearsed(change, labels(1500), flips).chance for flips in (0.002, 0.05, 0.3)]
    assert chances[0] > chances[2]
    assert chances == sorted(chances, reverse=True)


def test_that_a_copy_is_not_proven_is_said_of_all_limits_together() -> None:
    """The chance of a model that flips some answers can be good where one that moves nothing is left undecided."""
    rare = {"labels": (np.arange(100) % 20 == 0).astype(np.int64)}
    unproven, proven = (
        rehearsed(Limit(metric="auc", margin=margin, why=WHY), rare, 0.0, "binary_score") for margin in (0.005, 0.8)
    )
    limits: list[tuple[Limit, Against]] = [(AGREEMENT, "source")]
    both, one = (planned("t", limits, 4_000, 0.005, rehearsed=[of]) for of in (unproven, proven))
    assert (both.copy, one.copy, planned("t", limits, 10, 0.005).copy) == (False, True, False)
    assert [lines([of])[-1].endswith("; one that moves nothing at all stays undecided") for of in (both, one)] == [
        True,
        False,
    ]


def test_a_copy_that_few_anomalies_do_not_prove_is_said() -> None:
    """Of 5 anomalies, none moved, half a point of AUC is not proven; eighty points are."""
    rare = {"labels": (np.arange(100) % 20 == 0).astype(np.int64)}
    strict, loose = (Limit(metric="auc", margin=margin, why=WHY) for margin in (0.005, 0.8))
    assert not rehearsed(strict, rare, 0.0, "binary_score").copy
    assert rehearsed(loose, rare, 0.0, "binary_score").copy


def test_scores_that_move_by_rounding_pass_a_limit_on_scores_and_groups_count_as_one() -> None:
    drift = Limit(metric="confidence_drift", at_most=0.01, why=WHY)
    alone = rehearsed(drift, labels(600))
    assert (alone.chance, alone.rounded) == (1.0, True)
    few = {**labels(600), "group": np.arange(600) // 60}
    assert rehearsed(drift, few).chance == 0.0


def test_the_chance_of_all_limits_counts_rehearsed_ones() -> None:
    one = rehearsed(MACRO_F1, labels(300), 0.02)
    alone = planned("t", [(AGREEMENT, "source")], 4000, 0.005)
    both = planned("t", [(AGREEMENT, "source")], 4000, 0.005, rehearsed=[one])
    assert both.all_limits == pytest.approx(max(0.0, alone.all_limits - (1 - one.chance)))
    assert "macro_f1 against source, margin 0.015" in "\n".join(lines([both]))


def test_a_relative_margin_is_planned_as_one() -> None:
    relative = Limit(metric="correct", relative_margin=0.02, why=WHY)
    text = "\n".join(lines([planned("t", [(relative, "source")], 1000, 0.005)]))
    assert "correct against source, relative margin 0.02:" in text


def test_rows_that_are_needed_may_be_far_fewer_than_there_are() -> None:
    """For slices and for groups too: half of the suite is no floor."""
    sliced = planned("t", [(WORST, "source")], 40_000, 0.005, Shape(None, {WORST: [[20_000, 20_000]]})).plans[0]
    assert sliced.needed is not None
    assert sliced.needed < 2_000
    grouped = planned("t", [(AGREEMENT, "source")], 80_000, 0.001, Shape(np.full(2_000, 40.0))).plans[0]
    assert grouped.needed is not None
    assert grouped.needed < 20_000


def test_slices_of_groups_are_decided_by_their_groups() -> None:
    """3,000 rows of a kind in 20 streams prove less than as many in 120; each kind has to pass."""
    few, many = np.full(20, 150.0), np.full(120, 25.0)
    shapes = [Shape(np.full(200, 25.0), {}, {WORST: parts}) for parts in ([many], [many, many], [many, few])]
    one, two, mixed = (planned("t", [(WORST, "source")], 5_000, 0.002, shape).plans[0] for shape in shapes)
    assert one.chance >= two.chance > 0.9
    assert (mixed.chance, mixed.most) == (0.0, None)
    assert outlook.of_grouped_slices(WORST, [many], 0.2) == 0.0


def test_of_a_detector_is_foreseen_whether_a_copy_and_rounding_pass() -> None:
    boxes = np.tile(np.array([0.0, 0, 10, 10, 0]), (1_000, 1, 1))
    boxes[::2, 0, 4] = 1
    wide, narrow = (Limit(metric="mean_average_precision", margin=margin, why=WHY) for margin in (0.05, 0.001))
    passes, unproven = (rehearsed(one, {"labels": boxes}, 0.005, "detection") for one in (wide, narrow))
    assert (passes.copy, passes.chance, passes.rounded) == (True, 1, True)
    assert not unproven.copy


def test_a_relative_margin_on_errors_is_tried_on_a_reader_that_errs() -> None:
    read = np.random.default_rng(0).integers(0, 9, (2_000, 5))
    limit = Limit(metric="word_errors", relative_margin=0.1, why=WHY)
    assert rehearsed(limit, {"labels": read}, 0.0, "sequence").chance == 1


def test_below_so_many_groups_it_is_said_once_that_none_can_pass() -> None:
    few, enough = (planned("t", [(AGREEMENT, "source")], 1_000, 0.005, Shape(np.full(n, 50.0))) for n in (15, 40))
    assert ["below 20 groups there is no interval" in "\n".join(lines([of])) for of in (few, enough)] == [True, False]


def test_a_limit_that_not_even_a_copy_is_shown_to_hold_is_said_to_be_such() -> None:
    """Of 150 rows none may differ for a margin of one point; one that gains by chance may pass: the two are no contradiction."""
    (sentence,) = [
        one for one in lines([planned("edge", [(CORRECT, "source")], 150, 0.02)]) if "correct against" in one
    ]
    assert "on so few rows not even a copy is shown to hold it; passes with a chance of" in sentence
    assert "lost" not in sentence
    (enough,) = [
        one for one in lines([planned("edge", [(CORRECT, "source")], 4_000, 0.02)]) if "correct against" in one
    ]
    assert "as many gained as lost, up to" in enough
