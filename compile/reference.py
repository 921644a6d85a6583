"""What the source itself answers on the suite, in float32, and how far float32 alone moves its answers.

In: the source and the prepared suite. Out: `outputs/NNNNN.npz` and `floor.json`: per output, the largest of
|float32 - float64| and one unit in the last place of its largest magnitude. A float artifact is held to multiples
of that floor, never to a tolerance that somebody chose.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compile.answerable import Infer, answering
from compile.config import load_model
from compile.dataset import names_of
from compile.errors import ToolchainError
from compile.kept import Batch
from compile.project import Project
from compile.quiet import quiet
from compile.signature import Signature
from compile.source import Source, open_source
from compile.worker import Memory, rows_in

if TYPE_CHECKING:
    import onnx
    import torch
    from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]
EPSILON = float(np.finfo(np.float32).eps)
FIRST_ROWS = 8
SHAKES = 2
BELIEVED = 30
TRAINING_MODE_OPSET = 14
"""From this opset on BatchNormalization says itself whether it trains."""


def observe_source(project: Project, made: Path, model: str, suite: str, fetched: str | None) -> None:
    """The step behind `source/`: the reference observation and its noise floor."""
    config = load_model(project, model)
    source = open_source(project, config.source, None if fetched is None else Path(fetched))
    signature = config.signature
    (made / "outputs").mkdir()
    wanted = {t.name for t in signature.answers}
    with quiet():
        infer = answering(in_float32(source, signature), signature, partial(names_of, Path(suite), signature), "suite")
        for path, _, outputs in walk(infer, Path(suite), signature):
            np.savez(made / "outputs" / path.name, **{k: v for k, v in outputs.items() if k in wanted})  # type: ignore[arg-type]  # numpy's stub
        floors, method = _floors(source, signature, Path(suite), made / "outputs")
    (made / "floor.json").write_text(json.dumps({"method": method, "outputs": floors}, indent=1, sort_keys=True))


def in_float32(source: Source, signature: Signature) -> Infer:
    """The source as its own runtime answers: torch eagerly, ONNX without graph optimization."""
    if source.graph is not None:
        return _onnxruntime(source.graph, signature)
    return _torch(_callable(source), signature, np.dtype(np.float32))


def in_float64(source: Source, signature: Signature) -> Infer:
    """The same model computed in double precision; ONNX through the reference evaluator of the onnx package."""
    if source.graph is not None:
        return _interpreted(source.graph, signature)
    return _torch(_callable(source).double(), signature, np.dtype(np.float64))


def _floors(source: Source, signature: Signature, suite: Path, answered: Path) -> tuple[dict[str, float], str]:
    """Floor per float output, and how the double-precision side was had."""
    names = [t.name for t in signature.answers if t.dtype.startswith("float")]
    magnitude = dict.fromkeys(names, 0.0)
    for path in sorted(answered.glob("*.npz")):
        with np.load(path) as outputs:
            for name in names:
                magnitude[name] = max(magnitude[name], float(np.abs(outputs[name]).max(initial=0.0)))
    last_place = {name: float(np.spacing(np.float32(magnitude[name]))) for name in names}
    difference, method = _rounding(source, signature, suite, answered, last_place)
    return {name: max(difference[name], last_place[name]) for name in names}, method


def _rounding(
    source: Source, signature: Signature, suite: Path, answered: Path, last_place: Mapping[str, float]
) -> tuple[dict[str, float], str]:
    """What float32 rounding moves on the suite, per output, from float64 where that can be had and be believed.

    torch computes the whole suite in double precision. For ONNX there is the onnx package's reference evaluator, which is
    slow and has some operators wrong. So it sees the first rows alone, beside the same model with every weight moved by
    one unit in its last place; what that moves on the whole suite is then scaled by how the two compare. A float64 run
    farther off than `BELIEVED` times such a move is no rounding, and is not believed.
    """
    names = list(last_place)
    try:
        steps = walk(in_float64(source, signature), suite, signature, few=source.graph is not None)
        exact = _differences(steps, answered, names)
        failure = None
        if source.graph is None:
            return exact, "float64"
    except Exception as error:  # what has no double kernel, or casts inside
        exact, failure = {}, f"no float64 run: {type(error).__name__}: {str(error)[:120]}"
    shaken = [in_float32(_shaken(source, seed), signature) for seed in range(SHAKES)]
    moved = _most([_differences(walk(infer, suite, signature), answered, names) for infer in shaken])
    method = f"one unit in the last place of every weight, {SHAKES} draws"
    if failure is not None:
        return moved, f"{method}; {failure}"
    first = [walk(infer, suite, signature, few=True) for infer in shaken]
    beside = _most([_differences(steps, answered, names) for steps in first])
    ratio = {name: exact[name] / max(beside[name], last_place[name]) for name in names}
    strange = [name for name in names if ratio[name] > BELIEVED]
    if strange:
        name = strange[0]
        far = f"{exact[name]:.3g} from float32 at `{name}`, where rounding moves {beside[name]:.3g}"
        return moved, f"{method}; the float64 run is not believed: {far}"
    scaled = {name: max(exact[name], moved[name] * ratio[name]) for name in names}
    return scaled, f"{method}, scaled by float64 on the first rows (the onnx reference evaluator)"


def _most(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: max(one[name] for one in found) for name in found[0]}


def _differences(steps: Iterable[tuple[Path, Batch, Batch]], answered: Path, names: Sequence[str]) -> dict[str, float]:
    """Per output, the largest distance between what was answered and what these steps give for the first rows."""
    found = dict.fromkeys(names, 0.0)
    for path, _, other in steps:
        with np.load(answered / path.name) as outputs:
            for name in names:
                distance = np.abs(outputs[name][: len(other[name])] - other[name])
                if not np.isfinite(distance).all():
                    raise ToolchainError(f"`{name}` is not finite")
                found[name] = max(found[name], float(distance.max(initial=0.0)))
    return found


def _shaken(source: Source, seed: int) -> Source:
    """The source with every float32 weight moved up or down by one unit in its last place.

    Single numbers stay, and the scales of a resize: they are exponents, bounds and sizes, where one unit is another model.
    """
    random = np.random.default_rng(seed)

    def moved(array: Array) -> Array:
        if array.size == 1:
            return array
        shaken: Array = array * (1 + EPSILON * random.choice((-1, 1), size=array.shape)).astype(np.float32)
        return shaken

    if source.graph is not None:
        return replace(source, graph=_with_constants(source.graph, moved, sizing(source.graph)))
    import torch

    module = copy.deepcopy(_callable(source)).float()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.dtype == torch.float32:
                tensor.copy_(torch.from_numpy(moved(tensor.numpy())))
    return replace(source, module=module)


def feeds_of(source: Source, data: Path, signature: Signature) -> Iterator[Batch]:
    """All inputs of every batch, the state among them as the source itself reaches it."""
    for _, feeds, _ in walk(in_float32(source, signature), data, signature):
        yield feeds


def walk(infer: Infer, data: Path, signature: Signature, *, few: bool = False) -> Iterator[tuple[Path, Batch, Batch]]:
    """Every batch of prepared data through `infer`, state carried from step to step: file, feeds, outputs.

    `few`: the first rows of the first batch alone.
    """
    document = signature.document()
    memory = Memory(document)
    for path in sorted((data / "batches").glob("*.npz"))[: 1 if few else None]:
        with np.load(path, allow_pickle=False) as batch:
            feeds = {name: batch[name] for name in batch.files}
        if few:
            axes = {t.name: t.batch_axis for t in signature.inputs} | {"stream": 0}
            feeds = {name: _first_rows(array, axes[name]) for name, array in feeds.items()}
        streams = feeds.pop("stream", None)
        feeds |= memory.read(streams, rows_in(document, feeds))
        outputs = infer(feeds)
        memory.write(streams, outputs)
        yield path, feeds, outputs


def _first_rows(array: Array, axis: int | None) -> Array:
    return array if axis is None else np.take(array, range(min(FIRST_ROWS, array.shape[axis])), axis=axis)


def _callable(source: Source) -> torch.nn.Module:
    if source.module is not None:
        return source.module
    assert source.program is not None
    return source.program.module()


def _torch(module: torch.nn.Module, signature: Signature, floats: np.dtype[Any]) -> Infer:
    import torch

    torch.set_num_threads(1)
    names = [t.name for t in signature.outputs]

    def infer(feeds: Batch) -> Batch:
        arrays = [feeds[t.name] for t in signature.inputs]
        tensors = [torch.from_numpy(a.astype(floats) if a.dtype.kind == "f" else a) for a in arrays]
        with torch.inference_mode():
            found = module(*tensors)
        found = list(found.values()) if isinstance(found, dict) else found
        outputs = found if isinstance(found, (tuple, list)) else [found]
        if len(outputs) != len(names):
            raise ToolchainError(f"the source gave {len(outputs)} outputs; the config declares {len(names)}: {names}")
        return {name: tensor.numpy() for name, tensor in zip(names, outputs, strict=True)}

    return infer


def _onnxruntime(graph: onnx.ModelProto, signature: Signature) -> Infer:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [t.name for t in signature.outputs]

    def infer(feeds: Batch) -> Batch:
        return dict(zip(names, session.run(names, feeds), strict=True))

    return infer


def _interpreted(graph: onnx.ModelProto, signature: Signature) -> Infer:
    """Double precision through the onnx reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    opset = next((entry.version for entry in graph.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    evaluator = ReferenceEvaluator(_doubled(graph), new_ops=[_normalization()] if opset < TRAINING_MODE_OPSET else None)
    names = [t.name for t in signature.outputs]

    def infer(feeds: Batch) -> Batch:
        doubles = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in feeds.items()}
        return dict(zip(names, evaluator.run(names, doubles), strict=True))

    return infer


def _normalization() -> type[OpRun]:
    """BatchNormalization at inference, for opsets in which the reference evaluator blends in the batch's own statistics."""
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):
        def _run(
            self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float = 1e-5, **_: object
        ) -> tuple[Array]:
            shape = (-1, *(1,) * (x.ndim - 2))
            scale, bias, mean, var = (a.reshape(shape) for a in (scale, bias, mean, var))
            return ((x - mean) / np.sqrt(var + epsilon) * scale + bias,)

    return BatchNormalization


def _doubled(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every float32 constant, cast and tensor type made float64."""
    from onnx import TensorProto

    model = _with_constants(graph, lambda array: array.astype(np.float64))
    del model.graph.value_info[:]
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def sizing(graph: onnx.ModelProto) -> set[str]:
    """The tensors that say how large a result is: 2 and a little less than 2 are other shapes."""
    return {name for node in graph.graph.node if node.op_type in ("Resize", "Upsample") for name in node.input[1:]}


def _with_constants(
    graph: onnx.ModelProto, change: Callable[[Array], Array], spared: Collection[str] = ()
) -> onnx.ModelProto:
    """A copy of a graph with `change` made to every float32 tensor it holds but those `spared`."""
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(graph)
    held = [
        a.t
        for n in model.graph.node
        for a in n.attribute
        if a.type == onnx.AttributeProto.TENSOR and not set(n.output) & set(spared)
    ]
    for tensor in (*(t for t in model.graph.initializer if t.name not in spared), *held):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
    return model
