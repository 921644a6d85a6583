"""A `Case` put together from what lies in folders: which batches, which graphs, before and after what the front made of them.

In: places, graphs, the standings of the rungs that ran. Out: a `Case`. The rule: all graphs are made alike before they are
compared: without branches that the suite does not take, normalizations folded, integers as the floats that they stand for,
nodes of the same names in one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compile.config import ModelFile, TargetFile
from compile.dataset import columns_of
from compile.project import Project
from compile.signature import BATCH
from parity.explain.experiment.case import Case, rows_to_sample, sample, unprocessed
from parity.explain.experiment.ladder import Scale, Standing, alike, outputs_of
from parity.explain.experiment.rungs import Places
from parity.explain.graph.branches import straightened
from parity.explain.graph.folding import folded_alike, unfolded
from parity.explain.graph.integers import floated
from parity.explain.graph.order import in_order_of
from parity.explain.graph.simulate import with_stream
from parity.explain.mistake.pace import Pace
from parity.kinds import codes
from parity.observed import Observed

if TYPE_CHECKING:
    import onnx


def gathered(
    project: Project,
    config: ModelFile,
    target: TargetFile,
    at: Places,
    standings: Sequence[Standing],
    graphs: tuple[onnx.ModelProto, onnx.ModelProto],
    scale: Scale,
    pace: Pace,
) -> Case:
    """The case against the last rung that ran."""
    last = standings[-1]
    source = Observed(at.source, config)
    same = None if last.laws else alike(source, Observed(outputs_of(last).parent, config), config)
    batches = sorted((at.suite / "batches").glob("*.npz"))
    name = config.signature.answers[0].name
    axis = config.signature.answers[0].batch_axis or 0
    rows = [batch[name].shape[axis] for batch in source.batches()]
    columns = columns_of(at.suite)
    groups = codes(columns["group"][columns["row"]]) if "group" in columns else None
    first = next(iter(source.batches()))
    most = rows_to_sample(sum(first[t.name].size for t in config.signature.answers) / max(rows[0], 1), pace)
    stateful = bool(config.signature.state)
    alone = not stateful and groups is None and config.signature.axes[BATCH].least <= 1
    files = sample(batches, rows, same, stateful=stateful, grouped=groups is not None, most=most)
    own = None if at.found is None else next(iter(sorted(at.found.glob("*.onnx"))), None)
    far = any(s.rung.name == "artifact as found" and s.rung.after != "compiled artifact" for s in standings)
    raw = unprocessed(project, config, [path.name for path in files])
    sampled = [with_stream(path) for path in files]
    lies = None if own is None else _read(own)
    all_graphs = graphs if lies is None else (*graphs, lies)
    flat = [straightened(graph, sampled, config.signature) for graph in all_graphs]
    exact, fresh, *theirs = folded_alike(flat)
    integers = floated(theirs[0]) if theirs else None
    exact = exact if integers is None else unfolded(exact, integers)
    if at.graph == at.float_graph:
        fresh = exact
    found = None if integers is None else in_order_of(exact, integers)
    streams = [batch["stream"] for batch in sampled if "stream" in batch] or None
    if groups is not None and streams is None:
        each = np.split(groups, np.cumsum(rows)[:-1])
        streams = [each[batches.index(path)] for path in files]
    cut = max(most // len(files), 2) if alone and most < rows[batches.index(files[0])] else None
    return Case(config, target, exact, fresh, found, files, raw, scale, far, groups=streams, pace=pace, cut=cut)


def _read(path: Path) -> onnx.ModelProto | None:
    """A graph; None where the file is none, as one that was cut short."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path)
    except DecodeError:
        return None
