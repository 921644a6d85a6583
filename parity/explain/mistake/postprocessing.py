"""What may go wrong behind a model: the systematic family of mistakes with its outputs.

In: a bench and, where a graph ends in an activation, what goes into it. Out: hypotheses that need no further run. The
rule: what is fitted (a permutation, a factor, a shift) is fitted on the half of the rows that is not scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.signature import Tensor
from parity.explain.graph.points import through_quantizers
from parity.explain.graph.simulate import Batch
from parity.explain.mistake.hypotheses import ALIKE, FIT, FITTED, UNSEEN, Bench, Hypothesis, affine, halves, rows_first

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
MOST_CLASSES = 1024
LEAST_LONG = 16
"""Numbers of a row, of which its length is one sixteenth of what it tells at most."""
ACTIVATIONS = ("Softmax", "LogSoftmax", "Sigmoid")


def suspicions(bench: Bench, before: Mapping[str, Sequence[Array]]) -> Iterator[Hypothesis]:
    """Every mistake with the float outputs; `before`: per output what enters the activation that it ends in."""
    for tensor in bench.outputs:
        yield from _reordered(bench, tensor)
        yield from permuted(bench, tensor)
        yield from _lengthened(bench, tensor)
        yield from _scaled(bench, tensor)
        yield from _activated(bench, tensor, before.get(tensor.name))


def entering(model: onnx.ModelProto, name: str) -> str | None:
    """The tensor that enters the softmax or sigmoid that gives an output; None where it does not end in one."""
    producers = {output: node for node in model.graph.node for output in node.output}
    node = producers.get(through_quantizers(name, producers))
    return node.input[0] if node is not None and node.op_type in ACTIVATIONS else None


def _of(bench: Bench, tensor: Tensor, arrays: Sequence[Array]) -> list[Batch]:
    """The sound answers with one output in another form."""
    return [batch | {tensor.name: array} for batch, array in zip(bench.sound, arrays, strict=True)]


def _each(bench: Bench, tensor: Tensor, change: Callable[[Array], Array]) -> list[Batch]:
    return _of(bench, tensor, [change(batch[tensor.name]) for batch in bench.sound])


def _reordered(bench: Bench, tensor: Tensor) -> Iterator[Hypothesis]:
    """Rows in another order (reversed within the batch, shifted through the suite), axes swapped, the complement."""
    axis = tensor.batch_axis or 0
    name, remedy = f"`{tensor.name}`", "give each row the answer of its own request"
    yield Hypothesis(
        f"the candidate's rows of {name} are reversed in each batch", remedy,
        partial(_each, bench, tensor, lambda x: np.flip(x, axis)),
    )  # fmt: skip
    if (shift := _shift(bench, tensor)) is not None:
        yield Hypothesis(
            f"the candidate's rows of {name} are shifted by {shift}", remedy, partial(_shifted, bench, tensor, shift)
        )
    shape = bench.sound[0][tensor.name].shape
    if len(shape) > 2 and shape[-1] == shape[-2]:
        yield Hypothesis(
            f"the candidate's {name} is transposed", f"transpose {name} back",
            partial(_each, bench, tensor, lambda x: np.swapaxes(x, -1, -2)),
        )  # fmt: skip
    yield Hypothesis(
        f"the candidate gives 1 - {name}", "read the score of the other class",
        partial(_each, bench, tensor, lambda x: 1 - x),
    )  # fmt: skip


def _shift(bench: Bench, tensor: Tensor) -> int | None:
    """The shift that most rows of the fitting half agree on, by their nearest sound row."""
    sound = [rows_first(b[tensor.name], tensor) for b in bench.sound]
    found = [rows_first(b[tensor.name], tensor) for b in bench.found]
    if len({a.shape[1:] for a in (*sound, *found)}) > 1:
        return None
    ours, theirs = (np.concatenate(a).reshape(sum(map(len, a)), -1).astype(np.float64) for a in (sound, found))
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None
    looked = range(FIT, len(theirs), 2)
    nearest = [int(((ours - theirs[i]) ** 2).sum(axis=1).argmin()) for i in looked]
    shift, votes = Counter((i - j) for i, j in zip(looked, nearest, strict=True)).most_common(1)[0]
    return shift if shift and votes > len(nearest) / 4 else None


def _shifted(bench: Bench, tensor: Tensor, shift: int) -> list[Batch]:
    axis = tensor.batch_axis or 0
    sizes = np.cumsum([b[tensor.name].shape[axis] for b in bench.sound])[:-1]
    rolled = np.roll(np.concatenate([b[tensor.name] for b in bench.sound], axis=axis), shift, axis=axis)
    return _of(bench, tensor, np.split(rolled, sizes, axis=axis))


def permuted(bench: Bench, tensor: Tensor) -> Iterator[Hypothesis]:
    """The permutation of the last axis that fits best, by optimal assignment."""
    from scipy.optimize import linear_sum_assignment

    size = bench.sound[0][tensor.name].shape[-1]
    if tensor.batch_axis == len(tensor.shape) - 1 or not 2 <= size <= MOST_CLASSES:
        return
    ours, theirs = (_columns(side, tensor, size) for side in (bench.sound, bench.found))
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return
    cost = (theirs**2).sum(axis=0)[:, None] - 2 * theirs.T @ ours + (ours**2).sum(axis=0)
    order = linear_sum_assignment(cost)[1]
    if (order != np.arange(size)).any():
        moved = int((order != np.arange(size)).sum())
        told = f": candidate {list(range(size))} is source {order.tolist()}" if size <= 12 else ""
        yield Hypothesis(
            f"the candidate's {bench.places} of `{tensor.name}` are permuted ({moved} of {size} moved{told})",
            f"map the candidate's {bench.places} back to the source's",
            partial(_each, bench, tensor, lambda x: np.take(x, order, axis=-1)),
        )


def _columns(side: Sequence[Batch], tensor: Tensor, size: int) -> Array:
    return np.concatenate([half.reshape(-1, size) for half in halves(side, tensor, FIT)])


def _lengthened(bench: Bench, tensor: Tensor) -> Iterator[Hypothesis]:
    """Vectors of one length that the candidate does not bring to it: each row's own, of many numbers, is taken as it is."""
    ours, theirs = ([_lengths(b[tensor.name]) for b in side] for side in (bench.sound, bench.found))
    first = bench.sound[0][tensor.name]
    if (
        tensor.batch_axis != 0
        or first[0].size < LEAST_LONG
        or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True))
    ):
        return
    lengths = np.concatenate(ours)
    if not lengths.all() or np.ptp(lengths) > UNSEEN * lengths.mean():
        return
    factors = [their / our for our, their in zip(ours, theirs, strict=True)]
    stretched = [batch[tensor.name] * factor for batch, factor in zip(bench.sound, factors, strict=True)]
    yield Hypothesis(
        f"the candidate's `{tensor.name}` is not brought to length {lengths.mean():.3g}", "divide each row by its length",
        partial(_of, bench, tensor, stretched), ALIKE,
    )  # fmt: skip


