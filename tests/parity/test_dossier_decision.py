"""The answers of the first screen, and what changed since the last release: every way that they must say no."""

from __future__ import annotations

import math
from typing import Any

import pytest

from compile.config import ModelFile, QuantizeConfig, TargetFile
from parity.dossier import figures, junit, page, summary
from parity.dossier.advice import next_step, when_refused
from parity.dossier.change import Before, limits_changed
from parity.dossier.decision import stand_in
from parity.dossier.document import Dossier, LimitFact, PolicyFact
from parity.dossier.evidence import Cause
from parity.dossier.judged import all_hold, limits, missed, reason
from parity.dossier.reading import used
from parity.dossier.terms import judged_as, suite_term
from tests.parity.dossier_facts import LIMIT, POLICY, dossier, finding, pair, target

FOUND = Cause(missing=None, cause="quantization", explained=True, sentence="The head cannot be held in int8.")
OPEN = Cause(missing=None, cause="unknown", explained=False, sentence="no step of six broke it.")


def test_a_release_with_every_limit_met_may_be_shipped_and_the_closest_limit_is_named() -> None:
    far, near = finding(used=0.1), finding(metric="correct", unit="points", value=-0.005, limit=-0.01, used=0.9)
    found = dossier(target("one", findings=(far,)), target("two", findings=(far, near))).ship
    assert found.word == "yes"
    assert "2 of 2 targets pass every limit" in found.sentence
    assert (
        "Closest to its limit: two, whose share of correct answers against the source is −0.50 points" in found.sentence
    )
    assert "at most 1 point lost is asked; 90 % of the allowance is used." in found.sentence


def test_of_several_missed_limits_the_one_furthest_out_decides_and_a_broken_law_before_all() -> None:
    out = (finding("FAIL", "agreement", used=1.2), finding("FAIL", "correct", used=4.0, unit="share"))
    assert "correct" in dossier(target(status="FAIL", findings=out)).ship.sentence
    law = finding("FAIL", "finite", unit="breaches", used=None, sentence="finite: `y` holds NaN or infinity")
    assert "Furthest out: finite: `y` holds NaN" in dossier(target(status="FAIL", findings=(*out, law))).ship.sentence


def test_what_has_no_bounds_is_not_called_the_furthest_out() -> None:
    """Of nothing known nobody knows how far it is out; what could not be measured at all comes before what was."""
    wide = finding("INCONCLUSIVE", "agreement", used=1.3)
    bare = finding("INCONCLUSIVE", "overlap", used=None, low=-math.inf, high=math.inf)
    nothing = finding("INCONCLUSIVE", "recall", used=None, value=math.nan)
    assert "Furthest out: agreement" in reason(target(status="INCONCLUSIVE", findings=(bare, wide)))
    assert "Furthest out: recall" in reason(target(status="INCONCLUSIVE", findings=(bare, wide, nothing)))


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-math.inf, math.inf, "99.00 % (no interval)"),
        (-math.inf, 0.995, "99.00 % (at most 99.50 %)"),
        (0.985, math.inf, "99.00 % (at least 98.50 %)"),
    ],
)
def test_a_bound_that_is_not_there_is_no_number(low: float, high: float, shown: str) -> None:
    assert figures.measured(finding(low=low, high=high)) == shown


def test_large_figures_have_separators() -> None:
    found = finding(
        "FAIL",
        "float error",
        unit="floors",
        sense="at_most",
        limit=10,
        value=44575861.0,
        low=44575861.0,
        high=44575861.0,
    )
    assert figures.value(found) == "44,575,861 floors"


def test_an_agreement_without_a_bound_says_so_in_every_table() -> None:
    assert figures.agreeing(1.0, 0.0) == "100 % (no bound)"
    one = dossier(target(pairs=(pair("source").model_copy(update={"agree_low": 0.0}),)))
    for shown in (summary.markdown(one), page.release(one)):
        assert "no bound" in shown
        assert "≥ 0" not in shown


