"""Verdicts on observations written by hand: each law broken once, each limit on both of its sides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta

from compile.config import ModelFile
from compile.project import Project
from parity.judge import examine, judge
from parity.policy import Policy
from parity.verdict import Status
from tests.parity.judged import BATCH, FLOOR, LIMITS, MODEL, ROWS, Case, batches, broken, integer, status


def test_a_candidate_that_answers_as_the_source_does_passes(case: Case) -> None:
    findings = case.examine()
    assert status(findings) is Status.PASS
    assert {f.metric for f in findings} >= {"schema", "finite", "not constant", "agreement", "correct"}
    assert {f.against for f in findings} == {"source", "baseline"}


def test_swapped_rows_fail(case: Case) -> None:
    """Right answers to the wrong questions: a runtime that reorders a batch."""
    case.candidate[0]["logits"] = np.roll(case.candidate[0]["logits"], 1, axis=0)
    assert {"agreement against source", "agreement against baseline"} <= set(broken(case.examine()))


def test_swapped_batches_fail(case: Case) -> None:
    case.candidate[0], case.candidate[3] = case.candidate[3], case.candidate[0]
    findings = case.examine()
    assert status(findings) is Status.FAIL
    assert "agreement against source" in broken(findings)


def test_the_order_of_streams_is_undone_before_labels_are_read(case: Case) -> None:
    """Batches hold rows in another order than the labels; `row` says which."""
    order = np.random.default_rng(5).permutation(ROWS)
    logits = np.concatenate([b["logits"] for b in case.source])[order]
    case.source, case.candidate, case.baseline = batches(logits), batches(logits), batches(logits)
    case.columns["row"] = order
    findings, summary = examine(
        ModelFile.model_validate(case.model), case.target(), Policy.model_validate({"limits": LIMITS}), case.places()
    )
    assert status(findings) is Status.PASS
    assert summary["correct"] == {"source": 0.9, "candidate": 0.9}


def test_float_error_is_counted_in_floors(case: Case) -> None:
    """Five floors pass, twenty fail; one number of four thousand is enough."""
    case.candidate[3]["logits"][7, 1] += np.float32(5 * FLOOR)
    assert status(case.examine()) is Status.PASS


def test_float_error_above_its_limit_fails(case: Case) -> None:
    case.candidate[3]["logits"][7, 1] += np.float32(20 * FLOOR)
    assert list(broken(case.examine())) == ["float error of `logits` in floors against source"]


def test_an_integer_output_must_be_equal_to_count_as_float_exact(case: Case) -> None:
    case.model = {**MODEL, "outputs": {"logits": {"dtype": "int64", "shape": ["batch"]}}}
    classes = np.arange(ROWS) % 4
    case.columns["labels"] = classes
    for side in ("source", "candidate", "baseline"):
        setattr(case, side, [{"logits": classes[i : i + BATCH].copy()} for i in range(0, ROWS, BATCH)])
    case.candidate[0]["logits"][0] += 1
    places = case.places()
    (places["source"] / "floor.json").write_text(json.dumps({"outputs": {}}))
    findings = examine(
        ModelFile.model_validate(case.model), case.target(), Policy.model_validate({"limits": LIMITS}), places
    )[0]
    assert list(broken(findings)) == ["float error of `logits` in floors against source"]


def noisy(case: Case, decibels: float) -> None:
    """White noise on the candidate's outputs at exactly this signal-to-noise ratio."""
    signal = np.concatenate([b["logits"] for b in case.source]).astype(np.float64)
    noise = np.random.default_rng(7).standard_normal(signal.shape)
    noise *= np.sqrt((signal**2).sum() / (noise**2).sum() / 10 ** (decibels / 10))
    case.candidate = batches((signal + noise).astype(np.float32))


@pytest.mark.parametrize(("decibels", "found"), [(14.9, True), (15.1, False)])
def test_sqnr_is_held_to_its_limit_in_decibels(case: Case, decibels: float, found: bool) -> None:
    case.precision = "int8"
    case.limits = [limit for limit in LIMITS if limit["metric"] in ("sqnr_db", "latency_ratio")]
    noisy(case, decibels)
    assert ("SQNR of `logits` in dB against source" in broken(case.examine())) is found


