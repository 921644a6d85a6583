"""Data as the model sees it: batches checked against the signature, and the columns that speak about them.

In: an `.npz` or a function that yields batches, and the user's `preprocess`. Out: a folder with
`batches/NNNNN.npz` (the model's inputs) and `columns.npz` (`labels`, `id`, `group`, metadata, one entry a row; `copy`:
whether it repeats an earlier row, and `original`: which, where any does; `row`: the row that each batch entry came from, in
batch order).
The rule: what does not fit the signature, is not finite, or is empty, stops here.

Batches are checked and written as they come, so that a function may yield more than memory holds: of every row its columns
and a digest are kept. An `.npz` is read as one batch; of a model with state all frames are held, for streams run side by side.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compile import fit, user_code
from compile.config import DataConfig, ModelFile, load_model
from compile.errors import ConfigError
from compile.kept import Array, Batch, Kept, digests_of, originals
from compile.project import Project
from compile.signature import BATCH, Signature
from compile.worker import rows_in

RESERVED = ("labels", "id", "group")
MADE = ("row", "copy", "original")
"""Columns that preparing adds."""
NEARLY = {"label": "labels", "target": "labels", "ids": "id", "groups": "group"}


def prepare(project: Project, made: Path, model: str, part: str, judged_on: str | None) -> None:
    """The step behind the suite (`part="suite"`) and the calibration data, which may share no row with `judged_on`."""
    config = load_model(project, model)
    data = config.data(part)
    if data is None:
        raise ConfigError(f"configs/models/{model}.yaml: a quantized target needs `calibration`; it is missing")
    write(made, config.signature, read(project, config, data, part), data.batch, part)
    if judged_on is not None:
        refuse_leakage(Path(judged_on), made, config.signature, part)


def read(project: Project, config: ModelFile, data: DataConfig, part: str) -> Iterator[tuple[Batch, Batch]]:
    """Each batch, preprocessed and checked, with the columns over its rows."""
    signature = config.signature
    names = [t.name for t in signature.data_inputs]
    preprocess = user_code.function(config.preprocess, "preprocess") if config.preprocess else None
    for number, raw in enumerate(raw_batches(project, data, part)):
        inputs = preprocess({k: v for k, v in raw.items() if k not in RESERVED}) if preprocess else raw
        batch = {name: _input(inputs, name, part) for name in names}
        rows = fit.check(signature.data_inputs, batch, f"{part} batch {number}", signature.axes, raw.get("id"))
        yield batch, _columns(raw, set(names), rows, part)


def write(
    made: Path, signature: Signature, batches: Iterable[tuple[Batch, Batch]], size: int, part: str = "suite"
) -> None:
    """Write prepared data. With state, a batch holds the same frame of as many streams as fit, so that they run side by side."""
    folder = made / "batches"
    folder.mkdir()
    most = min(size, signature.axes[BATCH].most) if BATCH in signature.axes else size
    kept = Kept(signature, part)
    noted = kept.noting(batches)
    pieces = _frames(noted, kept, most, signature) if signature.state else _split(noted, most, signature)
    order = []
    for number, (batch, rows) in enumerate(pieces):
        np.savez(folder / f"{number:05d}.npz", **batch)  # type: ignore[arg-type]  # numpy's stub forbids ** of arrays
        order.append(rows)
    if not order:
        raise ConfigError(f"{part}: the data is empty; expected at least one row")
    columns = kept.columns()
    first = originals(kept.digests(), columns, signature)
    copy = first != np.arange(len(first))
    about = {**kept.sizes(), **columns, "copy": copy, **({"original": first} if copy.any() else {})}
    np.savez(made / "columns.npz", **about, row=np.concatenate(order))


def batches_of(folder: Path) -> Iterator[Batch]:
    """The batches of a prepared folder, in order; without the stream numbers."""
    for path in sorted((folder / "batches").glob("*.npz")):
        with np.load(path, allow_pickle=False) as batch:
            yield {name: batch[name] for name in batch.files if name != "stream"}


def columns_of(folder: Path) -> Batch:
    with np.load(folder / "columns.npz", allow_pickle=False) as columns:
        return {name: columns[name] for name in columns.files}


def names_of(folder: Path, signature: Signature) -> Array:
    """What each row of a prepared folder is called: its `id`, else its number; of inputs alone, their place."""
    if not (folder / "columns.npz").is_file():
        return np.arange(sum(rows_in(signature.document(), batch) for batch in batches_of(folder)))
    columns = columns_of(folder)
    return columns["id"][columns["row"]] if "id" in columns else columns["row"]


def row_digests(folder: Path, signature: Signature) -> Array:
    """One digest per row of a prepared folder: equal rows, equal digests."""
    return np.concatenate([digests_of(batch, signature) for batch in batches_of(folder)])


def refuse_leakage(suite: Path, calibration: Path, signature: Signature, part: str = "calibration") -> None:
    """ConfigError where a calibration row is also a row of the suite: such a suite judges what it has taught. With state, where
    two frames follow each other that do in the suite: a single one, such as silence, may be in any stream."""
    ours, theirs = row_digests(calibration, signature), row_digests(suite, signature)
    if signature.state:
        shared = np.flatnonzero(_of_known_streams((ours, theirs), (_streams(calibration), _streams(suite))))
    else:
        shared = np.flatnonzero(np.isin(ours, theirs))
    if len(shared):
        first = ", ".join(str(i) for i in shared[:5])
        raise ConfigError(
            f"{part}: {len(shared)} of its rows are also in the evaluation suite ({part} rows {first}"
            f"{', …' if len(shared) > 5 else ''}); take them out of one of the two"
        )


def _streams(folder: Path) -> Array:
    """Which stream each frame of a prepared folder belongs to."""
    found = []
    for path in sorted((folder / "batches").glob("*.npz")):
        with np.load(path, allow_pickle=False) as batch:
            found.append(batch["stream"])
    return np.concatenate(found)


def _of_known_streams(digests: tuple[Array, Array], streams: tuple[Array, Array]) -> NDArray[np.bool_]:
    """Which of the first side's frames stand in a stream of the second: two that differ follow each other in both. Of a stream of
    one kind of frame alone, whether that kind is in one stream of the second, and no more."""
    names, code = np.unique(np.concatenate(digests), return_inverse=True)
    ours, theirs = np.split(code, [len(digests[0])])
    (pairs, at), (known, _) = (
        _steps(side, stream, len(names)) for side, stream in zip((ours, theirs), streams, strict=True)
    )
    found = np.zeros(len(ours), bool)
    found[at[np.isin(pairs, known)].ravel()] = True
    holders = np.unique(np.stack([theirs, streams[1]]), axis=1)[0]
    for number in np.unique(streams[0]):
        rows = np.flatnonzero(streams[0] == number)
        if (ours[rows] == ours[rows[0]]).all():
            found[rows] = (holders == ours[rows[0]]).sum() == 1
    return found


def _steps(code: Array, stream: Array, kinds: int) -> tuple[Array, Array]:
    """Of frames that follow each other in a stream and differ: a number for both, and which rows they are, [steps, 2]."""
    order = np.argsort(stream, kind="stable")
    before, after = order[:-1], order[1:]
    step = (stream[before] == stream[after]) & (code[before] != code[after])
    at = np.stack([before[step], after[step]], axis=1)
    return code[at[:, 0]].astype(np.int64) * kinds + code[at[:, 1]], at


def raw_batches(project: Project, data: DataConfig, part: str) -> Iterator[Batch]:
    """The batches as the data file or the data function gives them, before `preprocess`."""
    if data.npz is not None:
        yield load_npz(project.root / data.npz, part)
    else:
        assert data.function is not None
        make = user_code.function(data.function, part)
        found = make()
        if not isinstance(found, Iterable):
            raise ConfigError(
                f"{part}: `{data.function}` gave {type(found).__name__}; expected dicts of arrays, one a batch"
            )
        for batch in user_code.each(found, f"{part} `{data.function}`"):
            if not isinstance(batch, Mapping):
                raise ConfigError(
                    f"{part}: `{data.function}` yielded {type(batch).__name__}; expected a dict of arrays"
                )
            yield {name: np.asarray(array) for name, array in batch.items()}


def load_npz(path: Path, part: str) -> Batch:
    """Every array of an `.npz`; object arrays (pickles) are refused unread."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise ConfigError(f"{part}: no such file: {path}") from error
    except (ValueError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{part}: {path} is no `.npz` of plain arrays (`numpy.savez` writes one; object arrays are pickles and are not "
            f"read): {str(error).split('. ')[0]}"
        ) from error


def _input(inputs: Mapping[str, Array], name: str, part: str) -> Array:
    if name not in inputs:
        raise ConfigError(f"{part}: no array for the input `{name}`; found {', '.join(sorted(inputs))}")
    return np.asarray(inputs[name], order="C")


def _columns(raw: Batch, inputs: set[str], rows: int, part: str) -> Batch:
    """The reserved columns, and as metadata every other one-dimensional array with one entry a row."""
    taken = [name for name in MADE if name in raw and name not in inputs]
    if taken:
        raise ConfigError(f"{part}: found a column `{taken[0]}`; lockstep makes one of that name: call it otherwise")
    for name in ("id", "group"):
        if name in raw and raw[name].ndim != 1:
            raise ConfigError(f"{part}: `{name}` has shape {raw[name].shape}; expected one entry for each row")
    if "group" in raw and raw["group"].dtype.kind == "f" and np.isnan(raw["group"]).any():
        raise ConfigError(
            f"{part}: group: {int(np.isnan(raw['group']).sum())} of {rows} are NaN; say whose rows they are"
        )
    for name in RESERVED:
        if name in raw and len(raw[name]) != rows:
            raise ConfigError(f"{part}: `{name}` has {len(raw[name])} entries; expected one for each of {rows} rows")
    if "labels" in raw and raw["labels"].dtype.kind == "f" and not np.isfinite(raw["labels"]).all():
        bad = np.flatnonzero(~np.isfinite(raw["labels"]).reshape(rows, -1).all(axis=1))
        first = f"`{raw['id'][bad[0]]}`" if "id" in raw else str(bad[0])
        raise ConfigError(
            f"{part}: labels: {len(bad)} of {rows} are NaN or infinite, the first in row {first}; leave those rows out"
        )
    for name, meant in NEARLY.items():
        if name in raw and name not in inputs:
            raise ConfigError(f"{part}: found a column `{name}`; expected `{meant}`: another name would not be judged")
    return {k: v for k, v in raw.items() if k in RESERVED or (k not in inputs and v.ndim == 1 and len(v) == rows)}


def _split(batches: Iterable[Batch], size: int, signature: Signature) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Batches of at most `size` rows, in row order."""
    axes = {t.name: t.batch_axis for t in signature.data_inputs}
    start = 0
    for batch in batches:
        count = next(batch[n].shape[a] for n, a in axes.items() if a is not None)
        for first in range(0, count, size):
            rows = np.arange(first, min(first + size, count))
            yield {n: v if axes[n] is None else np.take(v, rows, axis=axes[n]) for n, v in batch.items()}, start + rows
        start += count


def _frames(
    batches: Iterable[Batch], kept: Kept, most: int, signature: Signature
) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Of `most` streams at a time frame after frame, with the streams' numbers in `stream`; a stream is one `group`."""
    held = list(batches)
    if not held:
        return
    axes = {t.name: t.batch_axis for t in signature.data_inputs}
    settings = {name: _one_setting(name, held) for name, axis in axes.items() if axis is None}
    joined = {n: np.concatenate([b[n] for b in held], axis=a) for n, a in axes.items() if a is not None}
    del held
    count = next(array.shape[axes[name] or 0] for name, array in joined.items())
    groups = kept.columns().get("group", np.zeros(count, np.int64))
    names, stream = np.unique(groups, return_inverse=True)
    position = np.zeros(count, np.int64)
    seen = np.zeros(len(names), np.int64)
    for row, number in enumerate(stream):
        position[row] = seen[number]
        seen[number] += 1
    for first in range(0, len(names), most):
        here = (stream >= first) & (stream < first + most)
        for step in range(int(seen[first : first + most].max())):
            rows = np.flatnonzero(here & (position == step))
            frame = {name: np.take(array, rows, axis=axes[name]) for name, array in joined.items()}
            yield frame | settings | {"stream": stream[rows].astype(np.int64)}, rows


def _one_setting(name: str, batches: Sequence[Batch]) -> Array:
    """An input without rows (a sampling rate), which streams side by side share."""
    first = batches[0][name]
    other = next((i for i, batch in enumerate(batches) if not np.array_equal(batch[name], first)), None)
    if other is not None:
        raise ConfigError(f"`{name}` has no rows and differs between batches 0 and {other}; with state it must be one")
    return first