def test_no_limit_that_is_missed_or_open_goes_unnamed_in_the_answer() -> None:
    both = [finding("FAIL", "agreement", used=2.0, against=side) for side in ("source", "baseline")]
    others = (finding("FAIL", "correct", used=1.5), finding("INCONCLUSIVE", "route flips", used=1.1, needed=5000))
    one = target(status="FAIL", findings=(finding(), *both, *others))
    said = dossier(one).ship.sentence
    assert "edge fails: 2 of 3 limits are missed, 1 is open." in said
    assert "Furthest out: agreement against the source and cloud is 99.00 % (98.50 to 99.50 %); at least 98 %" in said
    assert said.endswith("Also missed: share of correct answers. Also open: route flips.")
    assert one.stand_in is not None
    assert one.stand_in.sentence.startswith("2 of 3 limits are missed, 1 is open. Furthest out: agreement")


def test_limits_are_counted_once_for_all_sides_and_laws_apart() -> None:
    """One limit on slices, whose worst is another on either side; one of agreement that holds on one side alone; two laws."""
    slices = [
        finding("FAIL", f"agreement in the worst of 9 slices ({kind})", of="worst_slice", against=side)
        for kind, side in (("a", "source"), ("b", "baseline"))
    ]
    agreement = [finding(), finding("INCONCLUSIVE", against="baseline")]
    laws = [
        finding("PASS", "schema", unit="breaches", of=None, used=None),
        finding("FAIL", "finite", unit="breaches", of=None, used=None, sentence="finite: `y` holds NaN"),
    ]
    one = target(status="FAIL", findings=(*laws, *slices, *agreement))
    assert list(limits(one).values()) == ["FAIL", "INCONCLUSIVE"]
    assert reason(one).startswith("1 of 2 limits is missed, 1 is open, 1 law is broken. Furthest out: finite")
    assert all_hold(target(findings=(laws[0], finding(), finding(against="baseline")))).startswith("All 1 limits")


def test_what_may_be_shipped_says_how_it_gets_to_devices_and_what_may_not_does_not() -> None:
    ready, refused = dossier(target()).ship, dossier(target(status="FAIL", findings=(finding("FAIL"),))).ship
    assert ready.next is not None
    assert "`lockstep promote m VERSION staging`" in ready.next
    assert "promote" not in str(refused.next)


def test_a_metric_that_is_missed_with_other_figures_on_the_other_side_is_named_with_its_side() -> None:
    source = finding("FAIL", "overlap", used=2.0)
    cloud = finding("FAIL", "overlap", used=1.9, against="baseline", value=0.97)
    assert reason(target(status="FAIL", findings=(source, cloud))).endswith("Also missed: overlap against cloud.")


def test_what_is_missed_alike_on_both_sides_is_one_sentence_and_else_two() -> None:
    source, cloud = (finding("FAIL", against=side) for side in ("source", "baseline"))
    other = cloud.model_copy(update={"value": 0.97})
    assert [one.sides for one in missed(target(findings=(source, cloud)))] == [("the source", "cloud")]
    assert [one.sides for one in missed(target(findings=(source, other)))] == [("the source",), ("cloud",)]


def test_a_table_of_limits_gives_what_is_alike_on_both_sides_one_row() -> None:
    source, cloud = (finding(against=side) for side in ("source", "baseline"))
    rows = {
        n: page.target(dossier(one), one).count('data-label="Asked"')
        for n, one in enumerate(
            [target(findings=(source, cloud)), target(findings=(source, cloud.model_copy(update={"n": 999})))]
        )
    }
    assert rows == {0: 1, 1: 2}
    one = target(findings=(source, cloud))
    assert "against the source and cloud" in page.target(dossier(one), one)


