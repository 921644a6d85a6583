"""Float graph -> the graph of one dialect, calibrated once for every target that speaks it.

Writes `graph.onnx` and, for integer dialects, `coverage.json`: each layer with its multiply-accumulates and whether
it is integer in the graph, and the name of the quantizer that made it so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compile import coverage, graph
from compile.config import Dialect, ModelFile, QuantizeConfig, load_model
from compile.dataset import batches_of
from compile.kept import Batch
from compile.project import GRAPH_FILE, Project
from compile.quantize import ONNX_RUNTIME, quantize
from compile.recipe import Recipe
from compile.reference import feeds_of
from compile.source import Source, open_source


def derive(
    project: Project,
    made: Path,
    model: str,
    dialect: Dialect,
    float_graph: str,
    fetched: str | None,
    calibration: str | None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """The step behind `graphs/<dialect>` for every dialect but float32; `options` in place of the config's `quantize`."""
    import onnx

    config = load_model(project, model)
    if options is not None:
        config = config.model_copy(update={"quantize": QuantizeConfig.model_validate(options)})
    floats = onnx.load(float_graph)
    if dialect == "float16":
        onnx.save(graph.to_float16(floats), made / GRAPH_FILE)
        return
    assert calibration is not None
    source = open_source(project, config.source, None if fetched is None else Path(fetched))
    quantized, quantizer = quantize(
        source.module if source.module is not None else source.program,
        floats,
        config.signature,
        _feeds(source, config, Path(calibration)),
        recipe(config, dialect),
    )
    onnx.save(quantized, made / GRAPH_FILE)
    sizes = {name: axis.typical for name, axis in config.signature.axes.items()}
    counted = coverage.of_qdq_graph(quantized, sizes)
    asked = recipe(config, dialect)
    smoothing = None if quantizer == ONNX_RUNTIME else asked.smoothing  # that quantizer has no such pass
    document = {
        "quantizer": quantizer,
        "recipe": asdict(asked) | {"smoothing": smoothing},
        "share": counted.share,
        "layers": [asdict(layer) for layer in counted.layers],
    }
    (made / "coverage.json").write_text(json.dumps(document, indent=1, sort_keys=True))


def recipe(config: ModelFile, dialect: Dialect) -> Recipe:
    """The effective options of one dialect's quantization."""
    assert dialect in ("uint8-asymmetric", "int8-symmetric")
    chosen = config.quantize
    tables = chosen.embeddings and dialect == "uint8-asymmetric"  # TensorRT takes no integer constant before a Gather
    return Recipe(dialect, chosen.algorithm, chosen.smoothing, tables, chosen.keep_float, chosen.granularity)


def _feeds(source: Source, config: ModelFile, calibration: Path) -> list[Batch]:
    """Calibration batches as the model is fed them; with state, the state that the source itself reached."""
    if not config.signature.state:
        return list(batches_of(calibration))
    return list(feeds_of(source, calibration, config.signature))
