"""One input as a person can take it in: a picture, a waveform, a table, text, ids. Decided by shape, not by model.

In: the arrays of one row. Out: facts that a page can show as they are. Pure. Nothing is undone: what is shown is what the
data holds, scaled to be seen and said to be.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import percent
from parity.dossier.pair import Cell, Shown

Array = NDArray[Any]
WIDEST = 96
"""Pixels of a shown picture's longer side: larger ones are thinned out, and the note says so."""
LEAST_SIDE = 8
LEAST_WAVE = 64
MOST_CELLS = 63
MOST_READINGS = 16
MOST_IDS = 48
MOST_TEXT = 600
POINTS = 240
FULL_SCALE = 32768.0
FULL = "of full scale"
DARK = 64
"""Bytes that all lie below a quarter of what they can hold would look black: they are stretched, over the suite alike."""
Range = tuple[int, int]
NO_RANGES: Mapping[str, Range] = {}
NOUNS = {"picture": "images", "wave": "sound frames", "table": "readings", "text": "texts", "ids": "token sequences"}


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of each feature over the whole suite."""

    mean: Array
    std: Array


def noun(shown: tuple[Shown, ...]) -> str:
    """What a row is called in a sentence."""
    if not shown or (shown[0].kind == "wave" and FULL not in shown[0].note):  # a line of numbers may be anything
        return "requests"
    return NOUNS.get(shown[0].kind, "requests")


def shown(
    row: Mapping[str, Array],
    scales: Mapping[str, Scale],
    around: Mapping[str, Array],
    ranges: Mapping[str, Range] = NO_RANGES,
) -> tuple[Shown, ...]:
    """The row's inputs, text before ids; `around` holds a sound's neighbours in its stream, this row in the middle, `ranges`
    the least and the largest byte that pictures have over the suite.

    Masks say nothing to a reader and are left out where something else is there.
    """
    parts = [_one(name, array, scales.get(name), around.get(name), ranges.get(name)) for name, array in row.items()]
    texts = [part for part in parts if part.kind == "text"]
    telling = texts or [part for part in parts if "mask" not in part.name] or parts
    return tuple(telling[:2])


def _one(name: str, array: Array, scale: Scale | None, around: Array | None, bytes_in: Range | None) -> Shown:
    if array.dtype.kind in "US":
        return _text(name, array)
    if array.ndim == 1 and _are_ids(array):
        return _ids(name, array)
    image = as_image(array)
    if image is not None:
        return _picture(name, image, bytes_in)
    if array.ndim == 1 and len(array) >= LEAST_WAVE:
        return _wave(name, array, around)
    if array.ndim <= 1 and array.size <= MOST_CELLS:
        return _table(name, array.reshape(-1), scale)
    first = ", ".join(f"{v:.4g}" for v in array.reshape(-1)[:12])
    return Shown(kind="numbers", name=name, note=f"{array.dtype} {list(array.shape)}", text=f"{first}, …")


def _are_ids(array: Array) -> bool:
    """Wide integers; and unsigned ones of two bytes that are too many to be readings and too few to be a signal."""
    if array.dtype == np.uint16:
        return MOST_READINGS < len(array) < LEAST_WAVE
    return array.dtype.kind in "iu" and array.dtype.itemsize > 2


def as_image(array: Array) -> Array | None:
    """`[H, W]` or `[H, W, 3]` where the array has an image's shape, else None."""
    if array.ndim == 3 and array.shape[0] in (1, 3) and min(array.shape[1:]) >= LEAST_SIDE:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        array = array[..., 0] if array.shape[-1] == 1 else array[..., :3]
    fits = array.ndim in (2, 3) and (array.ndim == 2 or array.shape[-1] == 3)
    return array if fits and min(array.shape[:2]) >= LEAST_SIDE else None


def _picture(name: str, image: Array, bytes_in: Range | None) -> Shown:
    grey, how = _levels(image, bytes_in)
    step = -(-max(grey.shape[:2]) // WIDEST)
    thin = np.ascontiguousarray(grey[::step, ::step])
    note = f"{image.shape[1]} × {image.shape[0]}{how}" + (f", every {step}th pixel" if step > 1 else "")
    uri = "data:image/png;base64," + base64.b64encode(png(thin)).decode()
    return Shown(kind="picture", name=name, note=note, picture=uri, size=(thin.shape[1], thin.shape[0]))


def _levels(image: Array, bytes_in: Range | None) -> tuple[NDArray[np.uint8], str]:
    """Bytes as they are, where all are dark stretched; other numbers from 0…1 where they lie there, else from the smallest to
    the largest."""
    if image.dtype == np.uint8:
        low, high = (0, 255) if bytes_in is None else bytes_in
        if not low < high < DARK:
            return image, ""
        bright = np.round((image.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)
        return bright, f", {low} is black and {high} is white, as over the whole suite"
    exact = image.astype(np.float64)
    least, most = float(exact.min()), float(exact.max())
    how = ""
    if not (least >= 0 and most <= 1):
        exact = (exact - least) / (most - least) if most > least else np.zeros_like(exact)
        how = f", {least:.3g} is black and {most:.3g} is white"
    return np.round(exact * 255).astype(np.uint8), how


def png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file of grey `[H, W]` or colour `[H, W, 3]` (PNG, W3C 2003, sections 5 and 11); no time, no comment in it."""
    height, width = image.shape[:2]
    colour = 2 if image.ndim == 3 else 0
    lines = b"".join(b"\0" + image[y].tobytes() for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _wave(name: str, frame: Array, around: Array | None) -> Shown:
    """Lowest and highest sample of each of at most `POINTS` stretches, 1 being the loudest that is shown."""
    line = (frame if around is None else around).astype(np.float64)
    loudest = float(np.abs(line).max())
    pieces = np.array_split(line / (loudest or 1.0), min(POINTS, len(line)))
    wave = tuple((round(float(p.min()), 3), round(float(p.max()), 3)) for p in pieces)
    peak = float(np.abs(frame.astype(np.float64)).max())
    level = f"{percent.share(peak / FULL_SCALE, 1)} {FULL}" if frame.dtype == np.int16 else f"{peak:.3g}"
    return Shown(kind="wave", name=name, note=f"{len(frame)} samples, peak {level}", wave=wave, marked=(0.0, 1.0))


def _table(name: str, values: Array, scale: Scale | None) -> Shown:
    cells = []
    for i, value in enumerate(values):
        std = 0.0 if scale is None else float(scale.std.reshape(-1)[i])
        z = None if scale is None or std == 0 else (float(value) - float(scale.mean.reshape(-1)[i])) / std
        cells.append(Cell(name=f"{name}[{i}]" if len(values) > 1 else name, value=float(value), z=z))
    return Shown(kind="table", name=name, cells=tuple(cells))


def _text(name: str, array: Array) -> Shown:
    words = " ".join(w.decode(errors="replace") if isinstance(w, bytes) else str(w) for w in array.reshape(-1))
    return Shown(kind="text", name=name, text=cut(words, MOST_TEXT))


def _ids(name: str, array: Array) -> Shown:
    ids = np.trim_zeros(array, "b") if array.any() else array[:1]
    some = " ".join(str(i) for i in ids[:MOST_IDS])
    note = f"{len(ids)} ids" + ("" if len(ids) == len(array) else f", then {len(array) - len(ids)} zeros")
    return Shown(kind="ids", name=name, note=note, text=some + (" …" if len(ids) > MOST_IDS else ""))


def cut(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
