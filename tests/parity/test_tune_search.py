"""The pure parts of tuning: what is tried next, which of several is best, and how a recipe is written into a config."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from compile.digest import of_file
from compile.recipe import Recipe
from parity.tune.record import open_record
from parity.tune.search import Choices, fewest, kept, search, seldom, thinned, usual
from parity.tune.trial import Met, Trial, best, described, met
from parity.tune.written import quantize_block, with_recipe, with_terms
from parity.verdict import Finding, Measured, Status

BASE = Recipe("uint8-asymmetric", smoothing=0.75)
LAYERS = [f"layer{i}" for i in range(9)]


def trial(number: int, recipe: Recipe, room: float, ratio: float | None = None) -> Trial:
    passed = room >= 0
    shown = (ratio, ratio, ratio) if ratio is not None else None
    answers = Met("agreement", f"room {room}", passed, room)
    speed = () if ratio is None else (Met("latency_ratio", f"{ratio} × float's time", ratio <= 1, 1 - ratio),)
    return Trial(number, recipe, 1.0, None, (answers, *speed), shown, 0.9, f"g{number}")


class Bench:
    """Every recipe passes whose float layers hold all of `needed`; each float layer costs a tenth of the time."""

    def __init__(self, needed: Collection[str], passes: Collection[Recipe] = ()) -> None:
        self.needed, self.passes, self.trials = set(needed), passes, list[Trial]()

    def tried(self, recipe: Recipe) -> Trial:
        known = next((t for t in self.trials if t.recipe == recipe), None)
        if known is None:
            missing = len(self.needed - set(recipe.keep_float))
            good = recipe in self.passes or missing == 0
            known = trial(len(self.trials) + 1, recipe, 0.5 if good else -missing, 0.3 + len(recipe.keep_float) / 10)
            self.trials.append(known)
        return known

    def ranked(self, trial: Trial) -> Sequence[str]:
        return LAYERS


@given(st.sets(st.sampled_from(LAYERS[:-1]), min_size=1))
def test_the_shortest_passing_prefix_is_found_in_few_trials(needed: set[str]) -> None:
    bench = Bench(needed)
    found = fewest(BASE, LAYERS, bench.tried)
    assert found is not None
    assert len(found.recipe.keep_float) == max(LAYERS.index(name) for name in needed) + 1  # by hand
    assert len(bench.trials) <= 2 * math.ceil(math.log2(len(LAYERS))) + 1


@given(st.sets(st.sampled_from(LAYERS[:-1]), min_size=1))
def test_thinning_leaves_just_the_layers_that_are_needed(needed: set[str]) -> None:
    bench = Bench(needed)
    found = fewest(BASE, LAYERS, bench.tried)
    assert found is not None
    thinned(BASE, found, bench.tried)
    chosen = best(bench.trials)
    assert chosen is not None
    assert set(chosen.recipe.keep_float) == needed


@pytest.mark.parametrize(("needed", "left"), [(LAYERS[4], LAYERS[:5]), (LAYERS[7], LAYERS[:8])])
def test_a_prefix_that_is_good_enough_and_too_slow_is_cut_shorter_not_longer(needed: str, left: list[str]) -> None:
    """Eight layers in float take 1.1 of float's time; only in the second case are all eight needed before they are thinned."""
    bench = Bench([needed])
    found = fewest(BASE, LAYERS, bench.tried)
    assert found is not None
    assert list(found.recipe.keep_float) == left
    assert found.passes is (len(left) < 8)
    assert not all(t.passes for t in bench.trials if t.good_enough)
    thinned(BASE, found, bench.tried)
    chosen = best(bench.trials)
    assert chosen is not None
    assert (chosen.recipe.keep_float, chosen.passes) == ((needed,), True)


def test_layers_go_back_to_float_only_when_nothing_else_passes() -> None:
    smoother = replace(BASE, smoothing=0.85)
    bench = Bench(["nothing like it"], passes=[smoother])
    search(BASE, Choices(smoothing=True, embeddings=True), bench.tried, bench.ranked)
    assert not any(t.recipe.keep_float for t in bench.trials)
    chosen = best(bench.trials)
    assert chosen is not None
    assert chosen.recipe == smoother


def test_every_choice_of_the_issue_is_tried_and_no_recipe_twice() -> None:
    bench = Bench(["no such layer"])
    search(BASE, Choices(smoothing=True, embeddings=True), bench.tried, bench.ranked)
    recipes = [t.recipe for t in bench.trials]
    assert len(set(recipes)) == len(recipes)
    for field in ("algorithm", "granularity", "smoothing", "dialect", "embeddings"):
        assert any(getattr(r, field) != getattr(BASE, field) for r in recipes), field
    assert any(r.keep_float for r in recipes)
    assert len(LAYERS) not in {len(r.keep_float) for r in recipes}  # all of it in float is no int8 artifact


def test_what_cannot_change_a_model_is_not_tried() -> None:
    choices = Choices(smoothing=False, embeddings=False)
    found = [*usual(BASE, choices), *seldom(BASE, choices)]
    assert {r.smoothing for r in found} == {BASE.smoothing}
    assert {r.embeddings for r in found} == {BASE.embeddings}


def test_passing_is_never_traded_for_speed_and_the_nearest_miss_is_kept() -> None:
    fast, slow, near = trial(1, BASE, -3, 0.1), trial(2, kept(BASE, ["a"]), 0.1, 0.9), trial(3, BASE, -0.5)
    assert best([fast, slow, near]) == slow
    assert best([fast, near]) == near
    assert best([]) is None
    assert best([Trial(4, BASE, 1, failed="crash"), fast]) == fast


