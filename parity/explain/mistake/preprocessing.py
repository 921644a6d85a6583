"""What may go wrong before a model: the systematic family of mistakes with its inputs.

In: a bench. Out: hypotheses, each of which runs the sound graph on inputs as the mistake would make them. The rule: the
family follows from shapes and dtypes alone; nothing in it knows a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.signature import Tensor
from parity.explain.graph.simulate import Infer
from parity.explain.mistake import pictures, tables
from parity.explain.mistake.hypotheses import ALIKE, FIT, REPRODUCED, Bench, Hypothesis, affine, distance, replaced
from parity.explain.mistake.screening import few_rows

Array = NDArray[Any]
Change = Callable[[Array], Array]
FITTED_ROWS, STARTED_ROWS = 64, 16
STEPS = 80
OFFSETS = (0.0, 0.4, -0.4, 0.8, -0.8)
"""Where a fit starts: the input's mean moved by so many of its deviations."""


def suspicions(bench: Bench) -> Iterator[Hypothesis]:
    """Every mistake with the inputs that this signature allows; none that needs fitting, or looks back in time."""
    yield from prepared_otherwise(bench)
    yield from _smaller(bench)
    yield from _ignored(bench)
    yield from _rounded(bench)
    yield from _swapped(bench)


def prepared_otherwise(bench: Bench) -> Iterator[Hypothesis]:
    """The mistakes that keep an input's content: its order, its layout, its scale, `preprocess` left out."""
    for tensor in bench.signature.data_inputs:
        for said, remedy, change in _changes(bench, tensor):
            yield _seen(bench, tensor, said, remedy, change)
    yield from _skipped(bench)


def _smaller(bench: Bench) -> Iterator[Hypothesis]:
    for tensor in bench.signature.data_inputs:
        shape = bench.batches[0][tensor.name].shape
        if len(shape) == 4 and tensor.batch_axis == 0:
            for said, remedy, change in pictures.smaller_once(shape):
                yield _seen(bench, tensor, said, remedy, change, ALIKE)


def _ignored(bench: Bench) -> Iterator[Hypothesis]:
    for tensor in bench.signature.data_inputs:
        yield _seen(bench, tensor, "as ones throughout (ignored)", "at all", np.ones_like)
        yield _seen(bench, tensor, "as zeros throughout (ignored)", "at all", np.zeros_like)


def _rounded(bench: Bench) -> Iterator[Hypothesis]:
    """A float input that came through something narrower on its way."""
    for tensor in bench.signature.data_inputs:
        if tensor.dtype.startswith("float"):
            yield _seen(bench, tensor, "rounded to whole numbers", "unrounded", np.rint)
            yield _seen(bench, tensor, "cut off to whole numbers", "unrounded", np.trunc)
            yield _seen(bench, tensor, "rounded to float16", "in its own precision", partial(_through, np.float16))


