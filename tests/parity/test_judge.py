"""Verdicts on observations written by hand: each law broken once, each limit on both of its sides."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from compile.config import ModelFile
from compile.errors import ConfigError
from compile.project import Project
from parity.judge import examine, judge
from parity.labels import met_by_chance
from parity.policy import Policy
from parity.verdict import Finding, Status, overall
from tests.parity.judged import BATCH, FLOOR, LIMITS, MODEL, ROWS, Case, batches


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A candidate that answers exactly as the source does; labels agree with nine answers of ten."""
    logits = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
    labels = logits.argmax(1)
    labels[::10] = (labels[::10] + 1) % 4
    return Case(
        tmp_path / "case",
        source=batches(logits),
        candidate=batches(logits),
        baseline=batches(logits),
        columns={"labels": labels, "row": np.arange(ROWS)},
        seconds={"artifact": [1e-3] * 100, "float": [2e-3] * 100},
        sizes={"build": 1000, "float": 4000},
    )


def status(findings: list[Finding]) -> Status:
    return overall(findings)


def broken(findings: list[Finding]) -> dict[str, str]:
    return {f"{f.metric} against {f.against}": f.sentence for f in findings if f.status is not Status.PASS}


def test_a_candidate_that_answers_as_the_source_does_passes(case: Case) -> None:
    findings = case.examine()
    assert status(findings) is Status.PASS
    assert {f.metric for f in findings} >= {"schema", "finite", "not constant", "agreement", "correct"}
    assert {f.against for f in findings} == {"source", "baseline"}


Change = Callable[[Case], object]


def set_value(value: float) -> Change:
    return lambda case: case.candidate[1]["logits"].__setitem__((3, 2), value)


