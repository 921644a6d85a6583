"""What outputs mean, task by task: by hand, by scikit-learn, and where an answer must not count as the same."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from compile.config import TaskConfig, TaskKind
from compile.errors import ConfigError
from parity.answers import agree, answers, correct

KINDS: tuple[TaskKind, ...] = get_args(TaskKind)


def task(kind: TaskKind, **more: Any) -> TaskConfig:
    return TaskConfig(kind=kind, **more)


def rows(*values: Any, dtype: str = "float32") -> np.ndarray:
    return np.array(values, dtype)


def test_the_class_of_scores_is_the_largest_and_class_numbers_stay() -> None:
    assert answers("classification", rows([0.1, 0.9], [3, -1])).tolist() == [1, 0]
    assert answers("classification", rows(2, 0, dtype="int64")).tolist() == [2, 0]


def test_a_single_column_of_classes_is_not_taken_for_scores() -> None:
    """The largest of one number is always the first: everything would agree with everything."""
    reference, candidate = rows([0], [1], [2], dtype="int64"), rows([0], [2], [1], dtype="int64")
    same = agree(task("classification"), answers("classification", reference), answers("classification", candidate))
    assert same.tolist() == [True, False, False]


def test_a_row_of_many_classes_agrees_only_as_a_whole() -> None:
    """One answer a row, though each row holds three tokens; counting tokens would count more than there are rows."""
    scores = np.eye(4, dtype=np.float32)[[[0, 1, 2], [3, 3, 3]]]
    other = scores.copy()
    other[1, 2] = [1, 0, 0, 0]
    found = agree(task("classification"), answers("classification", scores), answers("classification", other))
    assert found.tolist() == [True, False]


def test_a_binary_score_is_the_only_column_or_the_second_of_two() -> None:
    assert answers("binary_score", rows([0.2], [0.8])).tolist() == pytest.approx([0.2, 0.8])
    assert answers("binary_score", rows([0.8, 0.2], [0.2, 0.8])).tolist() == pytest.approx([0.2, 0.8])
    assert answers("binary_score", rows(0.3, 0.7)).tolist() == pytest.approx([0.3, 0.7])


def test_many_scores_a_row_are_refused_and_not_judged_by_their_last() -> None:
    with pytest.raises(ConfigError, match="binary_score needs one score a row"):
        answers("binary_score", np.zeros((4, 5), np.float32))


def test_scores_agree_by_the_side_of_the_threshold_they_fall_on() -> None:
    reference, candidate = rows(0.4, 0.5, 0.6, 0.1), rows(0.45, 0.49, 0.99, 0.1)
    assert agree(task("binary_score"), reference, candidate).tolist() == [True, False, True, True]
    assert agree(task("binary_score", threshold=0.7), reference, candidate).tolist() == [True, True, False, True]


def test_sequences_agree_whatever_their_padding_but_not_where_one_goes_on() -> None:
    one = rows([1, 2, -1], [1, 2, -1], [1, 2, 3], dtype="int64")
    other = rows([1, 2, -1, -1], [1, 2, 5, -1], [1, 2, 3, -1], dtype="int64")
    assert agree(task("sequence"), one, other).tolist() == [True, False, True]


def test_sequences_of_scores_are_read_symbol_by_symbol() -> None:
    assert answers("sequence", np.eye(3, dtype=np.float32)[[[2, 0]]]).tolist() == [[2, 0]]


def test_words_agree_as_words() -> None:
    assert agree(task("sequence"), np.array(["ab", "cd"]), np.array(["ab", "ce"])).tolist() == [True, False]


def test_words_against_symbols_are_refused() -> None:
    with pytest.raises(ConfigError, match="symbols in both, or words"):
        agree(task("sequence"), np.array(["ab", "cd"]), np.zeros((2, 2), np.int64))


def test_regression_agrees_within_the_relative_tolerance() -> None:
    """By hand: |(3, 4)| = 5, so a tenth of it is 0.5."""
    reference = rows([3, 4], [3, 4], [3, 4])
    candidate = rows([3, 4.5], [3, 4.51], [3.2, 4.3])
    assert agree(task("regression"), reference, candidate).tolist() == [True, False, True]
    assert agree(task("regression", tolerance=0.05), reference, candidate).tolist() == [False, False, False]


def test_a_reference_of_zero_is_held_to_a_hundredth_of_the_typical_length() -> None:
    """Lengths 0, 100, 100: typical 100, so the zero row may differ by a tenth of one."""
    reference = rows([0, 0], [100, 0], [0, 100])
    assert agree(task("regression"), reference, reference + rows([0.09, 0])).tolist() == [True, True, True]
    assert agree(task("regression"), reference, reference + rows([0.11, 0])).tolist() == [False, True, True]


def test_all_zero_references_forgive_nothing() -> None:
    zeros = np.zeros((3, 2), np.float32)
    assert agree(task("none"), zeros, zeros).all()
    assert not agree(task("none"), zeros, zeros + np.float32(1e-6)).any()


def test_embeddings_find_the_neighbours_that_scikit_learn_finds() -> None:
    """More rows than one block of the search; cosine distance, each row's own self left out."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((1100, 8)).astype(np.float32)
    labels = rng.integers(0, 9, len(vectors))
    search = NearestNeighbors(n_neighbors=2, metric="cosine", algorithm="brute").fit(vectors)
    wanted = labels[search.kneighbors(vectors)[1][:, 1]] == labels
    assert correct(task("embedding"), vectors, labels).tolist() == wanted.tolist()  # type: ignore[union-attr]