def _through(kind: type[np.generic], array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(kind).astype(array.dtype)


def _seen(
    bench: Bench, tensor: Tensor, said: str, remedy: str, change: Change, enough: float = REPRODUCED
) -> Hypothesis:
    return Hypothesis(
        f"the candidate sees `{tensor.name}` {said}",
        f"give the candidate `{tensor.name}` {remedy}",
        partial(_answers_to, bench, tensor.name, change),
        enough,
        inputs=partial(replaced, name=tensor.name, change=change),
    )


def _answers_to(bench: Bench, name: str, change: Change) -> Any:
    return bench.answers_on(replaced(bench.batches, name, change))


def _changes(bench: Bench, tensor: Tensor) -> Iterator[tuple[str, str, Change]]:
    """What may be done to one input: as said of the candidate, the remedy, the change."""
    shape = bench.batches[0][tensor.name].shape
    axes = [a for a in range(len(shape)) if a != tensor.batch_axis and shape[a] > 1]
    for axis in axes:
        colours = " (colours in the other order)" if shape[axis] == 3 and len(shape) == 4 else ""
        yield f"reversed along axis {axis}{colours}", f"in the suite's order along axis {axis}", partial(_flip, axis)
    for a, b in combinations(axes, 2):
        if shape[a] == shape[b]:
            yield f"transposed (axes {a} and {b} swapped)", "as the suite has it", partial(_swap, a, b)
        yield (
            f"with its numbers laid out as if axes {a} and {b} were swapped",
            "as the suite has it",
            partial(_lay, a, b),
        )
    if len(shape) in (2, 3) and tensor.batch_axis == 0:
        yield from tables.changes(shape, floats=tensor.dtype.startswith("float"))
    if len(axes) == 3:
        yield "laid out with axis 1 last (NHWC for NCHW)", "channels first", partial(_roll, 1, -1)
        yield "laid out with its last axis first (NCHW for NHWC)", "channels last", partial(_roll, -1, 1)
    if len(shape) == 4 and tensor.batch_axis == 0 and len(axes) > 1:
        yield from pictures.changes(shape, axes, floats=tensor.dtype.startswith("float"))
    if tensor.dtype.startswith("float"):
        yield from _scales(bench, tensor)
    elif tensor.dtype != "bool":
        yield "with ones for noughts and noughts for ones", "as the suite has it", lambda x: 1 - x
        yield "shifted by one (+1)", "numbered as the suite has it", lambda x: x + 1
        yield "shifted by one (-1)", "numbered as the suite has it", lambda x: np.maximum(x - 1, 0)


def _flip(axis: int, array: Array) -> Array:
    return np.flip(array, axis)


def _swap(a: int, b: int, array: Array) -> Array:
    return np.swapaxes(array, a, b)


def _lay(a: int, b: int, array: Array) -> Array:
    return np.ascontiguousarray(np.swapaxes(array, a, b)).reshape(array.shape)


def _roll(source: int, target: int, array: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(array, source, target)).reshape(array.shape)


def _scales(bench: Bench, tensor: Tensor) -> Iterator[tuple[str, str, Change]]:
    """Normalization left out or done once too often, by the constants in use and by the suite's own mean and deviation."""
    arrays = [batch[tensor.name] for batch in bench.batches]
    values = np.concatenate(arrays if arrays[0].ndim == 2 else [array.ravel() for array in arrays])
    mean, deviation = float(values.mean()), float(values.std()) or 1.0
    known = {
        "255": 255.0,
        "1/255": 1 / 255,
        "127.5": 127.5,
        "1/127.5": 1 / 127.5,
        "32768": 32768.0,
        "1/32768": 2.0**-15,
        **{f"{10.0**power:g}": 10.0**power for power in (-3, -2, -1, 1, 2, 3)},
    }
    for name, factor in known.items():
        yield f"{name} times as large (another scale)", "at the suite's scale", partial(_affine, factor, 0.0)
    yield "in 0…1 where the suite has -1…1", "normalized as the suite has it", partial(_affine, 0.5, 0.5)
    yield "in -1…1 where the suite has 0…1", "normalized as the suite has it", partial(_affine, 2.0, -1.0)
    if values.ndim == 2 and tensor.batch_axis == 0:
        centres, widths = values.mean(axis=0), values.std(axis=0)
        widths = np.where(widths, widths, 1.0)
        yield "standardized column by column", "as the suite has it", lambda x: (x - centres) / widths
    said = f"normalized (mean {mean:.3g}, deviation {deviation:.3g}) where the suite has it as it is"
    yield said, "as the suite has it", partial(_affine, 1 / deviation, -mean / deviation)


def _affine(factor: float, offset: float, array: Array) -> Array:
    return factor * array + offset


def _skipped(bench: Bench) -> Iterator[Hypothesis]:
    if bench.raw is not None:
        raw = bench.raw
        yield Hypothesis(
            "the candidate sees the suite's inputs without `preprocess`",
            "run `preprocess` before the candidate",
            lambda: bench.answers_on(raw),
        )


def _swapped(bench: Bench) -> Iterator[Hypothesis]:
    """Two inputs of one shape and dtype in each other's place."""
    for one, other in combinations(bench.signature.data_inputs, 2):
        if (one.shape, one.dtype) == (other.shape, other.dtype):
            names = one.name, other.name

            def predict(names: tuple[str, str] = names) -> Any:
                swapped = [b | {names[0]: b[names[1]], names[1]: b[names[0]]} for b in bench.batches]
                return bench.answers_on(swapped)

            said = f"the candidate takes `{names[0]}` for `{names[1]}`"
            yield Hypothesis(
                said, f"give the candidate `{names[0]}` and `{names[1]}` in the signature's order", predict
            )


def fitted_scale(bench: Bench, smooth: Infer, enough: float) -> Iterator[Hypothesis]:
    """For each float input, the factor and offset that explain the candidate best: any normalization on one side.

    They are fitted with the sound graph, and with the float graph, `smooth`: among the steps of integers a search may find no
    way down. `enough`: the share of the error that a mistake must explain which is known to a few digits only.
    """
    for infer in dict.fromkeys((bench.infer, smooth)):
        yield from _fitted(bench, infer, enough)


def _fitted(bench: Bench, infer: Infer, enough: float) -> Iterator[Hypothesis]:
    from scipy.optimize import minimize

    if bench.pace.over:
        bench.pace.left_out["fits of a scale"] += 1
        return
    few = replace(few_rows(bench, FITTED_ROWS, STEPS, FIT), infer=infer)
    fewer = replace(few_rows(bench, STARTED_ROWS, STEPS, FIT), infer=infer)
    for tensor in bench.signature.data_inputs:
        if not tensor.dtype.startswith("float"):
            continue
        values = np.concatenate([batch[tensor.name].ravel() for batch in few.batches]).astype(np.float64)
        width, centre = float(values.std()) or 1.0, float(values.mean())

        def error(
            at: Array, some: Bench = few, name: str = tensor.name, width: float = width, centre: float = centre
        ) -> float:
            change = partial(_affine, float(np.exp(at[0])), _offset(at, width, centre))
            return distance(some, some.answers_on(replaced(some.batches, name, change)), FIT)

        starts = [np.array([np.log(f), o]) for f in (1, 1 / 3, 3, width, 1 / width) for o in (*OFFSETS, centre / width)]
        start = min(starts, key=partial(error, some=fewer))
        around = np.stack([start, start + np.array([0.4, 0]), start + np.array([0, 0.4])])
        options = {"maxfev": STEPS, "xatol": 1e-4, "fatol": 1e-9, "initial_simplex": around}
        at = minimize(error, start, method="Nelder-Mead", options=options).x
        factor, offset = float(np.exp(at[0])), _offset(at, width, centre)
        yield Hypothesis(
            f"the candidate sees `{tensor.name}` {affine(factor, offset, factor * width)} (normalization on one side alone)",
            f"normalize `{tensor.name}` on both sides alike",
            partial(_answers_to, bench, tensor.name, partial(_affine, factor, offset)),
            enough,
        )


def _offset(at: Array, width: float, centre: float) -> float:
    """The offset that moves the input's mean by so many of its deviations, whatever the factor."""
    return float(centre + at[1] * width - np.exp(at[0]) * centre)
