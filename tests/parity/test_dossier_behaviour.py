"""What differs is counted as scikit-learn, SciPy and a person with a pencil count it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from compile.config import TaskConfig
from parity.dossier import behaviour, inputs, plots
from parity.dossier.behaviour import MOST_FLIPS, Said, Stage
from parity.dossier.pair import Pair
from parity.dossier.words import in_words
from tests.parity.dossier_facts import pair

NAMES = ("boot", "coat", "dress")


def stage(kind: str = "classification", n: int = 600, **columns: Any) -> Stage:
    task = TaskConfig(kind=kind, threshold=0.5, tolerance=0.1)  # type: ignore[arg-type]
    full = {"row": np.arange(n), **columns}
    return Stage(task, full, behaviour.class_names(full), 50)


def classified(seed: int = 0, n: int = 600) -> tuple[Stage, Said, Said, np.ndarray]:
    """A classifier of three classes and a noisy copy of it; rows were observed in another order than they lie."""
    rng = np.random.default_rng(seed)
    ours = rng.standard_normal((n, 3)).astype(np.float32)
    theirs = (ours + 0.1 * rng.standard_normal((n, 3))).astype(np.float32)
    order = rng.permutation(n)
    labels = np.empty(n, np.int64)
    labels[order] = ours.argmax(1)
    labels[::9] = 0
    words = np.array(NAMES)[labels]
    made = stage(n=n, labels=labels, class_name=words, id=np.array([f"r{i}" for i in range(n)]))
    made.columns["row"][:] = order
    return made, Said(ours.argmax(1), ours), Said(theirs.argmax(1), theirs), order


def test_counts_confusion_and_labels_agree_with_scikit_learn() -> None:
    made, ours, theirs, order = classified()
    found = behaviour.compare(made, "source", "source", ours, theirs)
    table = confusion_matrix(ours.answers, theirs.answers)
    assert found.differ == table.sum() - np.trace(table) > 0
    counted = {(c.reference, c.candidate): c.count for c in found.confusion}
    assert counted == {(NAMES[i], NAMES[j]): table[i, j] for i in range(3) for j in range(3) if i != j and table[i, j]}
    labels = made.columns["labels"][order]
    right = [ours.answers == labels, theirs.answers == labels]
    assert (found.lost, found.gained) == (int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    exact = binomtest(found.differ, 600).proportion_ci(0.90, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.agree_low == pytest.approx(1 - found.high)


def test_confidence_is_the_softmax_and_its_shift_is_counted() -> None:
    made, ours, theirs, _ = classified()
    found = behaviour.compare(made, "source", "source", ours, theirs)
    assert ours.scores is not None
    assert theirs.scores is not None
    one, other = softmax(ours.scores.astype(float), axis=1), softmax(theirs.scores.astype(float), axis=1)
    flips = np.flatnonzero(ours.answers != theirs.answers)
    assert found.sure == pytest.approx((one.max(1)[flips].min(), one.max(1)[flips].max()))
    assert found.shift is not None
    assert found.shift.series[0].counts == tuple(np.histogram(one.max(1), np.linspace(0, 1, 21))[0])
    rows = np.arange(600)
    lost = np.abs(one[rows, ours.answers] - other[rows, ours.answers])
    assert (found.shift.median, found.shift.largest) == pytest.approx((np.median(lost), lost.max()))
    assert sum(found.shift.flips) == len(flips)


def test_each_kind_of_difference_is_shown_before_any_is_shown_twice() -> None:
    made, ours, theirs, order = classified()
    found = behaviour.compare(made, "source", "source", ours, theirs)
    shown = [(f.reference, f.candidate) for f in found.flips]
    assert len(shown) == min(MOST_FLIPS, found.differ)
    assert len(set(shown[: len(found.confusion)])) == len(found.confusion)
    first = [f for f in found.flips if (f.reference, f.candidate) == shown[0]]
    assert [f.drift for f in first] == sorted((f.drift for f in first), reverse=True)
    for one in found.flips:
        at = int(np.flatnonzero(order == one.row)[0])
        assert one.id == f"r{one.row}"
        assert (one.reference, one.candidate) == (NAMES[ours.answers[at]], NAMES[theirs.answers[at]])
        assert one.label == NAMES[made.columns["labels"][one.row]]


def test_slices_of_the_same_rows_are_shown_once_with_their_own_figures() -> None:
    made, ours, theirs, order = classified()
    found = behaviour.compare(made, "source", "source", ours, theirs)
    assert {s.name for s in found.slices} == {f"class_name = {name}" for name in NAMES}
    same = ours.answers == theirs.answers
    for part in found.slices:
        rows = made.columns["class_name"][order] == part.name.removeprefix("class_name = ")
        assert (part.n, part.differ) == (rows.sum(), (~same[rows]).sum())


def test_names_of_classes_need_a_column_that_maps_one_to_one() -> None:
    labels = np.array([0, 1, 2, 0])
    names = np.array(["a", "b", "c", "a"])
    assert behaviour.class_names({"labels": labels, "kind": names}) == {"0": "a", "1": "b", "2": "c"}
    assert behaviour.class_names({"labels": labels, "kind": np.array(["a", "b", "c", "d"])}) == {}
    assert behaviour.class_names({"labels": labels, "kind": np.array(["a", "b", "b", "a"])}) == {}
    assert behaviour.class_names({"labels": labels, "id": names}) == {}


def words_of(kind: str, ours: np.ndarray, theirs: np.ndarray, **columns: Any) -> tuple[Pair, tuple[str, ...]]:
    made = stage(kind, len(ours), **columns)
    found = behaviour.compare(made, "source", "source", Said(ours, None), Said(theirs, None))
    return found, in_words(found, made.task, "requests")


def test_words_say_how_many_groups_a_bound_rests_on() -> None:
    """Of 1,000 rows that all agree at most 0.30 % would differ (3 / 1,000); of 10 groups it is 26 %."""
    task = TaskConfig(kind="classification")
    for differ in (0, 6):
        facts = pair(differ=differ).model_copy(update={"groups": 10})
        assert " 1,000 images in 10 groups " in in_words(facts, task, "images")[0]
        assert "group" not in in_words(pair(differ=differ), task, "images")[0]


@pytest.mark.parametrize(("high", "told"), [(0.6, True), (0.989, True), (0.992, False), (1.0, False)])
def test_a_confidence_of_at_most_all_is_not_told(high: float, told: bool) -> None:
    task = TaskConfig(kind="classification")
    said = " ".join(in_words(pair().model_copy(update={"sure": (0.5, high)}), task, "images"))
    assert ("confidence in all of them was at most" in said) == told


def test_a_threshold_is_crossed_in_words() -> None:
    ours = np.full(1000, 0.9)
    theirs = ours.copy()
    ours[:3], theirs[:3] = 0.51, 0.49
    ours[3], theirs[3] = 0.2, 0.8
    labels = np.ones(1000, np.int64)
    _, said = words_of("binary_score", ours, theirs, labels=labels)
    high = binomtest(4, 1000).proportion_ci(0.90, method="exact").high
    assert said == (
        f"4 of 1,000 requests fall on the other side of the threshold 0.5: 0.40 %, at most "
        f"{np.ceil(high * 1e4) / 100:.2f} % with 95 % confidence.",
        "1 rises to or above it, 3 fall below it.",
        "The source's scores of these lay from 0.2 to 0.51.",
        "By the labels 3 got worse and 1 got better.",
    )


def test_one_flip_is_said_in_the_singular() -> None:
    ours = np.zeros(500, np.int64)
    theirs = ours.copy()
    theirs[7] = 1
    _, said = words_of("classification", ours, theirs)
    assert said[0].startswith("1 of 500 requests changes class: 0.20 %, at most 0.95 %")
    assert said[1] == "It is “0” turned “1”."


@pytest.mark.parametrize("kind", ["classification", "binary_score", "regression", "embedding", "sequence", "none"])
def test_where_nothing_differs_the_words_say_what_that_proves_and_no_more(kind: str) -> None:
    rng = np.random.default_rng(1)
    ours = rng.integers(0, 4, 300) if kind in ("classification", "sequence") else rng.standard_normal((300, 1))
    ours = rng.standard_normal((300, 8)) if kind == "embedding" else ours
    ours = ours[:, 0] if kind == "binary_score" else ours
    found, said = words_of(kind, ours, ours.copy())
    assert (found.differ, found.flips, found.confusion, found.sure) == (0, (), (), None)
    assert len(said) == 2
    assert "All 300 requests" in said[0]
    assert f"at most {np.ceil((1 - 0.05 ** (1 / 300)) * 1e4) / 100:.2f} %" in said[1]  # the rule of three, exactly


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({}, "nearest to 1"),
        ({"id": np.array(["a", "b", "c"])}, "nearest to b"),
        (
            {"id": np.array(["a", "b", "c"]), "text": np.array(["one", "two " * 30, "three"])},
            f"nearest to “{'two ' * 14}two…”",
        ),
    ],
)
def test_a_neighbour_is_called_by_its_text_else_its_id_else_its_number(columns: dict[str, Any], named: str) -> None:
    gallery = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]])
    other = np.array([[0.1, 1.0], [1.0, 0.0], [0.0, 1.0]])
    found = behaviour.compare(
        stage("embedding", 3, **columns), "source", "source", Said(gallery, None), Said(other, None)
    )
    assert [flip.reference for flip in found.flips if flip.row == 0] == [named]


def test_embeddings_are_right_where_the_judge_says_so_by_the_sources_index_without_repeats() -> None:
    """As `measure.right_answers` counts them; of two neighbours that differ both can be right."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 120)
    ours = np.eye(3)[labels] + 0.6 * rng.standard_normal((120, 3))
    theirs = ours + 0.3 * rng.standard_normal((120, 3))
    ours[-1], theirs[-1] = ours[0], theirs[0]
    copy = np.arange(120) == 119
    original = np.where(copy, 0, np.arange(120))
    labels[-1] = labels[0]
    columns = {"labels": labels, "copy": copy, "original": original}
    found = behaviour.compare(
        stage("embedding", 120, **columns), "source", "source", Said(ours, None), Said(theirs, None)
    )
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (ours[:-1], theirs[:-1])]
    near = []
    for side in unit:
        likeness = side @ unit[0].T
        np.fill_diagonal(likeness, -2)
        near.append(likeness.argmax(axis=1))
    right = [labels[:-1][one] == labels[:-1] for one in near]
    differ = near[0] != near[1]
    assert (found.n, found.differ) == (119, int(differ.sum()))
    assert (found.lost, found.gained) == (int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum()))
    assert found.both_right == int((right[0] & right[1] & differ).sum()) > 0
    said = in_words(found, TaskConfig(kind="embedding"), "texts")[-1]
    neither = int((~right[0] & ~right[1] & differ).sum())
    assert f"{neither} were wrong before and after, {found.both_right} were right before and after." in said


