"""Graphs run here, in ONNX Runtime without its optimizer, so that what is computed is what the graph says.

In: an ONNX graph and feeds. Out: arrays, of outputs or of any inner tensor. The rule: a simulation changes nothing but
what it was asked to change; `exposing(m, names)` answers as `m` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compile.errors import ToolchainError
from compile.signature import Signature
from compile.worker import Memory, rows_in

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Batch = dict[str, Array]
Infer = Callable[[Batch], Batch]


def opened(model: onnx.ModelProto, names: Sequence[str], *, optimized: bool = False) -> Infer:
    """The graph as a function of its feeds that gives the tensors named."""
    import onnxruntime as ort

    names = list(dict.fromkeys(names))

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own kinds, none of them public
        raise ToolchainError(f"ONNX Runtime cannot load the graph: {error}") from error
    wanted = {value.name for value in session.get_inputs()}

    def infer(feeds: Batch) -> Batch:
        try:
            found = session.run(names, {k: v for k, v in feeds.items() if k in wanted})
        except Exception as error:  # as above
            raise ToolchainError(f"ONNX Runtime cannot run the graph: {error}") from error
        return dict(zip(names, found, strict=True))

    return infer


def exposing(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The same graph with inner tensors among its outputs."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in have)
    return copy


def with_stream(path: Path) -> Batch:
    """A batch of prepared data, the numbers of its streams among it."""
    with np.load(path, allow_pickle=False) as batch:
        return {name: batch[name] for name in batch.files}


def walked(
    infer: Infer, batches: Iterable[Batch], signature: Signature, *, forgotten: Iterable[str] = ()
) -> Iterator[tuple[Batch, Batch]]:
    """Feeds and outputs of every batch in order, state carried by stream; `forgotten` state starts at zeros each time."""
    document = signature.document()
    memory, forgotten = Memory(document), set(forgotten)
    for batch in batches:
        feeds = dict(batch)
        streams = feeds.pop("stream", None)
        state = memory.read(streams, rows_in(document, feeds))
        feeds |= {name: np.zeros_like(array) if name in forgotten else array for name, array in state.items()}
        outputs = infer(feeds)
        memory.write(streams, outputs)
        yield feeds, outputs


def answered(infer: Infer, batches: Iterable[Batch], signature: Signature, **how: Any) -> list[Batch]:
    """The judged outputs of every batch."""
    wanted = [tensor.name for tensor in signature.answers]
    return [{n: outputs[n] for n in wanted} for _, outputs in walked(infer, batches, signature, **how)]


def output_names(signature: Signature) -> list[str]:
    return [tensor.name for tensor in signature.outputs]
