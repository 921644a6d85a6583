"""What may go wrong from frame to frame: state that is not carried, frames that come late, early or to another's turn.

In: a bench that knows which stream (or group of a time series) each row belongs to. Out: hypotheses. The rule: a stream's
past is its own; what a late device answers before its first frame is nought, or its first answer held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from compile.signature import Tensor
from parity.explain.graph.simulate import Batch
from parity.explain.mistake.hypotheses import FITTED, Array, Bench, Hypothesis, rows_first

LATEST = 8
LATE_INPUTS = 3
"""The same for inputs, which need a run each."""
IN_TIME = "give each frame its own answer"


def suspicions(bench: Bench) -> Iterator[Hypothesis]:
    """State that starts anew, frames that come late or early, frames left out of what is answered."""
    yield from _forgotten(bench)
    if bench.streams is None or _longest(bench.streams) < 2:
        return
    inputs = [tensor for tensor in bench.signature.data_inputs if tensor.batch_axis is not None]
    if bench.outputs and _even(bench.sound, bench.outputs):
        yield from _answers_late(bench, bench.streams)
    if bench.signature.state and _even(bench.batches, inputs):  # without state a late frame is a late answer
        yield from _frames_late(bench, bench.streams, inputs)


def _even(side: Sequence[Batch], tensors: Sequence[Tensor]) -> bool:
    """Whether each tensor's rows are of one shape throughout: then one may stand in the place of another."""
    return all(len({rows_first(batch[t.name], t).shape[1:] for batch in side}) == 1 for t in tensors)


def _longest(streams: Sequence[Array]) -> int:
    return int(np.unique(np.concatenate(streams), return_counts=True)[1].max())


def _forgotten(bench: Bench) -> Iterator[Hypothesis]:
    """State that starts anew at each step: all of it, or one tensor of several."""
    state = list(bench.signature.state)
    groups = [state, *([name] for name in state if len(state) > 1)] if state else []
    for names in groups:
        listed = ", ".join(f"`{name}`" for name in names)
        yield Hypothesis(
            f"the candidate's state ({listed}) is not carried between frames",
            f"feed {listed} from the step before",
            partial(bench.answers_on, bench.batches, forgotten=tuple(names)),
        )


def _answers_late(bench: Bench, streams: Sequence[Array]) -> Iterator[Hypothesis]:
    """Every output by the same number of frames."""
    for by in _steps(LATEST, streams):
        for held in (True, False):
            yield Hypothesis(
                f"the candidate's answers come {_said(by, held)} within each stream",
                IN_TIME,
                partial(_moved_on, bench.sound, bench.outputs, streams, by, held),
                FITTED,
            )


def _frames_late(bench: Bench, streams: Sequence[Array], inputs: Sequence[Tensor]) -> Iterator[Hypothesis]:
    listed = ", ".join(f"`{tensor.name}`" for tensor in inputs)
    for by in _steps(LATE_INPUTS, streams):
        for held in (True, False):

            def predict(by: int = by, held: bool = held) -> list[Batch]:
                return bench.answers_on(_moved_on(bench.batches, inputs, streams, by, held))

            said = f"the candidate sees {listed} {_said(by, held)} within each stream"
            yield Hypothesis(said, "give each frame in its own turn", predict, FITTED)


def _steps(most: int, streams: Sequence[Array]) -> Iterator[int]:
    """Late, then early, by no more than half of the longest stream."""
    for by in range(1, min(most, _longest(streams) // 2) + 1):
        yield from (by, -by)


def _said(by: int, held: bool) -> str:
    frames = "1 frame" if abs(by) == 1 else f"{abs(by)} frames"
    way, end = ("late", "first") if by > 0 else ("early", "last")
    beyond = f"the {end} one is held" if held else f"noughts {'before' if by > 0 else 'after'} the {end}"
    return f"{frames} {way} ({beyond})"


def _moved_on(
    side: Sequence[Batch], tensors: Sequence[Tensor], streams: Sequence[Array], by: int, held: bool
) -> list[Batch]:
    """The batches with these tensors so many frames later in each stream."""
    moved = {t.name: late([rows_first(b[t.name], t) for b in side], streams, by, held=held) for t in tensors}
    axes = {t.name: t.batch_axis or 0 for t in tensors}
    return [
        batch | {name: np.ascontiguousarray(np.moveaxis(rows[place], 0, axes[name])) for name, rows in moved.items()}
        for place, batch in enumerate(side)
    ]


def late(arrays: Sequence[Array], streams: Sequence[Array], by: int, *, held: bool) -> list[Array]:
    """Each row's predecessor `by` frames back in its own stream; where there is none, its end held, or noughts."""
    rows, owners = np.concatenate(arrays), np.concatenate(streams)
    found = np.zeros_like(rows)
    for owner in np.unique(owners):
        own = np.flatnonzero(owners == owner)
        wanted = np.arange(len(own)) - by
        inside = (wanted >= 0) & (wanted < len(own))
        found[own[inside]] = rows[own[wanted[inside]]]
        if held:
            found[own[~inside]] = rows[own[0 if by > 0 else -1]]
    return np.split(found, np.cumsum([len(one) for one in streams])[:-1])
