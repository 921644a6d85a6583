"""Frames that come late or early in their stream: planted in a recurrent cell's inputs and answers, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compile.signature import Axis, Signature, Tensor
from parity.explain.experiment.case import SAMPLE_ROWS, sample
from parity.explain.graph.simulate import Batch, Infer
from parity.explain.mistake import streams
from parity.explain.mistake.hypotheses import Bench, Trial, tried

RNG = np.random.default_rng(8)
AXES = {"batch": Axis(1, 8, 64)}
X, Y = Tensor("x", "float32", ("batch", 4)), Tensor("y", "float32", ("batch", 3))
PLAIN = Signature((X,), (Y,), AXES)
CELL = Signature(
    (X, Tensor("h", "float32", ("batch", 6))), (Y, Tensor("hn", "float32", ("batch", 6))), AXES, state={"h": "hn"}
)
ENTER, CARRY, LEAVE = (RNG.standard_normal(shape) / 2 for shape in ((4, 6), (6, 6), (6, 3)))
STREAMS, FRAMES = 10, 16
TOLD = np.stack([np.arange(STREAMS)] * FRAMES)


def cell(feeds: Batch) -> Batch:
    state = np.tanh(feeds["x"] @ ENTER + feeds["h"] @ CARRY).astype(np.float32)
    return {"y": state @ LEAVE, "hn": state}


def frames(seed: int = 0) -> np.ndarray:
    """Frames, streams, features."""
    return np.random.default_rng(seed).standard_normal((FRAMES, STREAMS, 4)).astype(np.float32)


def answered(x: np.ndarray) -> np.ndarray:
    """The cell run by hand, frame after frame."""
    state, found = np.zeros((STREAMS, 6), np.float32), []
    for frame in x:
        out = cell({"x": frame, "h": state})
        state = out["hn"]
        found.append(out["y"])
    return np.stack(found)


def best(found: np.ndarray, signature: Signature = CELL, infer: Infer = cell) -> Trial:
    x = frames()
    batches = [{"x": one, "stream": told} for one, told in zip(x, TOLD, strict=True)]
    sides = [[{"y": one} for one in side] for side in (answered(x), found)]
    made = Bench(signature, infer, batches, *sides, streams=list(TOLD))
    return tried(made, list(streams.suspicions(made)))[0]


def moved(x: np.ndarray, by: int, *, held: bool) -> np.ndarray:
    found = np.zeros_like(x)
    if by > 0:
        found[by:], found[:by] = x[:-by], x[0] if held else 0
    else:
        found[:by], found[by:] = x[-by:], x[-1] if held else 0
    return found


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("by", "said"), [(1, "1 frame late"), (3, "3 frames late"), (-1, "1 frame early")])
def test_late_and_early_answers_are_told_with_their_frames(by: int, said: str, held: bool) -> None:
    trial = best(moved(answered(frames()), by, held=held))
    assert trial.holds
    assert f"answers come {said}" in trial.name
    assert ("is held" in trial.name) is held


@pytest.mark.parametrize(("by", "said"), [(1, "1 frame late"), (2, "2 frames late"), (-1, "1 frame early")])
def test_late_frames_are_told_from_late_answers(by: int, said: str) -> None:
    trial = best(answered(moved(frames(), by, held=True)))
    assert trial.holds
    assert f"sees `x` {said} (the" in trial.name


def test_state_that_is_not_carried_is_still_told() -> None:
    x = frames()
    anew = np.stack([cell({"x": one, "h": np.zeros((STREAMS, 6), np.float32)})["y"] for one in x])
    assert "not carried" in best(anew).name


def test_answers_smoothed_over_frames_are_not_late() -> None:
    """The mean of this frame and the one before: a half of it is late."""
    y = answered(frames())
    for weight in (0.3, 0.5, 0.8):
        assert not best((1 - weight) * y + weight * moved(y, 1, held=True)).holds


def test_a_stream_that_is_given_anothers_answers_is_not_late() -> None:
    assert not best(np.roll(answered(frames()), 1, axis=1)).holds


def test_no_delay_is_told_of_rows_that_belong_to_no_stream() -> None:
    made = Bench(PLAIN, cell, [], [], [])
    assert not list(streams.suspicions(made))


def test_a_group_of_a_time_series_is_sampled_in_neighbouring_batches_where_it_flips_most() -> None:
    files = [Path(f"{number}.npz") for number in range(60)]
    same = np.ones(60 * 64, np.bool_)
    same[40 * 64 : 47 * 64] = False
    assert (
        sample(files, [64] * 60, same, stateful=False, grouped=True) == files[39:47]
        or sample(files, [64] * 60, same, stateful=False, grouped=True) == files[40:48]
    )
    chosen = sample(files, [64] * 60, None, stateful=False, grouped=True)
    assert chosen == files[: SAMPLE_ROWS // 64]