def test_a_trial_of_which_nothing_was_measured_does_not_pass() -> None:
    assert not Trial(1, BASE, 1.0).passes
    assert trial(1, BASE, 0.5).passes
    assert not replace(trial(1, BASE, 0.5), failed="it crashed").passes


@pytest.mark.parametrize(
    ("sense", "limit", "low", "high", "of", "room"),
    [
        ("at_least", 0.95, 0.975, 1.0, "rank_overlap", 0.5),  # half of what the limit allows
        ("at_least", 0.95, 0.90, 0.99, "rank_overlap", -1.0),
        ("at_least", -0.02, -0.01, 0.0, "correct", 0.5),
        ("at_most", 0.8, 0.3, 0.4, "latency_ratio", 0.5),
        ("at_least", 15.0, 30.0, 30.0, "sqnr_db", 1.0),
        ("at_least", 15.0, math.nan, math.nan, "sqnr_db", -math.inf),
    ],
)
def test_room_is_told_in_units_of_what_the_limit_allows(
    sense: str, limit: float, low: float, high: float, of: str, room: float
) -> None:
    measured = Measured((low + high) / 2, low, high, 100)
    status = Status.PASS if room >= 0 else Status.FAIL
    finding = Finding(of, "source", status, sense, limit, measured, "", of)  # type: ignore[arg-type]
    assert met(finding).room == pytest.approx(room)


def test_a_broken_law_leaves_no_room() -> None:
    measured = Measured.exactly(1, 1)
    found = met(Finding("finite", "source", Status.FAIL, "at_most", 0, measured, "NaN"))
    assert found.room == -math.inf
    assert not found.passed


def test_a_record_gives_back_what_was_put_and_nothing_of_other_inputs(tmp_path: Path) -> None:
    record = open_record(tmp_path, {"weights": "a"}, tmp_path)
    record.add(trial(1, kept(BASE, ["x"]), -math.inf))
    record.add(Trial(2, BASE, 2.0, failed="it crashed"))
    record.rankings["g1"] = ["x", "y"]
    record.save()
    again = open_record(tmp_path, {"weights": "a"}, tmp_path)
    assert (again.trials, again.rankings) == (record.trials, record.rankings)
    other = open_record(tmp_path, {"weights": "b"}, tmp_path)
    assert (other.trials, other.dropped) == ([], ("weights",))


def test_trials_behind_which_other_user_code_stood_are_not_taken_up(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("threshold = 1")
    record = open_record(tmp_path / "tune", {}, tmp_path)
    record.read["mine.py"] = of_file(tmp_path / "mine.py")
    record.add(trial(1, BASE, 0.5))
    assert open_record(tmp_path / "tune", {}, tmp_path).trials == record.trials
    (tmp_path / "mine.py").write_text("threshold = 2")
    assert open_record(tmp_path / "tune", {}, tmp_path).dropped == ("mine.py",)


def test_a_damaged_record_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_text('{"inputs": {}, "tri')
    assert open_record(tmp_path, {}, tmp_path).trials == []


CONFIG = """\
# who reads this
source: {onnx: m.onnx}   # ours
quantize:   # chosen by hand
  algorithm: kl
  keep_float: [a, b]
# about the targets

targets:
  - cloud   # first
  - {name: edge, required: false, why: small}
baseline: [cloud]
"""


def test_a_recipe_is_written_and_everything_else_is_kept() -> None:
    recipe = Recipe("uint8-asymmetric", "minmax", 0.5, keep_float=("blocks.0.*", "x: y"))
    text = with_recipe(CONFIG, recipe, ("edge", "edge-for-m"))
    found, before = yaml.safe_load(text), yaml.safe_load(CONFIG)
    assert found["quantize"]["keep_float"] == ["blocks.0.*", "x: y"]
    assert found["quantize"]["smoothing"] == 0.5
    assert found["targets"][1]["name"] == "edge-for-m"
    rest = {"source", "baseline"}
    assert {k: found[k] for k in rest} == {k: before[k] for k in rest}
    for comment in ("# who reads this", "# ours", "# about the targets\n\ntargets:", "- cloud   # first"):
        assert comment in text
    assert with_recipe(text, recipe) == text


@pytest.mark.parametrize("block", ["quantize: {algorithm: kl}   # short\n", "quantize:\n  algorithm: kl\n", ""])
def test_a_recipe_takes_the_place_of_the_one_there_however_it_is_spelled(block: str) -> None:
    text = with_recipe(f"source: {{onnx: m.onnx}}\n{block}policy: default\n", BASE)
    found = yaml.safe_load(text)
    assert (found["policy"], found["quantize"]["algorithm"]) == ("default", "minmax")
    assert text.count("quantize:") == 1


def test_terms_of_a_target_are_changed_or_added() -> None:
    text = with_terms("# a\nprecision: int8\ndialect: uint8-asymmetric   # b\n", {"quantized_share": 0.6}, "# c\n")
    assert yaml.safe_load(text) == {"precision": "int8", "dialect": "uint8-asymmetric", "quantized_share": 0.6}
    assert yaml.safe_load(with_terms(text, {"quantized_share": 0.5}, ""))["quantized_share"] == 0.5
    assert text.startswith("# c\n# a\n")


def test_a_recipe_is_described_by_what_it_changes() -> None:
    assert described(kept(BASE, ["a", "b"]), BASE) == "float: a, b"
    assert described(replace(BASE, smoothing=None), BASE) == "smoothing off"
    assert described(BASE, BASE) == "as configured"
    assert "keep_float: []" in quantize_block(BASE)