def test_rows_that_stay_within_the_tolerance_and_leave_their_labels_hide_no_others() -> None:
    """398 numbers move by less than is told and miss their labels now; 2 that move far were wrong before and are wrong now."""
    ours = np.full((400, 1), 10.0)
    theirs = ours * 1.05
    labels = ours[:, 0] / 1.08
    theirs[:2], labels[:2] = 30.0, 100.0
    found = behaviour.compare(
        stage("regression", 400, labels=labels), "source", "source", Said(ours, None), Said(theirs, None)
    )
    assert (found.differ, found.lost, found.both_wrong) == (2, 398, 2)
    told = in_words(found, TaskConfig(kind="regression"), "rows")[-1]
    assert "of all 400 rows 398 got worse and 0 got better; of those that moved, 2 were wrong before and after." in told


def test_where_all_rows_move_nothing_is_bounded_and_a_tolerance_is_a_share() -> None:
    ours = np.arange(1.0, 301.0)[:, None]
    _, said = words_of("regression", ours, 2 * ours)
    assert said[0] == "300 of 300 requests move by more than the tolerance of 10 %: 100 %."


def test_so_few_groups_prove_nothing_and_no_word_says_they_do() -> None:
    same = np.zeros(300)
    made = stage("binary_score", 300, group=np.arange(300) // 20)
    found = behaviour.compare(made, "source", "source", Said(same, None), Said(same.copy(), None))
    said = " ".join(in_words(found, TaskConfig(kind="binary_score"), "frames"))
    assert "That proves nothing of other frames: an interval takes 20 groups at least." in said
    other = same.copy()
    other[3] = 1
    found = behaviour.compare(made, "source", "source", Said(same, None), Said(other, None))
    said = " ".join(in_words(found, TaskConfig(kind="binary_score"), "frames"))
    assert "an interval takes 20 groups at least" in said
    assert "at most 100 %" not in said


@pytest.mark.parametrize("kind", ["classification", "binary_score", "regression", "embedding", "sequence", "none"])
def test_where_everything_differs_the_words_stay_short(kind: str) -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.standard_normal((80, 4)), rng.standard_normal((80, 4)) + 50
    if kind in ("classification", "sequence"):
        ours, theirs = np.arange(80), np.arange(80) + 1
    if kind == "binary_score":
        ours, theirs = np.zeros(80), np.ones(80)
    if kind == "embedding":
        theirs = ours[::-1].copy()
    found, said = words_of(kind, ours, theirs)
    assert found.differ == 80 or (kind == "embedding" and found.differ >= 70)  # two pairs are each other's nearest
    assert 0 < len(said) <= 5
    assert f"{found.differ} of 80 requests" in said[0]
    assert len(found.flips) == MOST_FLIPS


ODD = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("kind", "ours", "labels"),
    [
        ("classification", ODD.integers(0, 5, (90, 7)), ODD.integers(0, 5, (90, 7))),
        ("classification", np.array(["cat", "dog", "eel"] * 30), np.array(["cat", "dog", "cat"] * 30)),
        ("sequence", ODD.integers(0, 5, (90, 7)), ODD.integers(0, 5, (90, 9))),
        ("sequence", np.array(["a b", "c d", "e"] * 30), np.array(["a b", "c", "e"] * 30)),
        ("regression", ODD.standard_normal((90, 3)), ODD.standard_normal((90, 3))),
        ("none", ODD.standard_normal((90, 40)), None),
        ("embedding", ODD.standard_normal((90, 16)).astype(np.float16), ODD.integers(0, 3, 90)),
        ("binary_score", ODD.standard_normal(90).astype(np.float16) * 100, ODD.integers(0, 2, 90).astype(bool)),
        ("binary_score", np.full(90, 0.7), np.ones(90)),
    ],
)
def test_answers_of_every_shape_can_be_compared_and_said(
    kind: str, ours: np.ndarray, labels: np.ndarray | None
) -> None:
    theirs = ours.copy()
    theirs[:5] = ours[5:10]
    columns = {} if labels is None else {"labels": labels}
    found, said = words_of(kind, ours, theirs, **columns)
    assert found.n == 90
    assert 1 <= len(said) <= 5
    assert all(len(flip.reference) < 400 for flip in found.flips)


