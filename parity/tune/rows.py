"""The rows that candidates are tried on: the model's `tuning` data, or half of its calibration data. Never the suite.

In: the line. Out: a `Rows`: where the rows lie that calibrate candidates and those that judge them, and what the source
answers on the latter. The rule: no row of either is a row of the suite, none judges what it has calibrated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import build, dataset
from compile.build import Made
from compile.config import load_model
from compile.errors import ConfigError
from compile.kept import Array, Batch, digests_of
from compile.line import Line
from compile.project import GRAPH_FILE, Project
from compile.signature import Signature
from compile.step import Step

SEED = 0
NORMS = frozenset({"LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization"})


@dataclass(frozen=True, slots=True)
class Rows:
    """Folders of prepared rows, and of the source's answers on those that judge. `said`: where they come from, for people."""

    calibration: Path
    tuning: Path
    source: Path
    facts: Mapping[str, Any]
    digests: Mapping[str, str]
    said: str


def rows(line: Line) -> Rows:
    """The model's own tuning data where it has some, else the two halves of its calibration data."""
    calibration = build.data(line, "calibration")
    if line.config.tuning is not None:
        tuning = build.data(line, "tuning")
        places, digests = (calibration.folder, tuning.folder), (calibration.digest, tuning.digest)
    else:
        halves = _halves(line, calibration)
        places, digests = (halves.folder / "calibration", halves.folder / "tuning"), (halves.digest, halves.digest)
    source = _source(line, *places, digests)
    facts = json.loads((source.folder / "facts.json").read_text())
    inputs = {"calibration": digests[0], "tuning": digests[1], "source on the tuning rows": source.digest}
    return Rows(*places, source.folder, facts, inputs, _said(line, facts) + _caution(line, facts))


def _said(line: Line, facts: Mapping[str, Any]) -> str:
    judged, calibrated = f"{facts['tuning']:,}", f"{facts['calibration']:,}"
    if line.config.tuning is not None:
        return (
            f"candidates are judged on the {judged} rows of `tuning`, calibrated on {calibrated}; the suite has no say"
        )
    return (
        f"no `tuning` data in the config: half of the calibration data (seed {SEED}: {calibrated} rows) calibrates candidates, "
        f"the other half ({judged} rows) judges them; the suite has no say. The recipe as written is calibrated on all of them"
    )


def _caution(line: Line, facts: Mapping[str, Any]) -> str:
    """For embeddings: the same model keeps fewer of its neighbours among more rows."""
    rows_of_suite = len(dataset.columns_of(build.data(line, "suite").folder)["row"])
    if line.config.task.kind != "embedding" or facts["tuning"] >= rows_of_suite:
        return ""
    return (
        f"; neighbours are harder to keep among more rows, and the suite has {rows_of_suite:,}: give `tuning` as many"
    )


def _halves(line: Line, calibration: Made) -> Made:
    """The calibration data in two, as a step."""
    inputs = {"calibration": calibration.digest, "seed": str(SEED), **build.tools(*build.PREPARED_BY)}
    step = Step("tune/rows", line.out / "tune" / "rows", inputs)
    return build.made_of(step, line.own(step, line.model, "parity.tune.rows:split", {"model": line.model}))


def _source(line: Line, calibration: Path, tuning: Path, digests: tuple[str, str]) -> Made:
    """The source's answers on the rows that judge, as a step."""
    floats, brought = build.float_graph(line), build.fetched(line)
    inputs = {**build.source_inputs(line), "rows": "".join(digests), "float graph": floats.digest}
    step = Step("tune/source", line.out / "tune" / "source", inputs | build.tools(*build.LOWERED_BY))
    arguments = {
        "model": line.model,
        "calibration": str(calibration),
        "tuning": str(tuning),
        "fetched": None if brought is None else str(brought.folder),
        "float_graph": str(floats.folder / GRAPH_FILE),
    }
    return build.made_of(step, line.own(step, line.model, "parity.tune.rows:answer", arguments))