def _lengths(array: Array) -> Array:
    """Of each row, to be multiplied with it."""
    axes = tuple(range(1, array.ndim))
    return np.asarray(np.sqrt((array.astype(np.float64) ** 2).sum(axis=axes, keepdims=True)))


def _scaled(bench: Bench, tensor: Tensor) -> Iterator[Hypothesis]:
    """The factor and offset that fit best: a dequantization forgotten or done twice."""
    ours, theirs = (np.concatenate([h.ravel() for h in halves(s, tensor, FIT)]) for s in (bench.sound, bench.found))
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()) or not ours.std():
        return
    factor = float(np.cov(ours, theirs)[0, 1] / ours.var(ddof=1))
    offset = float(theirs.mean() - factor * ours.mean())
    yield Hypothesis(
        f"the candidate's `{tensor.name}` is {affine(factor, offset, theirs.std())} (scaled behind the model)",
        f"scale `{tensor.name}` as the source does",
        partial(_each, bench, tensor, lambda x: factor * x + offset),
        FITTED,
    )
    narrower: dict[str, Callable[[Array], Array]] = {
        "rounded to whole numbers": np.rint, "cut off to whole numbers": np.trunc, "rounded down to whole numbers": np.floor,
        "rounded to float16": _in_half, "rounded to bfloat16": _in_bfloat16,
    }  # fmt: skip
    for said, change in narrower.items():
        yield Hypothesis(
            f"the candidate gives `{tensor.name}` {said}", f"hand `{tensor.name}` on as the model gives it",
            partial(_each, bench, tensor, change),
        )  # fmt: skip
    low, high = float(theirs.min()), float(theirs.max())
    bent: dict[str, Callable[[Array], Array]] = {
        "through exp": np.exp, "through log": lambda x: np.log(np.maximum(x, 1e-30)), "through tanh": np.tanh,
        "as its magnitude": np.abs, f"cut off to {low:.4g}…{high:.4g}": lambda x: np.clip(x, low, high),
    }  # fmt: skip
    for said, change in bent.items():
        yield Hypothesis(
            f"the candidate gives `{tensor.name}` {said}", f"give `{tensor.name}` as the source does",
            partial(_wide, bench, tensor, change),
        )  # fmt: skip


def _in_half(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(array.dtype)


def _in_bfloat16(array: Array) -> Array:
    """Rounded to even at the upper half of float32's bits."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def _activated(bench: Bench, tensor: Tensor, before: Sequence[Array] | None) -> Iterator[Hypothesis]:
    """Softmax or sigmoid missing, done once more, or along another axis."""
    raw = [batch[tensor.name] for batch in bench.sound] if before is None else before
    if any(a.shape != b[tensor.name].shape for a, b in zip(raw, bench.sound, strict=True)):
        return
    name = f"the candidate's `{tensor.name}`"
    if before is not None:
        yield Hypothesis(
            f"{name} lacks its final activation", "apply it behind the candidate", partial(_of, bench, tensor, raw)
        )
        again = partial(_each, bench, tensor, partial(_softmax, -1))
        yield Hypothesis(f"{name} went through softmax once more", "apply softmax once", again)
    kinds: dict[str, Callable[[Array], Array]] = {
        "softmax along the batch (the wrong axis)" if axis == (tensor.batch_axis or 0) else f"softmax along axis {axis}":
        partial(_softmax, axis) for axis in range(len(tensor.shape))
    }  # fmt: skip
    kinds |= {"sigmoid": lambda x: (1 + np.tanh(x / 2)) / 2, "log-softmax": lambda x: np.log(_softmax(-1, x) + 1e-30)}
    for kind, change in kinds.items():
        yield Hypothesis(
            f"{name} went through {kind}, the source's did not", "apply the activation that the source has",
            partial(_through, bench, tensor, change, raw),
        )  # fmt: skip


def _wide(bench: Bench, tensor: Tensor, change: Callable[[Array], Array]) -> list[Batch]:
    """The sound answers bent, in double precision; what overflows is no number."""
    with np.errstate(over="ignore"):
        return _each(bench, tensor, lambda x: change(x.astype(np.float64)))


def _through(bench: Bench, tensor: Tensor, change: Callable[[Array], Array], raw: Sequence[Array]) -> list[Batch]:
    return _of(bench, tensor, [change(array.astype(np.float64)) for array in raw])


def _softmax(axis: int, array: Array) -> Array:
    raised = np.exp(array - array.max(axis=axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis=axis, keepdims=True))
