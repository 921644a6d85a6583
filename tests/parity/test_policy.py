"""A policy is refused where a limit of it could never bite, or never pass, or says no reason."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from compile.config import ModelFile
from compile.errors import ConfigError
from compile.project import Project
from parity.explain.remedy import still_missed
from parity.limit import KINDS, Metric
from parity.measure import METRICS
from parity.policy import Policy, edits, load_policy, refuse_idle_limits
from tests.conftest import REPOSITORY

SPEED = "  - {metric: latency_ratio, at_most: 1.0, precision: [int8], why: slower has no reason to exist}\n"
AGREEMENT = "  - {metric: agreement, at_least: 0.98, why: one request in fifty is bearable}\n"


def read(folder: Path, text: str) -> Policy:
    (folder / "configs" / "policies").mkdir(parents=True)
    (folder / "configs" / "policies" / "mine.yaml").write_text(text)
    return load_policy(Project(folder), "mine")


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return str(caught.value)


def columns_named(*names: str) -> dict[str, np.ndarray]:
    return {name: np.arange(3) for name in names}


def test_the_shipped_policy_is_accepted_and_every_limit_says_why() -> None:
    policy = load_policy(Project(REPOSITORY), "default")
    assert {limit.metric for limit in policy.limits} >= {"float_error", "sqnr_db", "agreement", "correct"}
    assert all(len(limit.why) > 20 for limit in policy.limits)
    assert policy.allows_deferred("cloud-gpu-tensorrt-fp16")
    assert not policy.allows_deferred("edge-x86-openvino")


def test_a_sound_policy_is_read_as_written(tmp_path: Path) -> None:
    policy = read(tmp_path, f"limits:\n{AGREEMENT}{SPEED}")
    assert [(limit.metric, limit.sense, limit.threshold) for limit in policy.limits] == [
        ("agreement", "at_least", 0.98),
        ("latency_ratio", "at_most", 1.0),
    ]


def test_a_margin_binds_the_difference_from_below(tmp_path: Path) -> None:
    policy = read(tmp_path, f"limits:\n  - {{metric: correct, margin: 0.01, why: one point is bearable}}\n{SPEED}")
    assert (policy.limits[0].sense, policy.limits[0].threshold) == ("at_least", -0.01)


def test_a_relative_margin_binds_the_ratio_from_below(tmp_path: Path) -> None:
    limit = "{metric: correct, relative_margin: 0.02, why: two per cent is bearable}"
    policy = read(tmp_path, f"limits:\n  - {limit}\n{SPEED}")
    assert (policy.limits[0].sense, policy.limits[0].threshold) == ("at_least", 0.98)


@pytest.mark.parametrize(
    "limit",
    [
        "{metric: agreement, at_least: 0, why: anything goes here}",
        "{metric: agreement, at_least: 1, why: never a different answer}",
        "{metric: agreement, at_least: 1.5, why: better than perfect}",
        "{metric: agreement, at_least: -0.5, why: anything goes here}",
        "{metric: agreement, at_least: .nan, why: not even a number}",
        "{metric: agreement, at_most: 0.98, why: the wrong direction}",
        "{metric: agreement, margin: 0.01, why: a margin of nothing}",
        "{metric: agreement, why: no bound at all}",
        "{metric: agreement, at_least: 0.9, at_most: 0.99, why: two bounds at once}",
        "{metric: correct, margin: 0, why: no loss can be proven}",
        "{metric: correct, margin: 1, why: every loss is fine}",
        "{metric: correct, margin: -0.01, why: a gain is demanded}",
        "{metric: correct, at_least: 0.9, why: that is no margin}",
        "{metric: correct, margin: 0.01, relative_margin: 0.01, why: two bounds at once}",
        "{metric: correct, relative_margin: 1, why: every loss is fine}",
        "{metric: agreement, relative_margin: 0.01, why: a margin of nothing}",
        "{metric: float_error, at_most: .inf, why: anything goes here}",
        "{metric: float_error, at_most: .nan, why: not even a number}",
        "{metric: float_error, at_most: 0, why: nothing is this exact}",
        "{metric: sqnr_db, at_least: 0, why: as much noise as signal}",
        "{metric: sqnr_db, at_least: -.inf, why: anything goes here}",
        "{metric: sqnr_db, at_least: 15, precision: [], why: binds no precision}",
        "{metric: sqnr_db, at_least: 15, against: [float], why: the wrong side}",
        "{metric: size_ratio, at_most: 0.5, precision: [float32], why: float has no twin}",
        "{metric: agreement, at_least: 0.98, confidence: 0.3, why: less than a coin}",
        "{metric: agreement, at_least: 0.98, confidence: 1, why: nothing is certain}",
        "{metric: agreement, at_least: 0.98, why: short}",
        "{metric: agreement, at_least: 0.98}",
        "{metric: accuracy, at_least: 0.98, why: no such metric here}",
    ],
)
def test_a_limit_that_cannot_bite_or_cannot_pass_is_refused(tmp_path: Path, limit: str) -> None:
    message = refused(tmp_path, f"limits:\n  - {limit}\n{SPEED}")
    assert "mine.yaml:2" in message


def test_a_limit_without_a_why_is_told_so(tmp_path: Path) -> None:
    assert "`limits.0.why` is missing" in refused(
        tmp_path, f"limits:\n  - {{metric: agreement, at_least: 0.9}}\n{SPEED}"
    )


def test_no_limits_at_all_are_refused(tmp_path: Path) -> None:
    assert "limits" in refused(tmp_path, "limits: []\n")


def test_an_unknown_key_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    message = refused(tmp_path, f"limits:\n  - {{metric: agreement, at_leest: 0.9, why: one in ten is fine}}\n{SPEED}")
    assert "at_leest" in message
    assert "did you mean `at_least`?" in message


@pytest.mark.parametrize(
    "speed",
    [
        "",
        "  - {metric: latency_ratio, at_most: 1.5, precision: [int8], why: half as slow again}\n",
        "  - {metric: latency_ratio, at_most: 1.0, precision: [float16], why: float has no twin}\n",
    ],
)
def test_int8_without_a_limit_that_keeps_it_from_being_slower_is_refused(tmp_path: Path, speed: str) -> None:
    assert "latency_ratio" in refused(tmp_path, f"limits:\n{AGREEMENT}{speed}")


def test_size_as_the_goal_needs_no_speed_but_a_reason(tmp_path: Path) -> None:
    good = read(tmp_path / "good", f"goal: {{kind: size, why: it must fit into 2 MB of flash}}\nlimits:\n{AGREEMENT}")
    assert good.goal is not None
    assert "goal.why" in refused(tmp_path / "bare", f"goal: {{kind: size}}\nlimits:\n{AGREEMENT}")
    assert "latency_ratio" in refused(
        tmp_path / "speed", f"goal: {{kind: speed, why: we like it fast}}\nlimits:\n{AGREEMENT}"
    )


def test_a_policy_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="did you mean `default`"):
        load_policy(Project(REPOSITORY), "defalt")


def test_every_metric_of_the_policy_can_be_measured_and_says_what_it_is() -> None:
    assert set(METRICS) == set(KINDS) == set(get_args(Metric))


@pytest.mark.parametrize(
    ("metric", "bound"),
    [
        (m, f"{b}: {v}")
        for m, k in KINDS.items()
        for b in k.bounds
        for v in (0, -1, ".inf", *([1.5] if k.span[1] == 1 else []))
    ],
)
def test_no_metric_takes_a_bound_outside_of_what_it_can_be(tmp_path: Path, metric: str, bound: str) -> None:
    refused(tmp_path, f"limits:\n  - {{metric: {metric}, {bound}, why: a limit that cannot bite}}\n{SPEED}")


ROUTE = "route: {confidence: 0.92, payload: {column: payload_bytes, below: 2000000}, why: as the gateway does}\n"


def test_a_limit_on_routing_needs_the_rule(tmp_path: Path) -> None:
    limit = "  - {metric: route_flips, at_most: 0.01, why: one request in a hundred may change sides}\n"
    assert "route_flips needs the deployed rule" in refused(tmp_path / "a", f"limits:\n{limit}{SPEED}")
    assert read(tmp_path / "b", f"{ROUTE}limits:\n{limit}{SPEED}").route is not None


def test_a_rollback_threshold_has_an_owner_and_one_side(tmp_path: Path) -> None:
    one = "{signal: agreement in the shadow, below: 0.97, over: 1 hour, why: half of the margin is gone}"
    good = f"rollback: {{owner: vision on call, thresholds: [{one}]}}\nlimits:\n{AGREEMENT}{SPEED}"
    policy = read(tmp_path / "good", good)
    assert policy.rollback is not None
    assert policy.rollback.owner == "vision on call"
    assert "owner" in refused(tmp_path / "nobody", good.replace("owner: vision on call, ", ""))
    assert "exactly one" in refused(tmp_path / "both", good.replace("below: 0.97", "below: 0.97, above: 0.99"))


def test_an_edit_of_a_limit_is_told_as_old_to_new(tmp_path: Path) -> None:
    was = read(tmp_path / "was", f"{ROUTE}limits:\n{AGREEMENT}{SPEED}")
    now = read(tmp_path / "now", f"limits:\n{AGREEMENT.replace('0.98', '0.9')}{SPEED}")
    assert edits(was.spelled, now.spelled) == [
        "agreement at least 0.98, 95 % confidence -> agreement at least 0.9, 95 % confidence",
        "route: kept above 0.92, payload_bytes below 2e+06 -> nothing",
    ]
    assert edits(now.spelled, now.spelled) == []
    free = read(tmp_path / "free", f"{ROUTE}goal: {{kind: size, why: it must fit}}\nlimits:\n{AGREEMENT}{SPEED}")
    assert edits(was.spelled, free.spelled) == ["nothing -> goal size: int8 is exempt from the limit on latency_ratio"]


def test_an_edit_of_what_a_limit_is_measured_of_is_told_too(tmp_path: Path) -> None:
    """Fewer columns, larger slices, more that may wait: each loosens a policy with its bounds as they were."""
    slices = "  - {metric: worst_slice, at_least: 0.9, why: no kind of request is hit hard}\n"
    was = read(tmp_path / "was", f"limits:\n{slices}{SPEED}")
    by = read(tmp_path / "by", f"limits:\n{slices.replace('at_least', 'by: [light], at_least')}{SPEED}")
    larger = read(tmp_path / "larger", f"limits:\n{slices.replace('at_least', 'smallest: 500, at_least')}{SPEED}")
    waits = read(tmp_path / "waits", f"allow_deferred: ['*']\nlimits:\n{slices}{SPEED}")
    told = [edits(was.spelled, now.spelled) for now in (by, larger, waits)]
    assert [len(one) for one in told] == [1, 1, 1]
    assert "by light in slices from 50 rows" in told[0][0]
    assert "from 50 rows at least 0.9, 95 % confidence -> worst_slice in slices from 500 rows" in told[1][0]
    assert told[2] == ["nothing -> may be deferred: *"]


def model(kind: str) -> ModelFile:
    return ModelFile.model_validate(
        {
            "source": {"onnx": "m.onnx"},
            "inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}},
            "outputs": {"y": {"dtype": "float32", "shape": ["batch", 4]}},
            "suite": {"npz": "s.npz"},
            "task": {"kind": kind},
            "targets": ["edge"],
        }
    )


def test_a_limit_that_this_model_can_never_meet_is_refused_not_skipped(tmp_path: Path) -> None:
    limit = "  - {metric: auc, margin: 0.01, why: one point of area is bearable}\n"
    policy = read(tmp_path, f"{ROUTE}limits:\n{limit}{SPEED}")
    with pytest.raises(ConfigError, match=r"auc is a metric of binary_score; this model's task is classification"):
        refuse_idle_limits(policy, model("classification"), columns_named(*["labels", "payload_bytes"]))
    with pytest.raises(ConfigError, match=r"auc needs labels; the suite has none"):
        refuse_idle_limits(policy, model("binary_score"), columns_named(*["payload_bytes"]))
    with pytest.raises(ConfigError, match=r"no column `payload_bytes`"):
        refuse_idle_limits(policy, model("binary_score"), columns_named(*["labels"]))
    refuse_idle_limits(policy, model("binary_score"), columns_named(*["labels", "payload_bytes"]))


def test_right_answers_are_expected_only_where_labels_can_tell(tmp_path: Path) -> None:
    policy = read(tmp_path, f"source: {{at_least: 0.9, why: it reached 0.93 when it was trained}}\nlimits:\n{SPEED}")
    assert policy.spelled["source"] == "source right at least 0.9"
    refuse_idle_limits(policy, model("classification"), columns_named(*["labels"]))
    for kind, columns in (("classification", ["id"]), ("none", ["labels"])):
        with pytest.raises(ConfigError, match="source: right answers need labels"):
            refuse_idle_limits(policy, model(kind), columns_named(*columns))
    for strange in ("1.0", "0", "90"):
        with pytest.raises(ConfigError, match="at_least"):
            read(tmp_path / strange, f"source: {{at_least: {strange}, why: it reached that}}\nlimits:\n{SPEED}")


@pytest.mark.parametrize(
    ("limit", "kind", "columns", "why"),
    [
        (
            "metric: worst_slice, by: [color], at_least: 0.9",
            "classification",
            ["labels", "colour"],
            r"no column `color`.*colour",
        ),
        ("metric: correct, margin: 0.01", "none", ["labels"], r"gives them no meaning"),
        ("metric: confidence_drift, at_most: 5", "classification", ["labels"], r"can never bite"),
        ("metric: confidence_drift, at_most: 1", "binary_score", ["labels"], r"can never bite"),
    ],
)
def test_a_limit_that_can_never_bite_on_this_model_is_refused(
    tmp_path: Path, limit: str, kind: str, columns: list[str], why: str
) -> None:
    policy = read(tmp_path, f"limits:\n  - {{{limit}, why: a limit that says nothing here}}\n{SPEED}")
    with pytest.raises(ConfigError, match=why):
        refuse_idle_limits(policy, model(kind), columns_named(*columns))


@pytest.mark.parametrize("limit", ["kl, at_most: 1000", "float_error, at_most: 1e12"])
def test_a_distance_beyond_what_it_can_be_is_refused_at_once(tmp_path: Path, limit: str) -> None:
    spelled = f"  - {{metric: {limit}, why: a limit that says nothing}}\n"
    assert "can never bite" in refused(tmp_path, f"limits:\n{spelled}{SPEED}")


def test_a_remedy_that_helps_too_little_says_what_is_asked(tmp_path: Path) -> None:
    strict = "  - {metric: agreement, at_least: 0.999, precision: [int8], why: one in a thousand}\n"
    policy = read(tmp_path, f"limits:\n{strict}{SPEED}")
    assert still_missed(policy, "int8", 0.9985) == ", still below the 99.90 % that the policy asks for"
    assert (still_missed(policy, "int8", 0.9991), still_missed(policy, "float32", 0.5)) == ("", "")


def test_a_confidence_that_is_a_tossed_coin_is_refused(tmp_path: Path) -> None:
    limit = "  - {metric: agreement, at_least: 0.98, confidence: 0.51, why: one request in fifty}\n"
    assert "confidence" in refused(tmp_path, f"limits:\n{limit}{SPEED}")