def test_too_few_agreeing_rows_fail_and_too_few_rows_are_inconclusive(case: Case) -> None:
    """Exact bounds by scipy: 90 % of 1000 is below 98 %; 98.5 % of 1000 is on neither side."""
    logits = np.concatenate([b["logits"] for b in case.candidate])
    logits[:100] = np.roll(logits[:100], 1, axis=1)
    case.limits = [limit for limit in LIMITS if limit["metric"] in ("agreement", "latency_ratio")]
    case.candidate = batches(logits)
    assert status(case.examine()) is Status.FAIL


def test_an_open_question_says_how_many_rows_would_decide(case: Case) -> None:
    logits = np.concatenate([b["logits"] for b in case.candidate])
    logits[:15] = np.roll(logits[:15], 1, axis=1)
    case.limits = [limit for limit in LIMITS if limit["metric"] in ("agreement", "latency_ratio")]
    case.candidate = batches(logits)
    case.baseline = None
    case.model = {**MODEL, "baseline": []}
    findings = [f for f in case.examine() if f.metric == "agreement"]
    assert [f.status for f in findings] == [Status.INCONCLUSIVE]
    needed = findings[0].measured.needed
    assert needed is not None
    assert needed > ROWS
    assert f"about {needed:,} rows" in findings[0].sentence

    def lower_bound(n: int) -> float:
        return float(beta.ppf(0.05, round(0.985 * n), n - round(0.985 * n) + 1))

    assert lower_bound(needed) >= 0.98
    assert lower_bound(int(needed * 0.97)) < 0.98


def test_a_loss_of_accuracy_beyond_the_margin_fails_though_agreement_would_bear_it(case: Case) -> None:
    logits = np.concatenate([b["logits"] for b in case.candidate])
    right = np.flatnonzero(logits.argmax(1) == case.columns["labels"])[:60]
    logits[right] = np.roll(logits[right], 1, axis=1)
    case.candidate = batches(logits)
    case.limits = [{**limit, "at_least": 0.5} if limit["metric"] == "agreement" else limit for limit in LIMITS[2:]]
    assert set(broken(case.examine())) == {"correct against source", "correct against baseline"}


def test_a_candidate_that_differs_but_is_as_often_right_keeps_the_metric(case: Case) -> None:
    logits = np.concatenate([b["logits"] for b in case.candidate])
    is_right = logits.argmax(1) == case.columns["labels"]
    lost, gained = np.flatnonzero(is_right)[:4], np.flatnonzero(~is_right)[:4]
    logits[lost] = np.roll(logits[lost], 2, axis=1)
    logits[gained] = np.eye(4, dtype=np.float32)[case.columns["labels"][gained]] * 9
    case.candidate = batches(logits)
    findings = [f for f in case.examine() if f.metric == "correct" and f.against == "source"]
    assert findings[0].measured.value == 0
    assert findings[0].status is Status.PASS


@pytest.mark.parametrize(("margin", "status"), [(0.2, Status.PASS), (0.005, Status.FAIL)])
def test_a_relative_margin_is_tested_on_the_ratio_of_right_answers(case: Case, margin: float, status: Status) -> None:
    logits = np.concatenate([b["logits"] for b in case.candidate])
    right = np.flatnonzero(logits.argmax(1) == case.columns["labels"])
    logits[right[:60]] = np.roll(logits[right[:60]], 1, axis=1)
    case.candidate = batches(logits)
    relative = {"metric": "correct", "relative_margin": margin, "why": "a share of what was right before"}
    case.limits = [relative, *(limit for limit in LIMITS if limit["metric"] == "latency_ratio")]
    found = [f for f in case.examine() if f.metric == "correct, relative" and f.against == "source"]
    assert found[0].measured.value == pytest.approx(1 - 60 / len(right))
    assert found[0].status is status


def test_a_named_baseline_that_was_not_observed_leaves_the_edge_inconclusive(case: Case) -> None:
    case.baseline = None
    findings = case.examine()
    assert status(findings) is Status.INCONCLUSIVE
    assert set(broken(findings)) == {"agreement against baseline", "correct against baseline"}