@pytest.mark.parametrize(
    ("targets", "word", "says"),
    [
        ([("a", "PASS", {}), ("b", "FAIL", {})], "no", "b fails"),
        ([("a", "PASS", {}), ("b", "ERROR", {}), ("c", "FAIL", {})], "no", "b could not be built or run"),
        ([("a", "FAIL", {}), ("b", "FAIL", {})], "no", "1 more: b"),
        (
            [("a", "FAIL", {}), ("b", "ERROR", {})],
            "no",
            "built or run: ERROR for a reason; besides, a fails: agreement",
        ),
        ([("a", "PASS", {}), ("b", "INCONCLUSIVE", {})], "not yet", "b is undecided"),
        ([("a", "PASS", {}), ("b", "DEFERRED", {})], "not yet", "DEFERRED for a reason"),
        ([("a", "PASS", {}), ("b", "DEFERRED", {"deferral_allowed": True})], "yes", "b goes out unjudged"),
        ([("a", "PASS", {}), ("b", "FAIL", {"required": False, "optional_because": "x"})], "yes", "b is left out"),
        ([("b", "FAIL", {"required": False, "optional_because": "x"})], "no", "No target is fit"),
    ],
)
def test_may_this_be_shipped(targets: list[tuple[str, str, dict[str, Any]]], word: str, says: str) -> None:
    found = dossier(*(target(name, status, **more) for name, status, more in targets)).ship
    assert found.word == word
    assert says in found.sentence


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"value": 0.985}, "about 4,321 fresh rows would show that it holds"),
        ({"value": 0.979}, "about 4,321 fresh rows would show that it is missed"),
        ({"value": 0.02, "limit": 0.03, "sense": "at_most"}, "would show that it holds"),
        ({"value": 0.04, "limit": 0.03, "sense": "at_most"}, "would show that it is missed"),
        ({"of": "worst_slice"}, "about 4,321 fresh rows of that slice would"),
        ({"groups": 50}, "about 217 fresh groups (4,321 rows) would"),
        (
            {"needed": None, "groups": 3, "low": -math.inf, "high": math.inf},
            "so few groups give no interval: 20 at least would",
        ),
        ({"needed": None, "of": "worst_slice", "low": -math.inf}, "more rows of each kind would decide"),
        ({"needed": None}, "no number of rows at these rates would decide"),
        ({"needed": None, "against": "float"}, "measuring again on a quiet machine may decide"),
    ],
)
def test_an_open_limit_says_what_would_decide_and_which_way(more: dict[str, Any], says: str) -> None:
    one = finding("INCONCLUSIVE", **({"needed": 4321} | more))
    facts = dossier(target(status="INCONCLUSIVE", findings=(one,)))
    renderings = (page.release(facts), summary.markdown(facts), junit.xml(facts))
    assert [text for text in (facts.ship.sentence, *renderings) if says not in text] == []


SLOW = finding("FAIL", "latency ratio", unit="ratio", against="float", of="latency_ratio")
UNSTEADY = finding("FAIL", "steady", unit="breaches", of="")
IDLE = finding("FAIL", "limits", unit="breaches", of="")
LARGE = finding("FAIL", "size ratio", unit="ratio", against="float", of="size_ratio")


@pytest.mark.parametrize(
    ("status", "more", "says"),
    [
        ("FAIL", {}, "lockstep explain m t"),
        ("FAIL", {"cause": FOUND}, "The cause: The head cannot be held in int8. `lockstep tune m edge --minutes 5`"),
        ("FAIL", {"cause": FOUND, "precision": "float32"}, "The cause: The head cannot be held in int8."),
        (
            "FAIL",
            {"findings": (SLOW,)},
            "int8 does not pay here: name a float target instead, or `goal: {kind: size, why: …}` in the policy",
        ),
        (
            "FAIL",
            {"findings": (SLOW,)},
            "`lockstep tune m edge --minutes 5` tells whether another recipe is fast enough",
        ),
        ("FAIL", {"findings": (IDLE,)}, "Bind a limit in the policy that answers of other rows miss"),
        ("FAIL", {"findings": (SLOW, UNSTEADY)}, "Look in the artifact for what takes the rows of a batch together"),
        ("FAIL", {"findings": (LARGE,)}, "int8 does not pay here: name a float target instead."),
        ("INCONCLUSIVE", {}, "`lockstep plan m` says how many"),
        ("INCONCLUSIVE", {"findings": (finding("INCONCLUSIVE", value=float("nan")),)}, "`lockstep bundle`"),
        ("INCONCLUSIVE", {"findings": (finding("INCONCLUSIVE", against="float"),)}, "remove the target's `timing`"),
        ("PASS", {}, None),
        ("ERROR", {}, None),
    ],
)
def test_what_does_not_pass_says_what_to_do_next(status: str, more: dict[str, Any], says: str | None) -> None:
    found = next_step(target("edge", status, **more), "m")
    assert found is None if says is None else found is not None and says in found


