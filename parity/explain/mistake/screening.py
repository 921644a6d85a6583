"""Few rows before many: what a few rows rule out is not run on all of them, and where a row is dear, on very few.

In: a bench, a family of hypotheses. Out: trials. The rule: on a fast network the first batches screen, and all rows decide
about what they leave; on a slow one those rows do on which the candidate is furthest off, as many as time allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compile.signature import BATCH
from parity.explain.mistake.hypotheses import Array, Bench, Hypothesis, Trial, distance, rows_first, tried

SCREENED_ROWS, PICKED = 32, 0.5
"""A few rows, and the share of the error that must be explained there before all sampled rows are asked."""
SHOWS = 0.1
"""The share of the error over all rows that a few must have to stand for them."""


def screened(bench: Bench, family: Callable[[Bench], Iterator[Hypothesis]], what: str = "hypotheses") -> list[Trial]:
    """A family tested on a few rows, and what explains much of the error there on all of them; where a few rows do not show
    the error, all of it on all."""
    whole = list(family(bench))
    few = few_rows(bench, SCREENED_ROWS, len(whole))
    shows = distance(few, few.sound) > SHOWS * distance(bench, bench.sound)
    if few.rows == bench.rows or not shows:
        return tried(bench, whole, what)
    first = []
    for place, (one, on_few) in enumerate(zip(whole, family(few), strict=True)):
        if bench.pace.over:
            bench.pace.left_out[what] += len(whole) - place
            break
        first.append((one, tried(few, [on_few], what)))
    picked = sorted(
        ((t.score, place) for place, (_, ts) in enumerate(first) for t in ts if t.score >= PICKED), reverse=True
    )
    enough = bench.pace.runs(len(picked), bench.rows)
    if enough < len(picked):
        bench.pace.left_out[what] += len(picked) - enough
    decided = sorted(place for _, place in picked[:enough])
    rest = [trial for place, (_, trials) in enumerate(first) for trial in trials if trial.score < PICKED]
    return sorted([*tried(bench, [first[i][0] for i in decided], what), *rest], key=lambda trial: -trial.score)


def few_rows(bench: Bench, wanted: int, runs: int, part: int | None = None) -> Bench:
    """Rows for so many runs: the first batches, or, where those are too many, the rows that are furthest off.

    `part`: those of one half alone (the ones that are fitted on).
    """
    count = bench.pace.rows(min(wanted, bench.rows), runs)
    if count >= min(wanted, bench.rows) or not _stand_alone(bench):
        return bench.few(min(wanted, count) if bench.pace.row_s else wanted)
    bench.pace.fewest = min(count, bench.pace.fewest or count)
    return furthest(bench, count, part)


def halves_of_few(bench: Bench, wanted: int, runs: int) -> Bench:
    """The same with as many rows to fit on as to score on, in turn: for what is fitted and scored there."""
    count = bench.pace.rows(min(wanted, bench.rows), runs)
    if count >= min(wanted, bench.rows) or not _stand_alone(bench):
        return bench.few(min(wanted, count) if bench.pace.row_s else wanted)
    sides = [_order(bench, part)[: max(count // 2, 1)] for part in (0, 1)]
    return _picked(bench, [row for pair in zip(*sides, strict=False) for row in pair], halved=True)


def _stand_alone(bench: Bench) -> bool:
    """Whether rows may be taken out of their batches: they have no past, and all are of one shape."""
    signature = bench.signature
    axis = signature.axes.get(BATCH)
    alike = all(len({b[n].shape[1:] for b in side}) == 1 for side in (bench.batches, bench.found) for n in side[0])
    batched = all(t.batch_axis == 0 for t in (*signature.data_inputs, *signature.answers))
    return axis is not None and axis.least <= 1 and not signature.state and bench.streams is None and alike and batched


def _order(bench: Bench, part: int | None) -> list[int]:
    """Rows of a half, or all, by how far the candidate is off, the furthest first."""
    off = np.zeros(bench.rows)
    for tensor in bench.outputs:
        gaps, signal = [], 0.0
        for one, other in zip(bench.sound, bench.found, strict=True):
            ours, theirs = (rows_first(side[tensor.name], tensor).astype(np.float64) for side in (one, other))
            if ours.shape != theirs.shape:
                return list(range(bench.rows))
            gaps.append(((ours - theirs) ** 2).reshape(len(ours), -1).sum(axis=1))
            signal += float((theirs**2).sum())
        off += np.nan_to_num(np.concatenate(gaps) / max(signal, np.finfo(float).tiny))
    return [int(row) for row in np.argsort(-off, kind="stable") if part is None or row % 2 == part]


def furthest(bench: Bench, count: int, part: int | None = None) -> Bench:
    """So many rows, those on which the candidate is furthest off, as batches of their own."""
    return _picked(bench, _order(bench, part)[:count], halved=False)


def _picked(bench: Bench, rows: Sequence[int], *, halved: bool) -> Bench:
    most = bench.signature.axes[BATCH].most
    parts = [rows[start : start + most] for start in range(0, len(rows), most)]

    def change(side: Sequence[Any]) -> Sequence[Any]:
        if isinstance(side[0], np.ndarray):
            together: Array = np.concatenate(list(side))
            return [together[part] for part in parts]
        whole = {name: np.concatenate([batch[name] for batch in side]) for name in side[0]}
        return [{name: array[part] for name, array in whole.items()} for part in parts]

    return replace(bench.of(change), halved=halved)
