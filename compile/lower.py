"""Source -> float graph: the ONNX model that every dialect and every target starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compile import export, graph
from compile.config import ModelFile, load_model
from compile.dataset import batches_of
from compile.errors import ConfigError, nearest
from compile.kept import Batch
from compile.project import GRAPH_FILE, Project
from compile.signature import Signature
from compile.source import Source, open_source

if TYPE_CHECKING:
    import onnx


def lower(project: Project, made: Path, model: str, suite: str, fetched: str | None) -> None:
    """The step behind `graphs/float32`: writes `graph.onnx`."""
    import onnx

    config = load_model(project, model)
    source = open_source(project, config.source, None if fetched is None else Path(fetched))
    onnx.save(float_graph(source, config, first_batch(Path(suite), config.signature)), made / GRAPH_FILE)


def float_graph(source: Source, config: ModelFile, example: Batch) -> onnx.ModelProto:
    """The float32 ONNX graph of a source, with the names and axes that the config gives."""
    torch_model = source.module if source.module is not None else source.program
    if torch_model is not None:
        return export.export_torch(torch_model, config.signature, example)
    assert source.graph is not None
    return adopt(source.graph, config.signature)


def first_batch(suite: Path, signature: Signature) -> Batch:
    """The suite's first batch with zeros for the state: what the model is traced with."""
    import numpy as np

    batch = next(batches_of(suite))
    rows = next(batch[t.name].shape[t.batch_axis] for t in signature.data_inputs if t.batch_axis is not None)
    sizes = {name: axis.typical for name, axis in signature.axes.items()} | {"batch": rows}
    state = [t for t in signature.inputs if t.name in signature.state]
    zeros = {t.name: np.zeros([sizes[d] if isinstance(d, str) else d for d in t.shape], t.dtype) for t in state}
    return {t.name: (batch | zeros)[t.name] for t in signature.inputs}


def adopt(model: onnx.ModelProto, signature: Signature) -> onnx.ModelProto:
    """An ONNX source under the config's axis names; ConfigError where its inputs and outputs are not as declared."""
    import onnx

    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialized]
    _match("inputs", inputs, {t.name: (t.dtype, t.shape) for t in signature.inputs})
    _match("outputs", list(model.graph.output), {t.name: (t.dtype, t.shape) for t in signature.outputs})
    shapes = {t.name: t.shape for t in (*signature.inputs, *signature.outputs)}
    for value in (*inputs, *model.graph.output):
        del value.type.tensor_type.shape.dim[:]
        for size in shapes[value.name]:
            dim = value.type.tensor_type.shape.dim.add()
            if isinstance(size, str):
                dim.dim_param = size
            else:
                dim.dim_value = size
    cleaned = graph.clean(model)
    graph.refuse_nan(cleaned)
    onnx.checker.check_model(cleaned)
    return cleaned


def _match(
    kind: str, values: list[onnx.ValueInfoProto], declared: dict[str, tuple[str, tuple[int | str, ...]]]
) -> None:
    import onnx

    names = [value.name for value in values]
    for name in declared:
        if name not in names:
            raise ConfigError(
                f"{kind}: found {names} in the ONNX file; the config declares `{name}`{nearest(name, names)}"
            )
    for value in values:
        if value.name not in declared:
            raise ConfigError(f"{kind}: the ONNX file has `{value.name}`; the config does not declare it")
        dtype, shape = declared[value.name]
        found = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        if found != dtype:
            raise ConfigError(f"{kind}: `{value.name}` is {found} in the ONNX file; the config says {dtype}")
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and len(dims) != len(shape):
            raise ConfigError(f"{kind}: `{value.name}` has {len(dims)} axes in the ONNX file; the config says {shape}")
        for dim, size in zip(dims, shape, strict=False):
            if dim.HasField("dim_value") and isinstance(size, int) and dim.dim_value != size:
                raise ConfigError(
                    f"{kind}: `{value.name}` has size {dim.dim_value} in the ONNX file; the config says {size}"
                )