def test_what_mends_answers_is_not_advised_where_speed_alone_is_missed() -> None:
    usual = QuantizeConfig()
    slow = "\n".join(when_refused("m", usual, {"edge": ["latency_ratio"]}))
    assert "`goal: {kind: size, why: …}`" in slow
    assert "`lockstep tune m edge --minutes 5`" in slow
    assert "a float target in its place" in slow
    assert not any(word in slow for word in ("kl", "calibration rows", "keep_float"))
    both = "\n".join(when_refused("m", usual, {"edge": ["latency_ratio"], "other": ["agreement", "latency_ratio"]}))
    assert "quantize: {algorithm: kl}, more calibration rows, or `keep_float` for the first and last layers" in both
    assert "edge: slower than float" in both
    wrong = "\n".join(when_refused("m", usual, {"edge": ["agreement"]}))
    assert "goal" not in wrong
    assert when_refused("m", usual, {}) == []
    floats = "\n".join(when_refused("m", usual, {"edge": ["agreement"]}, ["cloud"]))
    assert "`lockstep explain m cloud`: the step" in floats
    assert "no recipe mends" in floats
    assert "no recipe mends" not in "\n".join(when_refused("m", usual, {}, ["cloud"]))
    assert not any(word in floats for word in ("tune", "kl", "in its place"))


def test_what_the_config_already_says_is_not_advised() -> None:
    kept = QuantizeConfig(algorithm="kl", keep_float=("stem", "head"))
    told = "\n".join(when_refused("m", kept, {"edge": ["agreement"]}))
    assert "quantize: more calibration rows, or `keep_float` for more layers than it names" in told


def test_the_next_step_stands_on_the_first_screen() -> None:
    facts = dossier(target("edge", "FAIL", next="Try `this`."))
    first = page.release(facts).partition("<nav")[0]
    assert "<strong>Next:</strong> Try <code>this</code>." in first
    assert "<strong>Next:</strong> Try <code>this</code>." in page.target(facts, facts.targets[0])
    assert "Next: Try `this`." in summary.markdown(facts)


@pytest.mark.parametrize(
    ("status", "more", "word", "says"),
    [
        ("PASS", {"cause": FOUND}, "yes", "The head cannot be held in int8."),
        ("PASS", {}, "not yet", "lockstep explain"),
        ("PASS", {"cause": OPEN}, "no", "nobody can say why"),
        ("PASS", {"pairs": (pair(differ=0), pair("source", 0))}, "yes", "All 1,000 answers are those of cloud"),
        ("PASS", {"baseline_used": None}, "not yet", "No cloud target"),
        ("PASS", {"pairs": (pair(differ=0),), "baseline_wanted": "gpu"}, "yes", "gpu was wanted and not seen here"),
        ("FAIL", {"cause": FOUND}, "no", "Agreement against the source"),
        ("ERROR", {}, "no", "ERROR for a reason"),
        ("ERROR", {"why": "pump: targets/edge/build: it broke"}, "no", "pump: targets/edge/build"),
        ("INCONCLUSIVE", {"cause": FOUND}, "not yet", "Agreement against the source"),
        ("DEFERRED", {"deferral_allowed": True}, "not yet", "DEFERRED for a reason"),
    ],
)
def test_may_the_edge_stand_in(status: str, more: dict[str, Any], word: str, says: str) -> None:
    found = target("edge", status, **more).stand_in
    assert found is not None
    assert found.word == word
    assert says in found.sentence


@pytest.mark.parametrize(
    ("status", "word"), [("PASS", "yes"), ("FAIL", "no"), ("INCONCLUSIVE", "not yet"), ("ERROR", "no")]
)
def test_no_edge_stands_in_for_a_cloud_that_does_not_pass_itself(status: str, word: str) -> None:
    found = stand_in(target("edge", cause=FOUND), target("cloud", status, role="cloud"))
    assert found.word == word
    assert ("passes beside cloud" in found.sentence) == (status != "PASS")


