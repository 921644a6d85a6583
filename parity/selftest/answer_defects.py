"""Defects behind the artifact: outputs that are swapped, lost, stale or not numbers. Arrays in, arrays out.

`Outputs` of all rows, a size and a seed come in; changed outputs go out. A defect that a task cannot have gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.config import TaskConfig

Array = NDArray[Any]
Outputs = dict[str, Array]
Random = np.random.Generator


def swapped_classes(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """A share of the classes exchanged in pairs."""
    scores = outputs[name]
    if task.kind != "classification" or scores.ndim < 2 or scores.shape[-1] < 2:
        return None
    classes = scores.shape[-1]
    chosen = random.choice(classes, max(2, round(size * classes)), replace=False)
    order = np.arange(classes)
    order[chosen] = np.roll(chosen, 1)
    return {**outputs, name: scores[..., order]}


def shifted_label_map(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """Off by one: every class is called the next one, for a share of the rows (a new client beside old ones)."""
    if task.kind != "classification" or outputs[name].ndim < 2:
        return None
    hit = random.random(len(outputs[name])) < size
    return {**outputs, name: _where(hit, np.roll(outputs[name], 1, axis=-1), outputs[name])}


def favoured_class(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """One class's score too high by a multiple of the scores' deviation."""
    scores = outputs[name]
    if task.kind != "classification" or scores.ndim < 2:
        return None
    bias = np.zeros(scores.shape[-1])
    bias[random.integers(len(bias))] = 3 * size * scores.std()
    return {**outputs, name: (scores + bias).astype(scores.dtype)}


def threshold_typo(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """The deployed threshold is another: 0.05 for 0.5, say, which is the score raised."""
    if task.kind != "binary_score":
        return None
    spread = np.quantile(outputs[name], 0.99) - np.quantile(outputs[name], 0.01)
    raised = outputs[name] + (size * 0.9) * max(abs(task.threshold), float(spread) / 2)
    return {**outputs, name: raised.astype(outputs[name].dtype)}


def permuted_batch(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """Answers in another order than requests, for a share of the rows."""
    chosen = random.choice(len(outputs[name]), max(2, round(size * len(outputs[name]))), replace=False)
    order = np.arange(len(outputs[name]))
    order[chosen] = random.permutation(chosen)
    return {key: array[order] for key, array in outputs.items()}


def late_by_one(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """A buffer that gives the answer of the request before, for a share of the rows."""
    hit = random.random(len(outputs[name])) < size
    return {key: _where(hit, np.roll(array, 1, axis=0), array) for key, array in outputs.items()}


def frozen(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """A cache that gives one answer again and again, for a share of the rows."""
    hit = random.random(len(outputs[name])) < size
    return {key: _where(hit, np.broadcast_to(array[:1], array.shape), array) for key, array in outputs.items()}


def other_models_outputs(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """Another model's cached outputs: the same rows answered by a model that has little to do with this one."""
    scores = outputs[name].astype(np.float64)
    noise = random.standard_normal(scores.shape) * scores.std() + scores.mean()
    return {**outputs, name: ((1 - size) * scores + size * noise).astype(outputs[name].dtype)}


def noisy_outputs(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs:
    """Noise of a share of the outputs' deviation: a broken accumulator, a lossy link."""
    scores = outputs[name].astype(np.float64)
    return {
        **outputs,
        name: (scores + size * scores.std() * random.standard_normal(scores.shape)).astype(outputs[name].dtype),
    }


def negated(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """The sign is lost on the way, for a share of the rows."""
    hit = random.random(len(outputs[name])) < size
    return {**outputs, name: _where(hit, -outputs[name], outputs[name])}


def dropped_output(outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random) -> Outputs | None:
    """The output is not there at all."""
    return {f"{key}_0" if key == name else key: array for key, array in outputs.items()}


def half_declared_as_float(
    outputs: Outputs, name: str, task: TaskConfig, size: float, random: Random
) -> Outputs | None:
    """Half precision comes back where float was declared."""
    return {**outputs, name: outputs[name].astype(np.float16)}


Defect = Callable[[Outputs, str, TaskConfig, float, Random], Outputs | None]
DEFECTS: Mapping[str, Defect] = {
    "swapped classes": swapped_classes,
    "label map off by one": shifted_label_map,
    "favoured class": favoured_class,
    "threshold typo": threshold_typo,
    "permuted batch": permuted_batch,
    "late by one": late_by_one,
    "frozen answer": frozen,
    "another model's outputs": other_models_outputs,
    "noisy outputs": noisy_outputs,
    "negated outputs": negated,
    "dropped output": dropped_output,
    "half precision in place of float": half_declared_as_float,
}


NOT_NUMBERS: Mapping[str, float] = {"NaN in a sample": np.nan, "infinity in a sample": np.inf}


def with_value(outputs: Outputs, name: str, value: float, size: float, random: Random) -> Outputs | None:
    """One number of one row, or of a share of the rows, is `value`; None where outputs are no floats."""
    if outputs[name].dtype.kind != "f":
        return None
    changed = outputs[name].copy()
    count = max(1, round(size * len(changed)))
    changed.reshape(len(changed), -1)[random.choice(len(changed), count, replace=False), 0] = value
    return {**outputs, name: changed}


def _where(hit: Array, one: Array, other: Array) -> Array:
    return np.where(hit.reshape(-1, *(1,) * (one.ndim - 1)), one, other)