def test_boxes_are_labelled_with_numbers_of_any_kind() -> None:
    """Places of objects are seldom whole numbers."""
    boxes = np.zeros((40, 2, 6))
    boxes[:, 0] = (0, 0, 8, 8, 0.7, 1)
    labels = np.full((40, 2, 5), -1.0)
    labels[:, 0] = (0, 0, 8.25, 8, 1)
    fewer = boxes.copy()
    fewer[3] = 0
    found, _ = words_of("detection", boxes, fewer, labels=labels)
    assert found.flips[0].label is not None
    assert "8.25" in found.flips[0].label


def test_what_copies_say_is_said_of_the_row_that_they_repeat_and_counted_once() -> None:
    """Of 90 rows 30 repeat the first ones; two of the copies are answered otherwise and wrongly, and one original."""
    original = np.concatenate([np.arange(60), np.arange(30)])
    ours = np.arange(60)[original] % 3
    theirs = ours.copy()
    theirs[[60, 61, 40]] = (theirs[[60, 61, 40]] + 1) % 3
    made = stage(n=90, labels=ours, copy=original != np.arange(90), original=original)
    found = behaviour.compare(made, "source", "source", Said(ours, None), Said(theirs, None))
    assert (found.n, found.differ, found.lost, found.gained) == (60, 3, 3, 0)
    assert sorted(flip.row for flip in found.flips) == [0, 1, 40]