@pytest.mark.parametrize(
    ("unit", "sense", "limit", "low", "high", "share"),
    [
        ("share", "at_least", 0.98, 0.99, 1.0, 0.5),
        ("points", "at_least", -0.01, -0.002, 0.1, 0.2),
        ("points", "at_least", -0.01, 0.002, 0.1, 0.0),
        ("ratio", "at_most", 1.0, 0.4, 0.6, 0.6),
        ("relative", "at_least", 0.99, 0.995, 1.0, 0.5),
        ("label", "at_least", -0.5, -0.1, 0.1, 0.2),
        ("plain", "at_least", 0.98, 0.99, 1.0, 0.5),
        ("dB", "at_least", 15, 30, 30, 10**-1.5),
        ("dB", "at_least", 15, 5, 5, 10.0),
        ("floors", "at_most", 10, 12, 12, 1.2),
        ("breaches", "at_most", 0, 0, 0, None),
        ("share", "at_least", 0.98, float("nan"), float("nan"), None),
        ("share", "at_least", 0.98, -math.inf, 0.99, None),
    ],
)
def test_the_allowance_that_is_used_up_is_more_than_all_of_it_exactly_where_a_limit_is_missed(
    unit: str, sense: str, limit: float, low: float, high: float, share: float | None
) -> None:
    assert used(unit, sense, limit, low, high) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("used", "said"),
    [(0.0, "0 %"), (0.003, "under 1 %"), (0.19, "19 %"), (2.0, "200 %"), (31.6, "32 times"), (5e3, "over 100 times")],
)
def test_the_share_of_an_allowance_in_words(used: float, said: str) -> None:
    assert figures.taken(used) == said


def edited(**more: Any) -> PolicyFact:
    return POLICY.model_copy(update={"digest": "q" * 64, "limits": (LIMIT.model_copy(update=more),)})


@pytest.mark.parametrize(
    ("more", "direction", "after"),
    [
        ({"bound": 0.97}, "loosened", "at least 0.97"),
        ({"bound": 0.99}, "tightened", "at least 0.99"),
        ({"confidence": 0.9}, "loosened", "at least 0.98, 90 % confidence"),
        ({"smallest": 500}, "loosened", "at least 0.98, slices from 500 rows"),
        ({"why": "another reason"}, "reworded", "“another reason”"),
    ],
)
def test_an_edited_limit_is_shown_old_and_new(more: dict[str, Any], direction: str, after: str) -> None:
    (found,) = limits_changed(POLICY, edited(**more))
    assert (found.direction, found.after) == (direction, after)
    assert limits_changed(POLICY, POLICY) == ()


def test_a_limit_for_another_side_is_one_gone_and_one_more() -> None:
    assert {c.direction for c in limits_changed(POLICY, edited(against=("source",)))} == {"added", "removed"}


def test_more_deferrals_are_a_loosening() -> None:
    more = POLICY.model_copy(
        update={"allow_deferred": ("cloud-gpu-*", "edge-*"), "besides": {"allow_deferred": "more"}}
    )
    assert [(c.limit, c.direction) for c in limits_changed(POLICY, more)] == [("allow_deferred", "loosened")]
    assert [c.direction for c in limits_changed(more, POLICY)] == ["tightened"]


def test_other_deferrals_in_their_place_are_neither_looser_nor_tighter() -> None:
    other = POLICY.model_copy(update={"allow_deferred": ("cloud-gpuu-*",), "besides": {"allow_deferred": "others"}})
    assert [(c.limit, c.direction) for c in limits_changed(POLICY, other)] == [("allow_deferred", "changed")]


def test_the_route_and_the_rollback_are_told_like_limits() -> None:
    was, now = (POLICY.model_copy(update={"besides": {"route": f"route: kept above {at}"}}) for at in (0.9, 0.5))
    assert [(c.limit, c.direction, c.before, c.after) for c in limits_changed(was, now)] == [
        ("route", "changed", "route: kept above 0.9", "route: kept above 0.5")
    ]
    assert [c.direction for c in limits_changed(was, POLICY)] == ["removed"]


def test_what_changed_since_the_last_release_is_said() -> None:
    old = dossier(target("edge"), target("gone"), source_digest="o" * 64, policy=edited(bound=0.99))
    now = dossier(target("edge", "FAIL", artifact="b" * 64), target("new"), before=Before("version 3", old)).change
    text = " ".join(now.sentences)
    assert now.since == "version 3"
    assert "The source model is another one; the suite is the same." in text
    assert "Limit loosened since version 3" in text
    assert "at least 0.99 → at least 0.98" in text
    assert "edge: PASS → FAIL." in text
    assert "new is new." in text
    assert "gone is no longer a target." in text
    assert {c.name: c.artifact for c in now.targets} == {"edge": "other", "new": "added", "gone": "removed"}


