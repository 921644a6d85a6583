"""Whether a batch of data fits the signature: dtypes, shapes, sizes of axes, finite numbers.

In: arrays by name. Out: how many rows they are. The rule: what does not fit stops here, with its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from compile.errors import ConfigError
from compile.kept import Array
from compile.signature import BATCH, Axis, Tensor


def check(
    tensors: Iterable[Tensor],
    batch: Mapping[str, Array],
    where: str,
    axes: Mapping[str, Axis],
    ids: Array | None = None,
) -> int:
    """The number of rows; ConfigError for a wrong dtype, a wrong shape, or what is not finite, which `ids` names."""
    rows: dict[str, int] = {}
    for tensor in tensors:
        array = batch[tensor.name]
        if array.dtype != np.dtype(tensor.dtype):
            raise ConfigError(f"{where}: `{tensor.name}`: found dtype {array.dtype}; expected {tensor.dtype}")
        if not _shape_fits(array.shape, tensor.shape):
            raise ConfigError(f"{where}: `{tensor.name}`: found shape {array.shape}; expected {tensor.shape}")
        _refuse_sizes(tensor, array, axes, where)
        _refuse_infinite(tensor, array, ids, where)
        if tensor.batch_axis is not None:
            rows[tensor.name] = array.shape[tensor.batch_axis]
    if len(set(rows.values())) > 1:
        raise ConfigError(f"{where}: found different numbers of rows: {rows}")
    if not rows:
        raise ConfigError(f"{where}: no input has the axis `{BATCH}`, which holds the rows; name it in the config")
    if not all(rows.values()):
        raise ConfigError(f"{where}: found no rows; expected at least one")
    return next(iter(rows.values()))


def _refuse_sizes(tensor: Tensor, array: Array, axes: Mapping[str, Axis], where: str) -> None:
    """ConfigError for a size outside what its axis may take; rows are no size: batches are cut to fit."""
    for part, size in zip(tensor.shape, array.shape, strict=True):
        if isinstance(part, str) and part != BATCH and not axes[part].least <= size <= axes[part].most:
            allowed = f"{axes[part].least} to {axes[part].most}"
            raise ConfigError(f"{where}: `{tensor.name}`: axis `{part}` is {size}; the config's axes say {allowed}")


def _refuse_infinite(tensor: Tensor, array: Array, ids: Array | None, where: str) -> None:
    """ConfigError where a number is not finite: the first with its place and its row's id, and how many rows have such."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = np.argwhere(~np.isfinite(array))
    place, axis = bad[0].tolist(), tensor.batch_axis
    named = "" if axis is None or ids is None or place[axis] >= len(ids) else f" (row `{ids[place[axis]]}`)"
    rows = 1 if axis is None else len(np.unique(bad[:, axis]))
    more = f" and in {rows - 1:,} more row{'s' if rows > 2 else ''}" if rows > 1 else ""
    raise ConfigError(
        f"{where}: `{tensor.name}`: found {array[tuple(place)]} at {place}{named}{more}; expected finite numbers"
    )


def _shape_fits(shape: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    return len(shape) == len(expected) and all(
        isinstance(e, str) or e == s for s, e in zip(shape, expected, strict=True)
    )
