"""Slices, and the verdict on the worst of them: what overall agreement hides must be seen, and noise must not fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compile.config import ModelFile
from compile.errors import ConfigError
from parity.limit import Limit
from parity.rows import Rows
from parity.slices import columns_to_slice, cut_columns, slices
from parity.verdict import Finding, Status
from tests.parity.judged import LIMITS, MODEL, ROWS, Case, batches

SPEED = next(limit for limit in LIMITS if limit["metric"] == "latency_ratio")
WORST = {"metric": "worst_slice", "at_least": 0.9, "why": "no kind of request may be hit much harder than others"}


@pytest.fixture
def sliced(tmp_path: Path) -> Case:
    """A thousand rows, four cameras of which the last is rare; the candidate answers as the source does."""
    logits = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
    camera = np.array(["front"] * 500 + ["rear"] * 300 + ["left"] * 190 + ["cabin"] * 10)
    return Case(
        tmp_path / "case",
        source=batches(logits),
        candidate=batches(logits),
        baseline=batches(logits),
        columns={"labels": logits.argmax(1), "camera": camera, "row": np.arange(ROWS)},
        seconds={"artifact": [1e-3] * 100, "float": [2e-3] * 100},
        sizes={"build": 1000, "float": 4000},
        limits=[WORST, SPEED],
    )


def flip(case: Case, rows: np.ndarray) -> None:
    logits = np.concatenate([batch["logits"] for batch in case.candidate])
    logits[rows] = np.roll(logits[rows], 1, axis=1)
    case.candidate = batches(logits)


def worst(case: Case) -> Finding:
    found = [f for f in case.examine() if f.metric.startswith("agreement in the worst") and f.against == "source"]
    assert len(found) == 1
    return found[0]


def test_equal_answers_pass_in_every_slice(sliced: Case) -> None:
    sliced.limits = [{**WORST, "smallest": 5, "by": ["labels"]}, SPEED]
    assert worst(sliced).status is Status.PASS


def test_a_slice_that_broke_fails_though_overall_agreement_would_pass(sliced: Case) -> None:
    """Forty of the left camera's 190 answers change: 96 % agree overall, 79 % there."""
    flip(sliced, np.arange(800, 840))
    sliced.limits = [{**WORST, "by": ["camera"], "smallest": 20}, SPEED]
    found = worst(sliced)
    assert found.status is Status.FAIL
    assert "camera = left" in found.metric
    assert found.measured.value == pytest.approx(150 / 190)


def test_the_same_number_of_changes_spread_over_all_rows_does_not_fail(sliced: Case) -> None:
    flip(sliced, np.arange(0, ROWS, 25))
    sliced.limits = [{**WORST, "by": ["camera"], "smallest": 20}, SPEED]
    assert worst(sliced).status is not Status.FAIL


def test_slices_larger_than_the_suite_are_refused(sliced: Case) -> None:
    sliced.limits = [{**WORST, "by": ["camera"], "smallest": ROWS + 1}, SPEED]
    with pytest.raises(ConfigError, match="every slice would be all of them"):
        worst(sliced)


def test_a_slice_too_small_to_tell_is_inconclusive(sliced: Case) -> None:
    """Ten equal answers prove 74 % and no more."""
    sliced.limits = [{**WORST, "by": ["camera"], "smallest": 5}, SPEED]
    flip(sliced, np.arange(4))
    found = worst(sliced)
    assert found.status is Status.INCONCLUSIVE
    assert "camera = cabin" in found.metric, "the slice that cannot tell is named, though others agree less"
    assert found.measured.low == pytest.approx(0.05 ** (1 / 10))
    assert found.measured.needed == 29
    assert "about 29 rows of that slice at these rates would show that it holds" in found.sentence


def rare(case: Case) -> None:
    """Two hundred stores of five rows each."""
    case.columns["store"] = np.arange(ROWS) // 5


def test_kinds_that_are_all_too_small_are_not_shown_to_hold(sliced: Case) -> None:
    """One store of two hundred always answers otherwise: over all rows that is 99.5 % alike."""
    rare(sliced)
    flip(sliced, np.arange(5))
    sliced.limits = [{**WORST, "by": ["store"]}, SPEED]
    found = [f for f in sliced.examine() if f.of == "worst_slice" and f.against == "source"]
    assert [f.status for f in found] == [Status.INCONCLUSIVE]
    assert found[0].metric == "agreement in slices by store, all of them too small"
    assert "bring more rows of each, or name others in `by`" in found[0].sentence
    assert found[0].measured.needed is None