def test_a_first_release_and_one_whose_facts_cannot_be_read_say_so() -> None:
    assert dossier(target()).change.sentences == ("No other release was published before.",)
    unread = dossier(target(), before=Before("version 2", None, "no dossier lies beside it.")).change
    assert unread.sentences == ("version 2 is there, but no dossier lies beside it.",)


SAME = (
    "The source model and the suite are the same.",
    "Every target has the status it had, and as many answers that differ.",
)
CORRECT = (finding(), finding(metric="correct"), finding(metric="correct", against="baseline"))


def told(old: Dossier, *targets: Any, **more: Any) -> tuple[str, ...]:
    return dossier(*targets, before=Before("version 3", old), **more).change.sentences


def test_every_other_artifact_and_the_recipe_behind_it_are_named() -> None:
    """Bytes that nobody judged here are said to be such."""
    old = dossier(target("edge"), target("gpu", "DEFERRED", artifact="a" * 64), recipe={"algorithm": "minmax"})
    now = target("edge", artifact="b" * 64), target("gpu", "DEFERRED", artifact="c" * 64)
    said = told(old, *now, recipe={"algorithm": "kl"})
    assert "Quantized otherwise since version 3: algorithm minmax → kl." in said
    assert "Other artifacts: edge, gpu (not judged here)." in said
    same = told(old, target("edge"), target("gpu", "DEFERRED", artifact="a" * 64), recipe={"algorithm": "minmax"})
    assert not any("artifacts" in one or "Quantized" in one for one in same)


def asked(**terms: str | None) -> PolicyFact:
    """The policy under other terms besides; None takes a term away. `target_edge` stands for `target edge`."""
    edits = {name.replace("target_", "target "): term for name, term in terms.items()}
    found = {n: t for n, t in ((POLICY.judged_as or {}) | edits).items() if t is not None}
    return POLICY.model_copy(update={"judged_as": found})


def test_an_unchanged_run_tells_nothing() -> None:
    old = dossier(target("edge", findings=CORRECT))
    assert told(old, target("edge", findings=CORRECT)) == SAME
    assert told(old, target("edge", findings=CORRECT), judged_before=asked()) == SAME


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (asked(task="none"), "task: classification → none"),
        (asked(baseline=None), "baseline: cloud → none"),
        (asked(baseline="gpu"), "baseline: cloud → gpu"),
        (
            asked(target_edge="not required (beta), edge, int8"),
            "target edge: required, edge, int8 → not required (beta), edge, int8",
        ),
        (asked(preprocess="net:resize"), "preprocess: net:crop → net:resize"),
        (asked(preprocess=None), "preprocess: net:crop → none"),
    ],
)
def test_what_decides_besides_the_policy_is_told_since_the_release_and_since_the_last_verdict(
    now: PolicyFact, sentence: str
) -> None:
    assert f"Judged otherwise since version 3: {sentence}." in told(dossier(target()), target(), policy=now)
    first = dossier(target(), policy=now, judged_before=POLICY).change
    assert f"Judged otherwise since the last verdict: {sentence}." in first.sentences
    both = told(dossier(target()), target(), policy=now, judged_before=POLICY)
    assert [one for one in both if sentence in one] == [
        f"Judged otherwise since version 3 and since the last verdict: {sentence}."
    ]


def test_another_suite_after_a_verdict_is_told_and_none_where_a_run_judged_nothing() -> None:
    was, now = (
        asked(suite=suite_term(4_000, "ab" * 32)),
        asked(suite=suite_term(900, "cd" * 32)),
    )
    first = dossier(target(), policy=now, judged_before=was).change
    assert (
        "Judged otherwise since the last verdict: suite: abababababab (4,000 rows) → cdcdcdcdcdcd (900 rows)."
        in first.sentences
    )
    for sides in ((was, POLICY), (POLICY, now)):
        assert not dossier(target(), policy=sides[1], judged_before=sides[0]).change.judged_as_since_judged
    again = told(dossier(target(), policy=was), target(), policy=now, judged_before=was)
    assert not [one for one in again if "Judged otherwise" in one], "the release's own verdict was the last one"
    released = told(dossier(target(), policy=was), target(), policy=now)
    assert not [one for one in released if "Judged otherwise" in one], (
        "a release says more of another suite than its size"
    )


