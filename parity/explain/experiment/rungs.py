"""The rungs that ONNX Runtime climbs here, and the order in which all of them are compared.

In: graphs, folders, what the target's runtime climbed. Out: `Rung`s, each with its outputs and the rung before it. The
rule: every rung answers the whole suite, and its outputs stay beside the report.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compile.config import ModelFile
from compile.errors import ToolchainError
from compile.reference import walk
from parity.explain.experiment.ladder import Rung, RungName, nearest, slug
from parity.explain.graph.simulate import opened, output_names

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything lies; None for what this target or this machine does not have."""

    suite: Path
    source: Path
    float_graph: Path
    graph: Path
    fresh: Path | None
    found: Path | None
    fetched: Path | None = None
    """The files of a source that MLflow keeps."""


def ladder(
    made: Path,
    at: Places,
    exact: onnx.ModelProto,
    fresh: onnx.ModelProto,
    config: ModelFile,
    others: Sequence[Mapping[str, Any]],
) -> list[Rung]:
    """All rungs in their order: the source, the graphs that are run here, what the front ran."""
    given = {rung["name"]: rung for rung in others}

    def front(name: RungName) -> list[Rung]:
        one = given.get(name)
        if one is None:
            return []
        outputs = None if one["outputs"] is None else Path(one["outputs"])
        return [Rung(name, outputs, one["why"], leads=one["leads"], rule=one["rule"])]

    derived = at.graph != at.float_graph
    simulated: Rung = (
        _graph_rung(made, "quantized graph simulated", fresh, at, config)
        if derived
        else Rung("quantized graph simulated", None, "this target computes in float32", leads=False)
    )
    return [
        Rung("source", at.source / "outputs"),
        _graph_rung(made, "exported graph", exact, at, config),
        _graph_rung(made, "optimizer on", exact, at, config, optimized=True),
        *front("runtime, precision pinned"),
        *front("runtime's defaults"),
        simulated,
        *front("compiled artifact"),
        *front("artifact as found"),
        *front("observation as found"),
    ]


def _graph_rung(
    made: Path, name: RungName, model: onnx.ModelProto, at: Places, config: ModelFile, *, optimized: bool = False
) -> Rung:
    """A graph run on the whole suite by ONNX Runtime."""
    outputs = made / "rungs" / slug(name) / "outputs"
    outputs.mkdir(parents=True)
    wanted, started = {t.name for t in config.signature.answers}, time.monotonic()
    try:
        infer = opened(model, output_names(config.signature), optimized=optimized)
        for path, _, found in walk(infer, at.suite, config.signature):
            np.savez(outputs / path.name, **{k: v for k, v in found.items() if k in wanted})  # type: ignore[arg-type]
    except ToolchainError as error:
        return Rung(name, None, str(error).splitlines()[0])
    return Rung(name, outputs, seconds=time.monotonic() - started)


def kept(made: Path, rung: Rung) -> Rung:
    """The rung with its outputs beside the report, where the command that reproduces it finds them."""
    place = made / "rungs" / slug(rung.name) / "outputs"
    if rung.outputs is not None and rung.outputs != place:
        shutil.copytree(rung.outputs, place)
        return replace(rung, outputs=place)
    return rung


def linked(ladder: Sequence[Rung], config: ModelFile, *, foreign: bool) -> list[Rung]:
    """Every rung beside the one before it on the artifact's way; an artifact from elsewhere beside the nearest one."""
    linked: list[Rung] = []
    way: list[Rung] = []
    for rung in ladder:
        after = way[-1].name if way else None
        if rung.name == "artifact as found" and foreign and rung.outputs is not None:
            floats = [r for r in way if r.name in ("runtime, precision pinned", "optimizer on", "exported graph")][-1:]
            after = nearest(rung.outputs, [*floats, *(r for r in way if r.name == "compiled artifact")], config)
        linked.append(replace(rung, after=after))
        if rung.outputs is not None and rung.leads:
            way.append(linked[-1])
    return linked
