"""Pictures whose brightness went through a power on one side alone: gamma applied, left out, or applied twice.

In: a bench. Out: hypotheses, each with a fitted exponent, or sRGB's own curve. The rule: where black and white lie among the
numbers of a normalized picture is taken from `preprocess`, from the normalizations in use, or else from the suite's own
darkest and brightest number, and said; numbers beyond them stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from compile.signature import Tensor
from parity.explain.graph.simulate import Batch, Infer
from parity.explain.mistake.hypotheses import FIT, Array, Bench, Hypothesis, distance, replaced
from parity.explain.mistake.pictures import IMAGENET, sides
from parity.explain.mistake.screening import few_rows

FITTED_ROWS, STARTED_ROWS = 64, 16
STARTS = (1 / 2.4, 1 / 2.2, 1 / 1.8, 0.8, 1.25, 1.8, 2.2, 2.4)
STEPS = 24
ROOM = 1e-3
"""How far beyond black and white a picture's numbers may lie, of the way between them."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where black and white lie, for all colours or for each, and how that is known."""

    black: Array
    white: Array
    known: str

    def holds(self, values: Array) -> bool:
        share = self.share(values)
        return bool(share.min() >= -ROOM and share.max() <= 1 + ROOM)

    def share(self, values: Array) -> Array:
        return np.asarray((values - self.black) / (self.white - self.black))

    def bent(self, curve: Callable[[Array], Array], values: Array) -> Array:
        wide = values.astype(np.float64)
        share = self.share(wide)
        within = (share > 0) & (share < 1)
        return np.where(within, self.black + (self.white - self.black) * curve(np.clip(share, 0, 1)), wide)


def fitted_gamma(bench: Bench, smooth: Infer, enough: float) -> Iterator[Hypothesis]:
    """For each picture the exponent that explains the candidate best, fitted with the sound graph and with `smooth`."""
    for tensor in bench.signature.data_inputs:
        shape = bench.batches[0][tensor.name].shape
        if len(shape) != 4 or tensor.batch_axis != 0 or sides(shape) is None:
            continue
        for span in spans(bench, tensor):
            yield from _curves(bench, tensor, span, enough)
            for infer in dict.fromkeys((bench.infer, smooth)):
                if bench.pace.over:
                    bench.pace.left_out["fits of a gamma"] += 1
                    return
                yield _fitted(replace(bench, infer=infer), bench, tensor, span, enough)


def spans(bench: Bench, tensor: Tensor) -> list[Span]:
    """The nearest span that is known and holds the suite's numbers; where none is, the suite's own ends."""
    values = np.concatenate([batch[tensor.name] for batch in bench.batches]).astype(np.float64)
    known = [*_prepared(bench, tensor), *_usual(values)]
    held = [span for span in known if span.holds(values)]
    ends = Span(values.min(), values.max(), "the suite's darkest and brightest number")
    return held[:1] or ([ends] if ends.white > ends.black else [])


def _usual(values: Array) -> Iterator[Span]:
    for black, white in ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)):
        if values.min() >= 0 or black < 0:
            yield Span(np.array(black), np.array(white), f"{black:g} and {white:g}")
    for axis in (1, 3):
        if values.shape[axis] == 3:
            centre, width = (one.reshape([3 if a == axis else 1 for a in range(4)]) for one in IMAGENET)
            yield Span(-centre / width, (1 - centre) / width, "ImageNet's")


def _prepared(bench: Bench, tensor: Tensor) -> Iterator[Span]:
    """Where `preprocess` puts black and white, if it does no more than scale and move."""
    if bench.raw is None:
        return
    before, after = (np.concatenate([b[tensor.name] for b in side]) for side in (bench.raw, bench.batches))
    if before.shape != after.shape or before.min() < 0:
        return
    white = 1.0 if before.max() <= 1 else 255.0
    for axes in ((0, 1, 2, 3), (0, 2, 3), (0, 1, 2)):
        one, other = (side.astype(np.float64) - side.mean(axes, keepdims=True) for side in (before, after))
        slope = (one * other).sum(axes, keepdims=True) / np.maximum((one**2).sum(axes, keepdims=True), 1e-30)
        start = after.mean(axes, keepdims=True) - slope * before.mean(axes, keepdims=True)
        if np.abs(slope).min() > 0 and np.allclose(start + slope * before, after, atol=1e-4 * float(after.std())):
            yield Span(start, start + white * slope, "as `preprocess` makes them")
            return


def _curves(bench: Bench, tensor: Tensor, span: Span, enough: float) -> Iterator[Hypothesis]:
    """sRGB's own curve, either way (IEC 61966-2-1)."""
    curves: dict[str, Callable[[Array], Array]] = {
        "encoded as sRGB once more": lambda x: np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055),
        "decoded from sRGB to linear light": lambda x: np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4),
    }
    for said, curve in curves.items():
        yield _seen(bench, tensor, said, span, curve, enough)


def _seen(
    bench: Bench, tensor: Tensor, said: str, span: Span, curve: Callable[[Array], Array], enough: float
) -> Hypothesis:
    return Hypothesis(
        f"the candidate sees `{tensor.name}` {said} (black and white: {span.known})",
        f"give the candidate `{tensor.name}` with the suite's brightness; what was rounded on its way does not come back",
        partial(_answers, bench, tensor.name, span, curve),
        enough,
    )


def _answers(bench: Bench, name: str, span: Span, curve: Callable[[Array], Array]) -> list[Batch]:
    return bench.answers_on(replaced(bench.batches, name, partial(span.bent, curve)))


def _fitted(fits: Bench, bench: Bench, tensor: Tensor, span: Span, enough: float) -> Hypothesis:
    from scipy.optimize import minimize_scalar

    def error(some: Bench, power: float) -> float:
        return distance(some, _answers(some, tensor.name, span, lambda x: x**power), FIT)

    start = _best(STARTS, partial(error, few_rows(fits, STARTED_ROWS, STEPS, FIT)))
    few, around = few_rows(fits, FITTED_ROWS, STEPS, FIT), (np.log(start) - 0.5, np.log(start) + 0.5)
    found = minimize_scalar(
        lambda at: error(few, float(np.exp(at))), bounds=around, method="bounded", options={"maxiter": STEPS}
    )
    power = float(np.exp(found.x))
    said = f"with its brightness to the power of {power:.3g} (gamma)"
    return _seen(bench, tensor, said, span, lambda x: x**power, enough)


def _best(powers: Sequence[float], error: Callable[[float], float]) -> float:
    return min(powers, key=error)