def test_a_cloud_target_is_not_compared_with_a_baseline(case: Case) -> None:
    case.baseline, case.role = None, "cloud"
    assert status(case.examine()) is Status.PASS


def test_an_edge_that_agrees_with_the_source_and_not_with_the_cloud_fails(case: Case) -> None:
    assert case.baseline is not None
    for batch in case.baseline:
        batch["logits"] = np.roll(batch["logits"], 1, axis=1)
    assert "agreement against baseline" in broken(case.examine())


def test_a_policy_that_binds_nothing_of_this_precision_fails(case: Case) -> None:
    case.limits = [limit for limit in LIMITS if limit["metric"] == "latency_ratio"]
    assert list(broken(case.examine())) == ["limits against source"]


def test_state_outputs_are_not_judged(case: Case) -> None:
    """The state is not an answer: it may be missing from an observation."""
    state = {"dtype": "float32", "shape": [1, "batch", 8]}
    case.model = {
        **MODEL,
        "inputs": {**MODEL["inputs"], "h": state},  # type: ignore[dict-item]
        "outputs": {**MODEL["outputs"], "hn": state},  # type: ignore[dict-item]
        "state": {"h": "hn"},
    }
    assert status(case.examine()) is Status.PASS


def test_a_batch_axis_that_is_not_the_first_is_found(case: Case) -> None:
    case.model = {**MODEL, "outputs": {"logits": {"dtype": "float32", "shape": [4, "batch"]}}}
    for side in ("source", "candidate", "baseline"):
        setattr(case, side, [{"logits": b["logits"].T.copy()} for b in getattr(case, side)])
    assert status(case.examine()) is Status.PASS


def test_numbers_of_different_width_are_not_drowned_by_their_padding(case: Case) -> None:
    """Batches of width 2 and 200: a short row that is wrong by half must not hide behind what fills it up."""
    rng = np.random.default_rng(8)
    case.model = {
        **MODEL,
        "outputs": {"logits": {"dtype": "float32", "shape": ["batch", "width"]}},
        "task": {"kind": "none"},
        "baseline": [],
    }
    case.baseline = None
    del case.columns["labels"]
    case.limits = [limit for limit in LIMITS if limit["metric"] in ("agreement", "latency_ratio")]
    case.source = [{"logits": rng.uniform(1, 2, (500, width)).astype(np.float32)} for width in (2, 200)]
    case.candidate = [{"logits": case.source[0]["logits"] * np.float32(1.5)}, case.source[1]]
    findings = [f for f in case.examine() if f.metric == "agreement"]
    assert findings[0].measured.value == 0.5


def test_a_verdict_with_infinite_figures_is_still_json(case: Case, tmp_path: Path) -> None:
    """Answers equal to the last bit have infinite SQNR; a parser that knows no `Infinity` must read the verdict."""
    integer(case, 0.5)
    project = Project(tmp_path / "project")
    for kind, name, document in (
        ("models", "m", {**case.model, "targets": ["edge", "cloud"]}),
        ("targets", "edge", {**json.loads(case.target().model_dump_json()), "toolchain": "onnxruntime"}),
        (
            "targets",
            "cloud",
            {**json.loads(case.target().model_dump_json()), "role": "cloud", "toolchain": "onnxruntime"},
        ),
        ("policies", "default", {"limits": case.limits}),
    ):
        (project.configs / kind).mkdir(parents=True, exist_ok=True)
        (project.configs / kind / f"{name}.yaml").write_text(json.dumps(document))
    places: dict[str, str | None] = {name: str(path) for name, path in case.places().items()}
    made = tmp_path / "made"
    made.mkdir()
    judge(project, made, "m", "edge", places, {}, {"wanted": "cloud", "used": "cloud"}, None, None)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    verdict = json.loads((made / "verdict.json").read_text(), parse_constant=refuse)
    assert verdict["status"] == "PASS"
    assert verdict["observed"] == "here"
    assert "inf" in [f["measured"]["value"] for f in verdict["findings"]]
