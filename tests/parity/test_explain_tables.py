"""Windows of a series whose columns, place in time or normalization a device mistook; planted with numpy, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compile.signature import Axis, Signature, Tensor
from parity.explain.graph.simulate import Batch
from parity.explain.mistake import preprocessing
from parity.explain.mistake.hypotheses import Bench, Trial
from parity.explain.mistake.screening import screened

RNG = np.random.default_rng(12)
SIGNATURE = Signature(
    (Tensor("x", "float32", ("batch", 9, 4)),), (Tensor("y", "float32", ("batch", 3)),), {"batch": Axis(1, 8, 64)}
)
WEIGHTS = RNG.standard_normal((36, 3)) / 4
WINDOWS = np.cumsum(RNG.standard_normal((128, 9, 4)), axis=1) * np.array([1, 2, 0.5, 1.5]) + np.array([0, 3, -1, 1])


def network(feeds: Batch) -> Batch:
    return {"y": np.tanh(feeds["x"].reshape(-1, 36) @ WEIGHTS)}


def best(change: Callable[[np.ndarray], np.ndarray]) -> Trial:
    batches = [{"x": part} for part in np.split(WINDOWS.astype(np.float32), 4)]
    seen = [{"x": part} for part in np.split(change(WINDOWS).astype(np.float32), 4)]
    sides = [[network(one) for one in side] for side in (batches, seen)]
    return screened(Bench(SIGNATURE, network, batches, *sides), preprocessing.suspicions)[0]


def by_rows(x: np.ndarray) -> np.ndarray:
    return np.stack([(one - one.mean()) / one.std() for one in x])


def by_columns(x: np.ndarray) -> np.ndarray:
    return np.stack([(one - one.mean(0)) / one.std(0) for one in x])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[:, :, [0, 3, 2, 1]], "its columns 1 and 3 swapped"),
        (lambda x: x * np.array([1, 1, 100, 1]), "its column 2 100 times as large"),
        (lambda x: x * np.array([1, 1, 1, 0]), "without its column 3"),
        (lambda x: np.concatenate([x[:, :1], x[:, :-1]], 1), "moved by 1 along axis 1"),
        (by_rows, "each row's own mean and deviation"),
        (by_columns, "each window's own mean and deviation of each column"),
        (lambda x: np.stack([one / np.abs(one).max() for one in x]), "each row's own largest magnitude"),
    ],
)
def test_a_windows_mistake_is_told(change: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    trial = best(change)
    assert trial.holds
    assert said in trial.name


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, RNG.permutation(9)],
        lambda x: x - x.mean(1, keepdims=True) / 2,
        lambda x: np.roll(x, 4, axis=1),
        lambda x: x + RNG.normal(0, 2, x.shape),
    ],
)
def test_what_is_none_of_these_is_not_told(change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert not best(change).holds
