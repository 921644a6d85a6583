"""Everything that was observed, row by row, and suites drawn from it with the rest as a pool that the gate does not see.

In: folders of outputs over the same batches. Out: `Witness` (all rows of one producer) and `Draw`s. A unit is a group
where the data is grouped, else a row; a draw never parts a unit, and has the kinds that are judged apart in the shares that
all data has them: a suite is put together with so many of each, and is not left with too few of one by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.config import ModelFile
from compile.errors import ConfigError
from compile.signature import Signature
from parity.kinds import codes
from parity.observed import answers_in, results_in

Array = NDArray[Any]
Outputs = dict[str, Array]
LEAST_UNITS = 20
POOL_TIMES = 5
"""The pool is at least so many times the suite."""


@dataclass(frozen=True, slots=True)
class Witness:
    """All rows: their columns, the unit of each, and what the trusted sides answered. Rows first in every output."""

    columns: Mapping[str, Array]
    unit: NDArray[np.int64]
    source: Outputs
    baseline: Outputs | None
    kind: NDArray[np.int64] | None = None
    """Of each unit, the kind that a limit judges apart; None where none does."""

    @property
    def units(self) -> int:
        return int(self.unit.max()) + 1


@dataclass(frozen=True, slots=True)
class Draw:
    """Which rows are the suite, and which the pool."""

    suite: NDArray[np.int64]
    pool: NDArray[np.int64]


def draw(witness: Witness, most: int, seed: int) -> Draw:
    """A suite of at most `most` units, and at most a sixth of all; the rest is the pool."""
    random, count = np.random.default_rng(seed), suite_units(witness, most)
    order = random.permutation(witness.units)
    if witness.kind is not None:
        order = order[np.argsort(witness.kind[order], kind="stable")]
        order = order[((np.arange(count) + random.random()) * witness.units / count).astype(np.int64)]
    chosen = order[:count]
    inside = np.isin(witness.unit, chosen)
    return Draw(np.flatnonzero(inside), np.flatnonzero(~inside))


def kinds_of(columns: Mapping[str, Array], unit: NDArray[np.int64], names: Iterable[str]) -> NDArray[np.int64] | None:
    """Of each unit, its kind by these columns together; None without one that is the same all through every unit."""
    first = np.unique(unit, return_index=True)[1]
    same = [columns[name] for name in names if name in columns and (columns[name] == columns[name][first][unit]).all()]
    if not same:
        return None
    found = np.stack([np.unique(values, return_inverse=True)[1][first] for values in same], axis=1)
    return np.asarray(np.unique(found, axis=0, return_inverse=True)[1], np.int64).ravel()


def units_of(columns: Mapping[str, Array]) -> int:
    """How many groups, or rows that stand alone, prepared data holds."""
    return len(np.unique(columns["group"])) if "group" in columns else len(columns["row"])


def refuse_too_few(parts: list[Mapping[str, Array]]) -> None:
    """ConfigError where suite and pool together are too few to draw a suite from."""
    count = sum(units_of(part) for part in parts)
    if min(units_of(parts[0]), count // (POOL_TIMES + 1)) < LEAST_UNITS:
        raise ConfigError(
            f"selftest: {count} independent rows or groups in suite and pool; a suite of {LEAST_UNITS} and a pool of "
            f"{POOL_TIMES} times as many need {LEAST_UNITS * (POOL_TIMES + 1)}: name more data under `pool`"
        )


def suite_units(witness: Witness, most: int) -> int:
    return min(most, witness.units // (POOL_TIMES + 1))


def read_outputs(folder: Path, signature: Signature) -> Outputs:
    """The outputs of every batch in one array a tensor, rows first; ConfigError where batches differ in width."""
    found: dict[str, list[Array]] = {t.name: [] for t in signature.answers}
    axes = {t.name: t.batch_axis for t in signature.answers}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as outputs:
            for name in found:
                found[name].append(np.moveaxis(outputs[name], axes[name] or 0, 0))
    if any(len({a.shape[1:] for a in arrays}) > 1 for arrays in found.values()):
        raise ConfigError("selftest: outputs differ in width from batch to batch; it plants in outputs of one width")
    return {name: np.concatenate(arrays) for name, arrays in found.items()}


def write_outputs(folder: Path, outputs: Outputs, signature: Signature, pieces: int = 1) -> None:
    """Outputs as an observation's folder holds them, the batch axis where it belongs."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = {t.name: t.batch_axis or 0 for t in signature.answers}
    count = len(next(iter(outputs.values())))
    for number, rows in enumerate(np.array_split(np.arange(count), pieces)):
        batch = {name: np.moveaxis(array[rows], 0, axes.get(name, 0)) for name, array in outputs.items()}
        np.savez(folder / f"{number:05d}.npz", **batch)  # type: ignore[arg-type]  # numpy's stub forbids ** of arrays


def joined_columns(parts: list[Mapping[str, Array]]) -> tuple[dict[str, Array], NDArray[np.int64]]:
    """The columns that all parts have, in the order of observed rows, and the unit of each row; copies are left in.

    Groups of two parts are never the same group, whatever they are called.
    """
    names = set.intersection(*(set(part) for part in parts)) - {"row", "copy", "original", "group"}
    columns = {name: np.concatenate([part[name][part["row"]] for part in parts]) for name in sorted(names)}
    grouped = all("group" in part for part in parts)
    rows = sum(len(part["row"]) for part in parts)
    if not grouped:
        return columns, np.arange(rows)
    labelled = [[f"{number} {group}" for group in part["group"][part["row"]]] for number, part in enumerate(parts)]
    groups = np.concatenate([np.array(part) for part in labelled])
    columns["group"] = groups
    found = codes(groups)
    return columns, np.arange(rows) if found is None else found


def answers_of(config: ModelFile, outputs: Outputs) -> Array:
    """One answer a row."""
    return answers_in([_as_observed(config, outputs)], config)


def results_of(config: ModelFile, outputs: Outputs) -> Array:
    """What holds the answers, rows first: scores where the task has them."""
    return next(results_in([_as_observed(config, outputs)], config))


def _as_observed(config: ModelFile, outputs: Outputs) -> Outputs:
    axes = {t.name: t.batch_axis or 0 for t in config.signature.answers}
    return {name: np.moveaxis(array, 0, axes.get(name, 0)) for name, array in outputs.items()}