def test_boxes_are_said_by_class_score_and_place() -> None:
    boxes = np.zeros((40, 8, 6))
    boxes[:, :2] = [(0, 0, 8, 8, 0.7, 1), (8, 0, 16.5, 8, 0.9, 2)]
    fewer = boxes.copy()
    fewer[3], fewer[5, 0, 4] = 0, 0.2
    many = boxes.copy()
    many[4] = boxes[4, 0]
    found, _ = words_of("detection", boxes, fewer)
    both = "class 2 (0.90) at 8, 0, 16.5, 8; class 1 (0.70) at 0, 0, 8, 8"
    assert {(one.reference, one.candidate) for one in found.confusion} == {
        (both, "nothing"),
        (both, both.split("; ")[0]),
    }
    found, _ = words_of("detection", boxes, many)
    assert found.flips[0].candidate.count("class 1") == 6
    assert found.flips[0].candidate.endswith(" …")


def test_a_picture_is_a_png_of_the_very_pixels() -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for shape in ((28, 31), (16, 12, 3)):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(inputs.png(pixels)))), pixels)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.zeros((28, 28), np.uint8), "picture"),
        (np.zeros((32, 30, 3), np.uint8), "picture"),
        (np.zeros((1, 28, 28), np.float32), "picture"),
        (np.zeros((3, 40, 41), np.float32), "picture"),
        (np.zeros(512, np.int16), "wave"),
        (np.zeros(400, np.float32), "wave"),
        (np.zeros(9, np.float32), "table"),
        (np.float32(3), "table"),
        (np.array("hello"), "text"),
        (np.array([101, 7, 102, 0, 0]), "ids"),
        (np.arange(48, dtype=np.uint16), "ids"),
        (np.arange(16, dtype=np.uint16), "table"),
        (np.arange(64, dtype=np.uint16), "wave"),
        (np.zeros((2, 3, 4, 5), np.float32), "numbers"),
        (np.zeros((3, 4), np.float32), "numbers"),
    ],
)  # fmt: skip
def test_how_an_input_is_shown_follows_from_its_shape(array: np.ndarray, kind: str) -> None:
    assert inputs.shown({"x": np.asarray(array)}, {}, {})[0].kind == kind


def test_text_is_shown_before_the_ids_that_it_became() -> None:
    row = {
        "input_ids": np.array([1, 2, 3]),
        "attention_mask": np.array([1, 1, 1]),
        "text": np.array("my phone is broken"),
    }
    assert [part.name for part in inputs.shown(row, {}, {})] == ["text"]
    del row["text"]
    assert [part.name for part in inputs.shown(row, {}, {})] == ["input_ids"]


def test_a_large_picture_is_thinned_and_says_so() -> None:
    part = inputs.shown({"x": np.zeros((400, 300, 3), np.uint8)}, {}, {})[0]
    assert part.size == (60, 80)
    assert part.note == "300 × 400, every 5th pixel"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.0005731, 6.5), (-3e-9, 2e-9), (12, 1234)])
def test_ticks_are_round_and_within_the_axis(low: float, high: float) -> None:
    ticks = plots._ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert all(len(f"{tick:.6g}".replace("-", "").replace(".", "").strip("0").split("e")[0]) <= 3 for tick in ticks)