def test_a_limit_edited_after_release_and_verdict_is_told_once_with_both() -> None:
    found = told(dossier(target()), target(), policy=edited(bound=0.97), judged_before=POLICY)
    assert [one.partition(":")[0] for one in found if "loosened" in one] == [
        "Limit loosened since version 3 and since the last verdict"
    ]
    before = edited(bound=0.99)
    assert (
        len(
            [
                one
                for one in told(dossier(target()), target(), policy=edited(bound=0.97), judged_before=before)
                if "loosened" in one
            ]
        )
        == 2
    )


def test_a_goal_of_size_is_told_as_an_exemption_not_as_a_limit() -> None:
    free = POLICY.model_copy(update={"besides": {"goal": "goal size"}})
    told_as = "latency_ratio of int8: judged → exempt (`goal: size`)."
    assert f"Limit loosened since version 3: {told_as}" in told(dossier(target()), target(), policy=free)
    back = told(dossier(target(), policy=free), target())
    assert "Limit tightened since version 3: latency_ratio of int8: exempt (`goal: size`) → judged." in back
    fast = POLICY.model_copy(update={"besides": {"goal": "goal speed"}})
    assert [one.direction for one in limits_changed(POLICY, fast)] == ["reworded"]


def test_what_is_asked_of_a_new_target_is_no_edit() -> None:
    now = asked(target_new="required, edge, int8")
    assert not any("Judged otherwise" in one for one in told(dossier(target()), target(), target("new"), policy=now))


@pytest.mark.parametrize(
    ("edit", "name", "before", "after"),
    [
        ({"task": {"kind": "none"}}, "task", "binary_score", "none"),
        ({"task": {"kind": "binary_score", "threshold": 0.2}}, "task.threshold", "0.5", "0.2"),
        ({"task": {"kind": "binary_score", "tolerance": 0.3}}, "task.tolerance", "0.1", "0.3"),
        ({"task": {"kind": "binary_score", "output": "y"}}, "task.output", None, "y"),
        ({"task": {"kind": "binary_score", "postprocess": "a:b"}}, "task.postprocess", None, "a:b"),
        ({"baseline": ()}, "baseline", "cloud", None),
        ({"preprocess": "a:b"}, "preprocess", None, "a:b"),
        (
            {"targets": ("cloud", {"name": "edge", "required": False, "why": "beta"})},
            "target edge",
            "required, edge, int8, at least 0.9 of it integer",
            "not required (beta), edge, int8, at least 0.9 of it integer",
        ),
    ],
)
def test_every_edit_of_a_config_that_decides_is_a_term(
    edit: dict[str, Any], name: str, before: str | None, after: str | None
) -> None:
    tensor = {"dtype": "float32", "shape": ["batch", 1]}
    config: dict[str, Any] = {
        "source": {"onnx": "m.onnx"}, "inputs": {"x": tensor}, "outputs": {"y": tensor}, "suite": {"npz": "s.npz"},
        "task": {"kind": "binary_score"}, "baseline": ["cloud"], "targets": ["cloud", "edge"],
    }  # fmt: skip
    kinds = {"cloud": ("float32", "float32"), "edge": ("int8", "int8-symmetric")}
    targets = {
        role: TargetFile.model_validate(
            {"role": role, "hardware": "h", "toolchain": "t", "precision": precision, "dialect": dialect}
        )
        for role, (precision, dialect) in kinds.items()
    }
    was, now = (judged_as(ModelFile.model_validate(one), targets) for one in (config, config | edit))
    assert (was.get(name), now.get(name)) == (before, after)
    assert {n for n in {*was, *now} if was.get(n) != now.get(n)} == {name}


