"""Labels that have nothing to do with the answers are refused, whatever the task: such a suite can lose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compile.config import TaskConfig
from compile.errors import ConfigError
from parity.labels import LEAST_ROWS, others_of, refuse_shuffled
from parity.rows import Rows

N = 300
RNG = np.random.default_rng(5)


def rows(kind: str, answers: np.ndarray, labels: np.ndarray) -> Rows:
    task = TaskConfig.model_validate({"kind": kind, "tolerance": 0.05} if kind == "regression" else {"kind": kind})
    return Rows(task, answers, answers, np.ones(len(answers), bool), {}, {"labels": labels}, None, 0)


def lines() -> tuple[np.ndarray, np.ndarray]:
    """A reader that gets six lines of ten wrong, all of them short, so that some are right by chance too."""
    labels = RNG.integers(0, 4, (N, 3))
    return np.where(RNG.random((N, 1)) < 0.6, RNG.integers(0, 4, (N, 3)), labels), labels


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """A detector that misses every other object."""
    labels = np.zeros((N, 2, 5))
    labels[:, :, 0] = RNG.integers(0, 5, (N, 2)) * 10
    labels[:, :, 2], labels[:, :, 3] = labels[:, :, 0] + 10, 10
    labels[:, 1, 4] = -1
    answers = np.concatenate([labels[..., :4], np.full((N, 2, 1), 0.9), labels[..., 4:]], axis=2)
    answers[:, 1, 4] = 0
    answers[::2, 0, 4] = 0
    return answers, labels


def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Two numbers a row that correlate by 0.6 with their labels, and are hardly ever within the tolerance."""
    labels = RNG.standard_normal((N, 2))
    return 0.6 * labels + 0.8 * RNG.standard_normal((N, 2)), labels


def neighbours() -> tuple[np.ndarray, np.ndarray]:
    """The nearest of four rows of ten has their label, of the others any."""
    labels = RNG.integers(0, 5, N)
    alike = np.array([RNG.choice(np.flatnonzero(labels == label)) for label in labels])
    return np.where(RNG.random(N) < 0.4, alike, RNG.integers(0, N, N))[:, None], labels


CASES: dict[str, Any] = {"sequence": lines, "detection": boxes, "regression": numbers, "embedding": neighbours}


@pytest.mark.parametrize("kind", CASES)
def test_labels_are_refused_once_they_are_shuffled(kind: str) -> None:
    answers, labels = CASES[kind]()
    refuse_shuffled(rows(kind, answers, labels))
    for seed in range(5):
        with pytest.raises(ConfigError, match="fit the label of their row better"):
            refuse_shuffled(rows(kind, answers, np.random.default_rng(seed).permutation(labels)))
    few = slice(0, LEAST_ROWS - 1)
    refuse_shuffled(rows(kind, answers[few] % LEAST_ROWS, labels[few]))  # too few to say so


def test_other_rows_are_never_the_row_itself_and_each_comes_once() -> None:
    for found in others_of(N):
        assert (found != np.arange(N)).all()
        assert sorted(found.tolist()) == list(range(N))
