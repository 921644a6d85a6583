"""What the inside of a candidate shows: tensors that diverge, modules that are written otherwise, constants that differ.

In: a `Case` and the rung that broke. Out: tensors, changes, or a cause that the files themselves prove. The rule: what a
sound graph does too is no finding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from compile.errors import ToolchainError
from parity.explain.experiment.case import Case
from parity.explain.experiment.change import Change
from parity.explain.experiment.exchange import MOST_LEFT, said
from parity.explain.experiment.ladder import Standing, outputs_of
from parity.explain.experiment.rungs import Places
from parity.explain.experiment.structure import changes
from parity.explain.experiment.told import Cause
from parity.explain.graph.ir import in_graph, ir_constants, ir_gaps, ir_layers, is_ir
from parity.explain.graph.points import QUANTIZING, named_modules, readers
from parity.explain.graph.tensors import Diverging, compare
from parity.explain.mistake.hypotheses import distance

if TYPE_CHECKING:
    import onnx

ROUNDING = 2.0**-40
"""Noise over signal of float32's own last place (2^-23 of a number, 2^-46 of its energy) after sums of 64 numbers."""
COARSEST = 1e-2
"""Noise over signal of four bits' rounding (about 20 dB): an operator further off than that computes something else."""


def layers_of_break(case: Case, broken: Standing) -> tuple[list[Diverging], list[Diverging]]:
    """Inner tensors of the graph that broke, and those of them that do more than a sound graph's do."""
    own = broken.rung.name == "artifact as found" and case.found is not None
    candidate = case.found if own else case.fresh
    assert candidate is not None
    if broken.rung.name not in ("artifact as found", "quantized graph simulated", "compiled artifact"):
        return [], []
    feeds = case.feeds()
    try:
        scales = case.smoothing()
        layers = compare(case.exact, candidate, feeds, scales)
        twin = own and case.fresh is not case.exact  # beside itself a graph adds nothing
        sound = {one.tensor: one for one in compare(case.exact, case.fresh, feeds, scales)} if twin else {}
    except ToolchainError:
        return [], []
    if own:
        beyond = [
            one for one in layers if one.own > 2 * (sound[one.tensor].own if one.tensor in sound else 0) + ROUNDING
        ]
        return layers, beyond
    share = layers[-1].noise / len(layers) if layers else 0.0
    return layers, [one for one in layers if one.own > max(share, ROUNDING)]


def changes_that_tell(
    case: Case, broken: Standing, layers: Sequence[Diverging], diverging: Sequence[Diverging]
) -> list[Change]:
    """Where the candidate's graph is another and gives other numbers; far other ones are another function, no rounding.

    Where no tensor can be compared (integers throughout), integer operators stand for themselves, if the answers are near.
    """
    if case.found is None:
        return []
    found = changes(case.exact if case.foreign else case.fresh, case.found)
    if not layers:
        return [change for change in found if change.kind == "quantization" and broken.noise < COARSEST]
    if not diverging:  # no tensor shows it: it only rounds otherwise, less than eight bits do anyway
        return [change for change in found if broken.step * 2 < broken.noise]
    own: dict[str, float] = {}
    for one in diverging:
        own[one.module] = max(own.get(one.module, 0.0), one.own)
    found = [change for change in found if (change.modules | change.read_by) & own.keys()]
    return [replace(c, kind="export") if c.kind == "fusion" and _furthest(c, own) > COARSEST else c for c in found]


def _furthest(change: Change, own: Mapping[str, float]) -> float:
    """How far off a changed module is, or else those that show it: no tensor of the source's may stand beside what it gives."""
    shown = change.read_by | change.shows_in
    return own[change.module] if change.module in own else max((own[one] for one in shown if one in own), default=0.0)


def with_ir(at: Places, case: Case, broken: Standing, fresh: Standing | None) -> Case:
    """The case with a graph for OpenVINO's IR: the one that the line compiles, with the IR's constants in it.

    That must move its answers as the IR's are moved from those of the `fresh` one, by more than half.
    """
    if broken.rung.name != "artifact as found" or case.found is not None or at.found is None or not is_ir(at.found):
        return case
    graph = in_graph(case.fresh, ir_constants(at.found))
    if fresh is None or fresh.laws or broken.laws:
        return case
    ours, theirs = (case.answers_in(outputs_of(one)) for one in (fresh, broken))
    try:
        moved = zip(case.answers_of(graph), case.answers_of(case.fresh), ours, strict=True)
        predicted = [{n: o[n] + g[n] - s[n] for n in o if o[n].dtype.kind == "f"} for g, s, o in moved]
    except ToolchainError:
        return case
    bench = case.between(ours, theirs)
    stands = distance(bench, predicted) < (1 - MOST_LEFT) * distance(bench, ours)
    return replace(case, found=graph, stands_in=True) if stands else case


def by_constants(at: Places, case: Case, broken: Standing) -> Cause | None:
    """Where no graph stands for an OpenVINO IR: its constants beside those of the fresh one, if all else is alike."""
    if broken.rung.name != "artifact as found" or case.found is not None or at.found is None or at.fresh is None:
        return None
    if not is_ir(at.found) or not is_ir(at.fresh) or ir_layers(at.found) != ir_layers(at.fresh):
        return None
    other = ir_gaps(ir_constants(at.fresh), ir_constants(at.found), _owners(case.fresh))
    weights = [gap for gap, many in other if many]
    if weights:
        sentence = f"{said(weights, len(other))}; the artifact built afresh from the source answers as it should"
        modules = list(dict.fromkeys(gap.module for gap in weights))
        return Cause("stale or wrong weights", sentence, "build it again from the source's weights", modules=modules)
    ranges = [gap for gap, many in other if not many]
    if ranges:
        named = ", ".join(dict.fromkeys(f"`{gap.module}`" for gap in ranges[:4]))
        sentence = f"{len(ranges)} constants of quantizers are not those that the calibration data gives ({named})"
        return Cause("quantization", sentence, "calibrate again and rebuild", modules=[g.module for g in ranges])
    return None


def _owners(model: onnx.ModelProto) -> dict[str, str]:
    """For each stored tensor the module of the operator that it reaches."""
    reading, names = readers(model), named_modules(model)

    def owner(name: str) -> str | None:
        for node in reading.get(name, []):
            if node.op_type not in QUANTIZING:
                return names[node.output[0]]
            if (found := owner(node.output[0])) is not None:
                return found
        return None

    return {tensor.name: owner(tensor.name) or tensor.name for tensor in model.graph.initializer}