def split(project: Project, made: Path, model: str) -> None:
    """The child's step: `calibration/` and `tuning/`. Rows of one group, and copies of one row, stay together."""
    config = load_model(project, model)
    assert config.calibration is not None
    read = list(dataset.read(project, config, config.calibration, "calibration"))
    units = _units(read, config.signature)
    names = np.random.default_rng(SEED).permutation(np.unique(units))
    if len(names) < 2:
        raise ConfigError(
            "tune: the calibration data is one row or one stream, which cannot be split in two; give the model `tuning` data"
        )
    judging = np.isin(units, names[: len(names) // 2])
    for part, chosen in (("tuning", judging), ("calibration", ~judging)):
        (made / part).mkdir()
        dataset.write(made / part, config.signature, _taken(read, chosen, config.signature), config.calibration.batch)


Read = list[tuple[Batch, Batch]]
"""Batches, each with the columns of its rows."""


def _units(read: Read, signature: Signature) -> NDArray[np.int64]:
    """What must not be torn apart, a number a row: its group, or else its own bytes."""
    rows = np.concatenate([digests_of(batch, signature) for batch, _ in read])
    grouped = all("group" in columns for _, columns in read)
    if signature.state and not grouped:
        return np.zeros(len(rows), np.int64)
    named = np.concatenate([columns["group"] for _, columns in read]) if grouped else rows
    return np.asarray(np.unique(named, return_inverse=True)[1], np.int64)


def _taken(read: Read, chosen: NDArray[np.bool_], signature: Signature) -> Iterator[tuple[Batch, Batch]]:
    """The chosen rows, batch by batch."""
    axes = {tensor.name: tensor.batch_axis for tensor in signature.data_inputs}
    start = 0
    for batch, columns in read:
        count = len(digests_of(batch, signature))
        rows = np.flatnonzero(chosen[start : start + count])
        start += count
        if len(rows):
            taken = {n: v if axes[n] is None else np.take(v, rows, axis=axes[n]) for n, v in batch.items()}
            yield taken, {name: column[rows] for name, column in columns.items()}


def answer(
    project: Project, made: Path, model: str, calibration: str, tuning: str, fetched: str | None, float_graph: str
) -> None:
    """The child's step: the source's `outputs/` on the rows that judge, and `facts.json` about rows and graph."""
    import onnx

    from compile.reference import in_float32, walk
    from compile.source import open_source

    config = load_model(project, model)
    signature, wanted = config.signature, {tensor.name for tensor in config.signature.answers}
    judging, calibrating = (dataset.row_digests(Path(place), signature) for place in (tuning, calibration))
    if config.tuning is not None:
        _refuse_shared(judging, calibrating)
    source = open_source(project, config.source, None if fetched is None else Path(fetched))
    (made / "outputs").mkdir()
    for path, _, outputs in walk(in_float32(source, signature), Path(tuning), signature):
        np.savez(made / "outputs" / path.name, **{k: v for k, v in outputs.items() if k in wanted})  # type: ignore[arg-type]  # numpy's stub
    facts = {"tuning": len(judging), "calibration": len(calibrating)}
    facts |= choices_of(onnx.load(float_graph), from_torch=source.graph is None)
    (made / "facts.json").write_text(json.dumps(facts))


def _refuse_shared(judging: Array, calibrating: Array) -> None:
    shared = np.flatnonzero(np.isin(judging, calibrating)).tolist()
    if shared:
        raise ConfigError(
            f"tuning: {len(shared)} of its rows are also calibration data (tuning rows {', '.join(map(str, shared[:5]))}); a "
            "candidate is not judged on what it was calibrated with: take them out of one of the two"
        )


def choices_of(graph: Any, *, from_torch: bool) -> dict[str, bool]:
    """Which choices of a recipe can change anything: smoothing is a pass over torch models with norms; tables are stored."""
    stored = {tensor.name for tensor in graph.graph.initializer}
    return {
        "smoothing": from_torch and any(node.op_type in NORMS for node in graph.graph.node),
        "embeddings": any(node.op_type == "Gather" and node.input[0] in stored for node in graph.graph.node),
    }
