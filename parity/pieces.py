"""Outputs read from their files and handed on in pieces that are worth the walk.

In: `.npz` files as numpy writes them, or batches of two sides. Out: the arrays in them; the same rows in fewer, larger batches.
Of a small model a file holds a few kilobytes: opening it by `numpy.load`, and looking at each batch alone, would cost more
than all statistics together, and a third of what the model itself takes.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.signature import Tensor

Array = NDArray[Any]
Batch = dict[str, Array]
Pair = tuple[Batch, Batch]
PIECE = 2**20
"""Bytes of one side from which a piece is large enough."""
NAMES, MEMBER = "<HH", 30
"""Of a member of a zip file: the lengths of its name and its extra field, and the bytes of both and all before them."""
PLAIN, VERSION = np.lib.format.magic(1, 0), 10
"""Of a `.npy`: how it begins, and the bytes before its header."""


def read(path: str) -> Batch:
    """The arrays of an `.npz`, as `numpy.load` reads them; a file that is not as numpy writes it is left to numpy."""
    with open(path, "rb") as on_disk:
        data = bytearray(on_disk.read())
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        found = {member.filename.removesuffix(".npy"): _array(data, member, path) for member in file.infolist()}
    arrays = {name: array for name, array in found.items() if array is not None}
    if len(arrays) == len(found):
        return arrays
    with np.load(path, allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


def _array(data: bytearray, member: zipfile.ZipInfo, path: str) -> Array | None:
    """An array that lies in the file as it is; None where it does not."""
    name, extra = struct.unpack_from(NAMES, data, member.header_offset + MEMBER - struct.calcsize(NAMES))
    start = member.header_offset + MEMBER + name + extra
    content = memoryview(data)[start : start + member.file_size]
    if member.compress_type != zipfile.ZIP_STORED or content[: len(PLAIN)] != PLAIN:
        return None
    if zlib.crc32(content) != member.CRC:
        raise zipfile.BadZipFile(f"{path}: bad CRC-32 of `{member.filename}`")
    header = VERSION + struct.unpack_from("<H", content, VERSION - 2)[0]
    shape, by_column, dtype = _header(bytes(content[:header]))
    if dtype.hasobject:
        return None
    values = np.frombuffer(content, dtype, math.prod(shape), header)
    return values.reshape(shape, order="F" if by_column else "C")


@lru_cache(maxsize=1024)
def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype; told by the same bytes in file after file."""
    file = io.BytesIO(head)
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)


def merged(pairs: Iterable[Pair], tensors: Iterable[Tensor]) -> Iterator[Pair]:
    """The same rows in fewer pairs: neighbours of the same shape but for their rows are put together up to `PIECE`."""
    axes = {tensor.name: tensor.batch_axis for tensor in tensors}
    held: list[Pair] = []
    size, like = 0, None
    for pair in pairs:
        if (shapes := _shapes(pair, axes)) != like and held:
            yield _together(held, axes)
            held, size = [], 0
        held.append(pair)
        size, like = size + sum(array.nbytes for array in pair[0].values()), shapes
        if size >= PIECE:
            yield _together(held, axes)
            held, size = [], 0
    if held:
        yield _together(held, axes)


def _shapes(pair: Pair, axes: dict[str, int | None]) -> list[Any]:
    """What has to be equal in pairs that are put together; nothing is equal to an output whose rows are not known."""
    return [
        object()
        if (axis := axes.get(name)) is None
        else (name, array.dtype, array.shape[:axis], array.shape[axis + 1 :])
        for side in pair
        for name, array in side.items()
    ]


def _together(pairs: list[Pair], axes: dict[str, int | None]) -> Pair:
    if len(pairs) == 1:
        return pairs[0]
    one, other = (
        {name: np.concatenate([pair[side][name] for pair in pairs], axes[name] or 0) for name in pairs[0][side]}
        for side in (0, 1)
    )
    return one, other