def test_kinds_that_are_all_too_small_fail_where_all_rows_miss_the_limit(sliced: Case) -> None:
    rare(sliced)
    flip(sliced, np.arange(0, ROWS, 4))
    sliced.limits = [{**WORST, "by": ["store"]}, SPEED]
    assert [f.status for f in sliced.examine() if f.of == "worst_slice"] == [Status.FAIL, Status.FAIL]


def test_a_column_without_a_slice_is_left_out_where_others_have_some(sliced: Case) -> None:
    rare(sliced)
    del sliced.columns["camera"]
    sliced.limits = [{**WORST, "by": []}, SPEED]
    found = worst(sliced)
    assert found.status is Status.PASS
    assert not any("store" in str(part["name"]) for part in found.measured.parts)


def test_a_truth_at_the_limit_in_every_slice_seldom_fails() -> None:
    """Twenty slices, each agreeing exactly as often as the limit asks: fewer than one judging in twenty may FAIL."""
    from parity.statistics import counted

    random, n, k = np.random.default_rng(0), 200, 20
    counts = random.binomial(n, 0.9, (2000, k))
    at_once = 1 - 0.05 / k
    high = {count: counted.share(int(count), n, at_once).high for count in np.unique(counts)}
    alone = {count: counted.share(int(count), n, 0.95).high for count in np.unique(counts)}
    failed = np.mean([min(high[c] for c in row) < 0.9 for row in counts])
    assert failed <= 0.055
    assert np.mean([min(alone[c] for c in row) < 0.9 for row in counts]) > 0.3, "uncorrected bounds would cry wolf"


def test_small_values_are_one_slice_together_and_named() -> None:
    columns = cut_columns({"kind": np.array(["a"] * 60 + ["b"] * 3 + ["c"] * 2)}, None)
    assert [(part.name, part.size) for part in slices(columns, (), 50)] == [
        ("kind = a", 60),
        ("kind = b, c together", 5),
    ]


def rows_with(columns: dict[str, np.ndarray], n: int, **facts: np.ndarray) -> Rows:
    """Rows that all agree, with these columns."""
    task = ModelFile.model_validate(MODEL).task
    nothing = np.zeros(n)
    return Rows(task, nothing, nothing, np.ones(n, bool), facts, columns, None, 0)


def test_names_and_groups_are_no_slices_and_numbers_are_cut_into_quarters() -> None:
    rows = np.arange(400)
    columns = {"id": rows, "group": rows // 10, "level": rows / 7, "name": rows.astype(str)}
    found = slices(columns_to_slice(rows_with(columns, 400)), (), 50)
    assert [part.size for part in found] == [100, 100, 100, 100]
    assert all(part.name.startswith("level = ") for part in found)


def test_the_confidence_of_the_reference_is_cut_into_tenths() -> None:
    sure = np.random.default_rng(0).permutation(np.linspace(0.3, 1, 1000))
    found = slices(columns_to_slice(rows_with({}, 1000, confidence=sure)), (), 50)
    assert [part.size for part in found] == [100] * 10
    lowest = next(part for part in found if part.name.startswith("confidence of the reference = 0.3 "))
    assert sorted(sure[lowest.rows]) == sorted(sure)[:100]


def test_a_slice_that_differs_is_starred_after_holm_and_chance_is_not(sliced: Case) -> None:
    """Fisher's exact p-values of scipy, adjusted by statsmodels, say the same."""
    from scipy.stats import fisher_exact
    from statsmodels.stats.multitest import multipletests

    flip(sliced, np.arange(800, 840))
    sliced.limits = [{**WORST, "by": ["camera"], "smallest": 5}, SPEED]
    parts = worst(sliced).measured.parts
    assert {p["name"] for p in parts if p["differs"]} == {"camera = front", "camera = rear", "camera = left"}
    bad = {"camera = cabin": 0, "camera = front": 0, "camera = left": 40, "camera = rear": 0}
    size = {p["name"]: p["n"] for p in parts}
    p = [fisher_exact([[size[n] - b, b], [960 - size[n] + b, 40 - b]]).pvalue for n, b in bad.items()]
    assert [name for name, holds in zip(bad, multipletests(p, 0.05, "holm")[0], strict=True) if holds] == sorted(
        str(part["name"]) for part in parts if part["differs"]
    )


def test_a_column_that_is_not_there_is_named_with_the_nearest() -> None:
    columns = cut_columns({"camera": np.array(["a", "b"])}, None)
    with pytest.raises(ConfigError, match=r"(?s)no column `camra`.*did you mean `camera`"):
        slices(columns, ("camra",), 1)


def test_by_and_smallest_are_for_slices_alone() -> None:
    with pytest.raises(ValueError, match="is for worst_slice"):
        Limit.model_validate({"metric": "agreement", "at_least": 0.9, "by": ["labels"], "why": "of every label"})
