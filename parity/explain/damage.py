"""Which layers do the damage: each one restored to float in the simulated graph, on the calibration data.

In: the float graph, the quantized graph, calibration feeds. Out: layers by what restoring them gives back, for
`keep_float`. The rule: the ranking never sees the suite that judges it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compile.config import ModelFile, load_model
from compile.project import Project
from parity.answers import agree
from parity.explain.graph.graft import grafted
from parity.explain.graph.points import layers_of, matched
from parity.explain.graph.simulate import Batch, answered, opened, output_names, with_stream
from parity.explain.graph.tensors import decibel, noise_over_signal
from parity.observed import answers_in

if TYPE_CHECKING:
    import onnx

ROWS = 256
MOST_KEPT = 3
HALVED = 0.5


@dataclass(frozen=True, slots=True)
class Damage:
    """What one module in float gives back: SQNR in dB, and the share of rows that then agree with float again."""

    module: str
    sqnr_gain_db: float
    agreement_gain: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Layers, the most damaging first, and the fewest of them that together at least halve the error."""

    layers: Sequence[Damage]
    keep: Sequence[str]


def rank(project: Project, made: Path, model: str, float_graph: str, graph: str, calibration: str) -> None:
    """The child's step: `ranking.json`."""
    import onnx

    config = load_model(project, model)
    files = sorted((Path(calibration) / "batches").glob("*.npz"))
    ranking = rank_layers(onnx.load(float_graph), onnx.load(graph), _few(files, config), config)
    (made / "ranking.json").write_text(json.dumps(asdict(ranking), indent=1))


def _few(files: Sequence[Path], config: ModelFile) -> list[Batch]:
    """The first batches, up to `ROWS` rows."""
    tensor = next(t for t in config.signature.data_inputs if t.batch_axis is not None)
    batches, seen = [], 0
    for path in files:
        batches.append(with_stream(path))
        seen += batches[-1][tensor.name].shape[tensor.batch_axis or 0]
        if seen >= ROWS:
            break
    return batches


def rank_layers(
    exact: onnx.ModelProto, quantized: onnx.ModelProto, batches: Sequence[Batch], config: ModelFile
) -> Ranking:
    """Every layer restored alone, then the best of them together until the error is halved."""
    truth = _answers(exact, batches, config)
    before = _standing(truth, quantized, batches, config)
    layers = []
    for module in integer_modules(exact, quantized):
        after = _standing(truth, restored(exact, quantized, [module]), batches, config)
        layers.append(
            Damage(module, decibel(after[0]) - decibel(before[0]) if before[0] else 0.0, after[1] - before[1])
        )
    layers.sort(key=lambda one: -one.sqnr_gain_db)
    keep: list[str] = []
    for layer in [one for one in layers if one.sqnr_gain_db > 0][:MOST_KEPT]:
        keep.append(layer.module)
        if _standing(truth, restored(exact, quantized, keep), batches, config)[0] <= HALVED * before[0]:
            break
    return Ranking(layers, keep)


def _answers(model: onnx.ModelProto, batches: Sequence[Batch], config: ModelFile) -> list[Batch]:
    return answered(opened(model, output_names(config.signature)), batches, config.signature)


def _standing(
    truth: Sequence[Batch], model: onnx.ModelProto, batches: Sequence[Batch], config: ModelFile
) -> tuple[float, float]:
    """Noise over signal of the worst output, and the share of rows that agree."""
    found = _answers(model, batches, config)
    floats = [t.name for t in config.signature.answers if t.dtype.startswith("float")]
    noise = [noise_over_signal([one[name] for one in truth], [other[name] for other in found]) for name in floats]
    same = agree(config.task, answers_in(truth, config), answers_in(found, config))
    return max(noise, default=0.0), float(same.mean())


def integer_modules(exact: onnx.ModelProto, quantized: onnx.ModelProto) -> list[str]:
    """The modules whose layers compute in integers in one graph and have a twin in the other, as `keep_float` names them."""
    from compile.coverage import is_integer, layer_places

    producers = {name: node for node in quantized.graph.node for name in node.output}
    twins = {point.candidate for point in matched(exact, quantized)}
    found = []
    for module, node in layers_of(quantized):
        places = layer_places(node) or ()
        if node.output[0] in twins and all(is_integer(node.input[place], producers) for place in places):
            found.append(module)
    return list(dict.fromkeys(found))


def restored(exact: onnx.ModelProto, quantized: onnx.ModelProto, modules: Collection[str]) -> onnx.ModelProto:
    """The quantized graph with these modules' layers computed by the float graph's operators, from unquantized inputs."""
    import onnx

    points = matched(exact, quantized)
    layers = {node.output[0] for _, node in layers_of(quantized)}
    wanted = {p.candidate: p for p in points if p.module in modules and p.candidate in layers}
    names = {p.reference: p.candidate for p in points} | {value.name: value.name for value in exact.graph.input}
    copy = onnx.ModelProto()
    copy.CopyFrom(quantized)
    del copy.graph.node[:]
    used: set[str] = set()
    for node in quantized.graph.node:
        if node.output and node.output[0] in wanted:
            point = wanted[node.output[0]]
            put = list(grafted(exact, point.reference, {point.reference: point.candidate}, names))
            copy.graph.node.extend(put)
            used |= {name for one in put for name in one.input}
        else:
            copy.graph.node.append(node)
    for tensor in exact.graph.initializer:
        if f"{tensor.name}__float" in used:
            copy.graph.initializer.add().CopyFrom(tensor)
            copy.graph.initializer[-1].name = f"{tensor.name}__float"
    return copy