def set_output(make: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda case: case.candidate[2].update(logits=make(case.candidate[2]["logits"]))


def set_all(make: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda case: [batch.update(logits=make(batch["logits"])) for batch in case.candidate]


LAWS: dict[str, tuple[Change, str]] = {
    "nan": (set_value(np.nan), "finite"),
    "positive infinity": (set_value(np.inf), "finite"),
    "negative infinity": (set_value(-np.inf), "finite"),
    "nan in the source": (lambda case: case.source[0]["logits"].__setitem__((0, 0), np.nan), "finite"),
    "a column less": (set_output(lambda a: a[:, :3]), "schema"),
    "an axis more": (set_output(lambda a: a[None]), "schema"),
    "a row less": (set_output(lambda a: a[:-1]), "schema"),
    "a wider dtype": (set_output(lambda a: a.astype(np.float64)), "schema"),
    "a narrower dtype": (set_output(lambda a: a.astype(np.float16)), "schema"),
    "no such output": (lambda case: case.candidate[0].pop("logits"), "schema"),
    "another name": (lambda case: case.candidate[0].update(out=case.candidate[0].pop("logits")), "schema"),
    "a batch less": (lambda case: case.candidate.pop(), "schema"),
    "a batch more": (lambda case: case.candidate.append(case.candidate[0]), "schema"),
    "nothing observed": (lambda case: case.candidate.clear(), "schema"),
    "one number throughout": (set_all(lambda a: np.full_like(a, 0.25)), "not constant"),
    "one row throughout": (set_all(lambda a: np.tile(np.float32([1, 2, 3, 4]), (len(a), 1))), "not constant"),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_broken_law_fails_the_verdict(case: Case, name: str) -> None:
    change, law = LAWS[name]
    change(case)
    findings = case.examine()
    assert status(findings) is Status.FAIL
    assert list(broken(findings)) == [f"{law} against source"]


def test_nan_is_named_by_its_row_in_the_data_and_with_how_many_rows_have_such(case: Case) -> None:
    """Answers stand in another order than the data: of a model with state, streams run side by side."""
    case.columns |= {"row": np.arange(ROWS)[::-1], "id": np.array([f"take-{i}" for i in range(ROWS)])}
    case.candidate[1]["logits"][3, :2] = case.candidate[2]["logits"][5, 0] = np.nan
    said = broken(case.examine())["finite against source"]
    assert said == f"finite: `logits` holds NaN or infinity in 2 of 1,000 rows, the first `take-{ROWS - 1 - 253}`"


@pytest.mark.parametrize("rows", [None, 0])
def test_an_empty_suite_fails(case: Case, rows: int | None) -> None:
    """No batch at all, and batches without a row: nothing was judged."""
    for side in ("source", "candidate", "baseline"):
        setattr(case, side, [] if rows is None else [{"logits": np.zeros((0, 4), np.float32)}])
    findings = case.examine()
    assert status(findings) is Status.FAIL
    assert "empty" in broken(findings)["schema against source"]


def test_an_output_may_be_constant_where_the_source_is_too(case: Case) -> None:
    for side in (case.source, case.candidate, case.baseline):
        assert side is not None
        for batch in side:
            batch["logits"] = np.tile(np.float32([1, 2, 3, 4]), (BATCH, 1))
    case.columns["labels"] = np.full(ROWS, 3)
    assert status(case.examine()) is Status.PASS


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


def test_shuffled_labels_are_refused(case: Case) -> None:
    """A paired test cannot see labels that are wrong for both sides: nothing is lost where nothing is known."""
    case.columns["labels"] = np.random.default_rng(6).permutation(case.columns["labels"])
    with pytest.raises(ConfigError, match="shuffled labels would give"):
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


def integer(case: Case, ratio: float) -> Case:
    case.precision = "int8"
    case.limits = [limit for limit in LIMITS if limit["metric"] != "float_error"]
    case.seconds = {"artifact": [ratio * 1e-3] * 100, "float": [1e-3] * 100}
    return case


def test_an_integer_artifact_faster_than_float_passes(case: Case) -> None:
    assert status(integer(case, 0.5).examine()) is Status.PASS


def test_an_integer_artifact_slower_than_float_is_refused_with_the_figures(case: Case) -> None:
    findings = integer(case, 1.25).examine()
    assert status(findings) is Status.FAIL
    sentence = broken(findings)["latency ratio against float"]
    assert "1.25" in sentence
    assert "at most 1" in sentence


def test_an_integer_artifact_whose_speed_was_not_measured_beside_float_fails(case: Case) -> None:
    integer(case, 0.5).seconds.pop("float")
    findings = case.examine()
    assert list(broken(findings)) == ["latency ratio against float"]
    assert status(findings) is Status.FAIL


@pytest.mark.parametrize("bad", [float("nan"), 0.0])
def test_a_time_that_is_no_time_fails(case: Case, bad: float) -> None:
    integer(case, 0.5).seconds["float"][50] = bad
    assert list(broken(case.examine())) == ["latency ratio against float"]


def test_a_noisy_timing_is_inconclusive_and_says_to_measure_again(case: Case) -> None:
    integer(case, 1.0).seconds["artifact"] = [1e-3 * (1.2 if i % 2 else 0.8) for i in range(100)]
    findings = case.examine()
    assert status(findings) is Status.INCONCLUSIVE
    assert "measure again" in broken(findings)["latency ratio against float"]


def test_size_as_the_goal_lets_a_slower_artifact_pass(case: Case) -> None:
    integer(case, 1.25).goal = {"kind": "size", "why": "it must fit into 2 MB of flash"}
    findings = case.examine()
    assert status(findings) is Status.PASS
    assert "latency ratio" not in {f.metric for f in findings}


@pytest.mark.parametrize(("limit", "wanted"), [(0.25, Status.PASS), (0.24, Status.FAIL)])
def test_size_ratio_is_bytes_over_the_bytes_of_the_float_twin(case: Case, limit: float, wanted: Status) -> None:
    """1000 bytes beside 4000."""
    integer(case, 0.5).limits.append({"metric": "size_ratio", "at_most": limit, "why": "flash is what is short here"})
    assert status(case.examine()) is wanted


def test_a_size_that_has_nothing_to_be_compared_with_fails(case: Case) -> None:
    integer(case, 0.5).limits.append({"metric": "size_ratio", "at_most": 0.5, "why": "flash is what is short here"})
    del case.sizes["float"]
    assert list(broken(case.examine())) == ["size ratio against float"]


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


def test_postprocess_gives_the_answers_that_are_compared(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's function says that 0 and 1 are one class, 2 and 3 another; a swap within a pair is then no difference."""
    (tmp_path / "judged_pairs.py").write_text("def pairs(outputs):\n    return outputs['logits'].argmax(1) // 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    case.candidate = batches(np.concatenate([b["logits"][:, [1, 0, 3, 2]] for b in case.candidate]))
    case.columns["labels"] = case.columns["labels"] // 2
    case.limits = [limit for limit in LIMITS if limit["metric"] != "float_error"]
    plain = replace(case, root=tmp_path / "plain").examine()
    assert status(plain) is Status.FAIL
    case.model = {**MODEL, "task": {"kind": "classification", "postprocess": "judged_pairs:pairs"}}
    assert status(case.examine()) is Status.PASS


CODE = """
import numpy as np
seen = []
def sure(outputs):
    seen.append(len(outputs['logits']))
    spread = np.ptp(outputs['logits'], axis=1)
    if not spread.all() or not np.isfinite(spread).all():
        raise ValueError('nothing to choose from')
    return outputs['logits']
"""


@pytest.mark.parametrize("name", ["nan", "one number throughout"])
def test_a_broken_law_is_told_instead_of_what_the_users_code_makes_of_it(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The user's code sees batches as they were observed, and none of those that are known to break a law."""
    (tmp_path / "judged_sure.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "judged_sure", raising=False)
    case.model = {**MODEL, "task": {"kind": "classification", "postprocess": "judged_sure:sure"}}
    change, law = LAWS[name]
    change(case)
    assert list(broken(case.examine())) == [f"{law} against source"]
    assert set(sys.modules["judged_sure"].seen) <= {BATCH}


def test_what_the_users_code_raises_is_told_where_no_law_is_broken(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judged_never.py").write_text("def never(outputs):\n    raise ValueError('not today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    case.model = {**MODEL, "task": {"kind": "classification", "postprocess": "judged_never:never"}}
    with pytest.raises(ConfigError, match="not today"):
        case.examine()


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