@pytest.mark.parametrize(
    ("kind", "told"), [("embedding", set()), ("detection", {"task.threshold"}), ("regression", {"task.tolerance"})]
)
def test_terms_that_decide_nothing_of_this_task_are_not_shown(kind: str, told: set[str]) -> None:
    terms = {"task": kind, "task.threshold": "0.5", "task.tolerance": "0.1", "baseline": "cloud"}
    assert set(POLICY.model_copy(update={"judged_as": terms}).deciding) == {"task", "baseline"} | told
    assert POLICY.model_copy(update={"judged_as": None}).deciding == {}


def test_limits_that_are_no_longer_judged_are_named_and_the_other_way() -> None:
    more, less = target("edge", findings=CORRECT), target("edge", findings=CORRECT[:1])
    both = "correct against source, correct against baseline"
    assert f"edge: no longer judged: {both}." in told(dossier(more), less)
    assert f"edge: judged now and not then: {both}." in told(dossier(less), more)
    assert not any("no longer judged" in one for one in told(dossier(more), target("edge", "DEFERRED")))


def test_a_suite_that_lost_its_labels_is_told_from_one_with_other_inputs() -> None:
    old = dossier(target())
    relabelled = told(old, target(), suite_digest="v" * 64)
    assert "The suite's inputs are the same, its labels or columns are others." in relabelled
    assert not any("of other rows" in one or "no longer has" in one for one in relabelled)
    bare = told(old, target(right=None), suite_digest="v" * 64, suite_columns=("length",))
    assert "The suite no longer has labels." in bare
    assert "The suite has length besides." in bare
    assert "of other rows" in told(old, target(), suite_digest="v" * 64, suite_inputs_digest="j" * 64)[0]
    assert "cannot be compared" in told(old, target("edge", "ERROR"), suite_digest=None, suite_inputs_digest=None)[0]


def test_where_the_sources_own_right_answers_moved_both_shares_are_given() -> None:
    old = dossier(target("broken", "ERROR"), target(right=(0.9242, 0.9)))
    assert "The source itself was right on 92.42 % of the rows, now on 87.85 %." in told(
        old, target(right=(0.8785, 0.9))
    )
    assert not any("The source itself" in one for one in told(old, target(right=(0.9242, 0.8))))


MARGIN = LIMIT.model_copy(update={"metric": "correct", "kind": "margin", "bound": 0.05})
RELATIVE = LIMIT.model_copy(update={"metric": "correct", "kind": "relative_margin", "bound": 0.1})


@pytest.mark.parametrize(
    ("limits", "after", "told_of"),
    [
        ((LIMIT,), 0.89, False),
        ((LIMIT,), 0.87, True),
        ((LIMIT, MARGIN), 0.87, False),
        ((LIMIT, MARGIN), 0.84, True),
        ((LIMIT, RELATIVE), 0.82, False),
        ((LIMIT, RELATIVE), 0.80, True),
        ((LIMIT, RELATIVE, MARGIN), 0.84, True),
        ((LIMIT,), 0.99, False),
    ],
)
def test_a_source_that_lost_more_than_an_artifact_may_lose_stands_beside_the_answer(
    limits: tuple[LimitFact, ...], after: float, told_of: bool
) -> None:
    policy = POLICY.model_copy(update={"limits": limits})
    old = dossier(target(right=(0.9, 0.9)), policy=policy)
    now = dossier(target(right=(after, after)), before=Before("version 3", old), policy=policy)
    first = page.release(now).partition("<nav")[0].partition("q-stand")[0]
    words = f"the source itself got worse since version 3: it was right on 90.00 % of the rows and is on {after:.2%}"
    for text in (first.replace("\u00a0", " "), summary.markdown(now).partition("**May the edge")[0]):
        assert (words.replace("%", " %").replace("  ", " ") in text) == told_of
    assert now.ship.word == "yes"


def test_where_the_suite_is_another_a_worse_source_is_told_with_that() -> None:
    old = dossier(target(right=(0.9, 0.9)))
    other = dossier(target(right=(0.7, 0.7)), before=Before("version 3", old), suite_digest="v" * 64)
    assert "since version 3, by another suite: it was right" in str(other.change.source_worse)


def test_facts_without_terms_are_compared_in_what_they_say() -> None:
    old = dossier(target(findings=(finding(of=None),)), policy=POLICY.model_copy(update={"judged_as": None}))
    assert told(old, target(findings=CORRECT)) == SAME
