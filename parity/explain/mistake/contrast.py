"""Pictures that are brighter or of another contrast, and cut off at black and white; and pictures that were blurred.

In: a bench. Out: hypotheses, each with fitted constants. The rule: what is fitted here bends to much that it is not, so it must
leave no more than a thousandth of the error; what is not cut off anywhere is a scale, and told as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np

from compile.signature import Tensor
from parity.explain.graph.simulate import Batch, Infer
from parity.explain.mistake.gamma import Span, spans
from parity.explain.mistake.hypotheses import ALIKE, FIT, Array, Bench, Hypothesis, distance, replaced
from parity.explain.mistake.pictures import resampled, sides
from parity.explain.mistake.screening import few_rows

FITTED_ROWS, STARTED_ROWS = 64, 16
STEPS = 70
STARTS = tuple(product((0.6, 1.0, 1.5, 2.2), (-0.3, -0.1, 0.1, 0.3)))
"""Contrast about the middle, and what is added then, of the way from black to white."""
CUT_OFF = 1e-3
SPREADS = (0.5, 1.0, 2.0)
BOXES = (3, 5, 7)
BORDERS = {"mirrored": "reflect", "mirrored with its edge": "symmetric", "held": "edge"}
"""What lies beyond a picture's edge for a filter, and numpy's names for it."""
Change = Callable[[Array], Array]


def fitted_pictures(bench: Bench, smooth: Infer) -> Iterator[Hypothesis]:
    """For each picture, contrast that is cut off and blurs."""
    for tensor in bench.signature.data_inputs:
        shape = bench.batches[0][tensor.name].shape
        if len(shape) != 4 or tensor.batch_axis != 0 or sides(shape) is None or not tensor.dtype.startswith("float"):
            continue
        if bench.pace.over:
            bench.pace.left_out["fits of a contrast and a blur"] += 1
            return
        fits = replace(bench, infer=smooth)
        for span in spans(bench, tensor):
            yield from _contrast(fits, bench, tensor, span)
        yield from _blurs(fits, bench, tensor)


def _answers(bench: Bench, name: str, change: Change) -> list[Batch]:
    return bench.answers_on(replaced(bench.batches, name, change))


def _seen(bench: Bench, tensor: Tensor, said: str, remedy: str, change: Change) -> Hypothesis:
    told = f"the candidate sees `{tensor.name}` {said}"
    return Hypothesis(told, remedy, partial(_answers, bench, tensor.name, change), ALIKE)


def _stretched(span: Span, contrast: float, added: float, values: Array) -> Array:
    share = np.clip(contrast * (span.share(values.astype(np.float64)) - 0.5) + 0.5 + added, 0, 1)
    return np.asarray(span.black + (span.white - span.black) * share)


def _contrast(fits: Bench, bench: Bench, tensor: Tensor, span: Span) -> Iterator[Hypothesis]:
    from scipy.optimize import minimize

    few, fewer = (few_rows(fits, rows, STEPS, FIT) for rows in (FITTED_ROWS, STARTED_ROWS))

    def error(at: Array, some: Bench = few) -> float:
        return distance(some, _answers(some, tensor.name, partial(_stretched, span, float(at[0]), float(at[1]))), FIT)

    start = np.array(min(STARTS, key=partial(error, some=fewer)))
    around = np.stack([start, start + np.array([0.2, 0]), start + np.array([0, 0.1])])
    options = {"maxfev": STEPS, "xatol": 1e-4, "fatol": 1e-10, "initial_simplex": around}
    contrast, added = map(float, minimize(error, start, method="Nelder-Mead", options=options).x)
    values = np.concatenate([batch[tensor.name] for batch in bench.batches])
    share = contrast * (span.share(values.astype(np.float64)) - 0.5) + 0.5 + added
    if float(((share < 0) | (share > 1)).mean()) < CUT_OFF:
        return
    said = f"with {contrast:.3g} times the contrast and {added:+.3f} of the brightness, cut off at black and white"
    remedy = f"give the candidate `{tensor.name}` as bright as the suite has it; what was cut off does not come back"
    yield _seen(bench, tensor, f"{said} ({span.known})", remedy, partial(_stretched, span, contrast, added))


def _blurs(fits: Bench, bench: Bench, tensor: Tensor) -> Iterator[Hypothesis]:
    remedy = f"give the candidate `{tensor.name}` as sharp as the suite has it"
    for edge, border in BORDERS.items():
        spread = _spread(fits, tensor, border)
        kernels = {f"by a bell of {spread:.3g} pixels": bell(spread)}
        kernels |= {f"by the mean of {size} × {size} pixels": np.full(size, 1 / size) for size in BOXES}
        for said, kernel in kernels.items():
            yield _seen(bench, tensor, f"blurred {said} (its edge {edge})", remedy, partial(_blurred, kernel, border))


def _spread(fits: Bench, tensor: Tensor, border: str) -> float:
    """The spread of the bell that explains the candidate best."""
    from scipy.optimize import minimize_scalar

    few, fewer = (few_rows(fits, rows, STEPS, FIT) for rows in (FITTED_ROWS, STARTED_ROWS))

    def error(some: Bench, spread: float) -> float:
        return distance(some, _answers(some, tensor.name, partial(_blurred, bell(spread), border)), FIT)

    start = np.log(min(SPREADS, key=partial(error, fewer)))
    around = (start - 0.7, start + 0.7)
    found = minimize_scalar(
        lambda at: error(few, float(np.exp(at))), bounds=around, method="bounded", options={"maxiter": 20}
    )
    return float(np.exp(found.x))


def bell(spread: float) -> Array:
    """A Gaussian's weights out to four times its spread."""
    reach = max(1, int(np.ceil(4 * spread)))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    return np.asarray(weights / weights.sum())


def _blurred(kernel: Array, border: str, array: Array) -> Array:
    axes = sides(array.shape)
    assert axes is not None
    return resampled({axis: _filter(kernel, border, array.shape[axis]) for axis in axes}, array)


def _filter(kernel: Array, border: str, size: int) -> Array:
    """The matrix that filters a line of so many pixels."""
    reach = len(kernel) // 2
    places = np.pad(np.arange(size), reach, mode=border)  # type: ignore[call-overload]  # one of numpy's own modes
    found = np.zeros((size, size))
    for row in range(size):
        np.add.at(found[row], places[row : row + len(kernel)], kernel)
    return found