def test_embeddings_agree_when_only_their_scale_changes_and_not_when_they_are_shuffled() -> None:
    vectors = np.random.default_rng(2).standard_normal((200, 8)).astype(np.float32)
    assert agree(task("embedding"), vectors, 7 * vectors).all()
    assert agree(task("embedding"), vectors, np.roll(vectors, 1, axis=0)).mean() < 0.1
    assert agree(task("embedding"), vectors, np.ones_like(vectors)).mean() < 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 2])
def test_every_kind_answers_a_batch_of_no_rows_with_no_rows(kind: TaskKind, width: int) -> None:
    shape = (0, 4, 6) if kind == "detection" else (0, 3, width) if kind == "sequence" else (0, width)
    assert len(answers(kind, np.zeros(shape, np.float32))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_agrees_with_itself_and_gives_one_flag_a_row(kind: TaskKind) -> None:
    shape = {"sequence": (40, 6, 4), "detection": (40, 3, 6)}.get(kind, (40, 2))
    output = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    if kind == "detection":
        output[..., 2:4] = output[..., :2] + 1  # a box ends after it starts
    found = answers(kind, output)
    same = agree(task(kind), found, found)
    assert same.shape == (40,)
    assert same.all()


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.randoms())
def test_swapped_rows_agree_exactly_where_the_classes_happen_to_be_equal(classes: list[int], random: Any) -> None:
    order = list(range(len(classes)))
    random.shuffle(order)
    reference = answers("classification", np.eye(4, dtype=np.float32)[classes])
    swapped = answers("classification", np.eye(4, dtype=np.float32)[[classes[i] for i in order]])
    wanted = [classes[i] == classes[j] for i, j in enumerate(order)]
    assert agree(task("classification"), reference, swapped).tolist() == wanted


def test_right_answers_by_hand() -> None:
    assert _right("classification", rows(1, 2, dtype="int64"), rows(1, 0, dtype="int64")) == [True, False]
    assert _right("classification", rows(1, 2, dtype="int64"), rows([1], [0], dtype="int64")) == [True, False]
    assert _right("binary_score", rows(0.6, 0.6, 0.4), rows(1, 0, 0, dtype="int64")) == [True, False, True]
    assert _right("sequence", rows([1, 2, -1], dtype="int64"), rows([1, 2], dtype="int64")) == [True]
    assert _right("sequence", np.array(["ab"]), np.array(["ab"])) == [True]
    assert _right("regression", rows([11.0], [12.0]), rows(10, 10)) == [True, False]
    assert correct(task("none"), rows([1.0]), rows(1)) is None


def _right(kind: TaskKind, found: np.ndarray, labels: np.ndarray) -> list[bool]:
    right = correct(task(kind), found, labels)
    assert right is not None
    return list(right)


@pytest.mark.parametrize(
    ("kind", "found", "labels"),
    [
        ("classification", np.zeros(4, np.int64), np.eye(4, dtype=np.int64)),
        ("classification", np.zeros(4, np.int64), np.array(["a", "b", "c", "d"])),
        ("classification", np.zeros(4, np.int64), np.zeros(3, np.int64)),
        ("binary_score", np.zeros(4), np.zeros((4, 2))),
        ("regression", np.zeros((4, 3)), np.zeros(4)),
        ("sequence", np.array(["ab", "cd"]), np.zeros((2, 2), np.int64)),
        ("sequence", np.zeros((2, 2), np.int64), np.array(["ab", "cd"])),
    ],
)
def test_labels_that_cannot_speak_of_the_answers_are_refused(
    kind: TaskKind, found: np.ndarray, labels: np.ndarray
) -> None:
    """numpy would broadcast some of these and call the rest unequal: both sides wrong, and nothing to lose."""
    with pytest.raises(ConfigError):
        correct(task(kind), found, labels)
