"""Float to integer, by whichever quantizer takes the model.

A torch module or an ONNX graph with calibration batches and a recipe comes in; a QDQ graph and the name of the
quantizer that made it go out. The rule: a quantizer that changed nothing is an error, named by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from compile.coverage import Coverage, Layer, of_qdq_graph
from compile.errors import ConfigError, ToolchainError, nearest
from compile.graph import refuse_nan, source_module
from compile.recipe import Recipe
from compile.signature import Signature

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

NEURAL_COMPRESSOR = "neural-compressor"
ONNX_RUNTIME = "onnxruntime.quantization"
NAMED_IN_MESSAGE = 8


def quantize(
    module: torch.nn.Module | torch.export.ExportedProgram | None,
    float_graph: onnx.ModelProto,
    signature: Signature,
    calibration: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
) -> tuple[onnx.ModelProto, str]:
    """The QDQ graph and its quantizer: neural-compressor's where it takes every layer, else the better one's."""
    check_calibration(signature, calibration)
    refuse_nan(float_graph)
    sizes = {name: axis.typical for name, axis in signature.axes.items()}
    refuse_unmatched(float_graph, recipe.keep_float, of_qdq_graph(float_graph, sizes))
    made: list[Attempt] = []
    reasons: list[str] = []
    for name, make in quantizers(module, float_graph, signature, calibration, recipe).items():
        try:
            graph = make()
        except ToolchainError as error:
            reasons.append(f"{name}: {error}")
            continue
        made.append(Attempt(graph, name, of_qdq_graph(graph, sizes)))
        if not left_float(made[-1].coverage, recipe):
            break
    return best(made, reasons)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one quantizer made, and how much of it is integer."""

    graph: onnx.ModelProto
    quantizer: str
    coverage: Coverage


def quantizers(
    module: torch.nn.Module | torch.export.ExportedProgram | None,
    float_graph: onnx.ModelProto,
    signature: Signature,
    calibration: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
) -> dict[str, Callable[[], onnx.ModelProto]]:
    """The quantizers that may take this source, in the order to try them."""
    from compile.quantize_onnx import quantize_onnx
    from compile.quantize_torch import quantize_torch

    of_graph = partial(quantize_onnx, float_graph, signature, calibration, recipe)
    if module is None:
        return {ONNX_RUNTIME: of_graph}
    of_module = partial(quantize_torch, module, signature, calibration, recipe)
    return {NEURAL_COMPRESSOR: of_module, ONNX_RUNTIME: of_graph}


def left_float(coverage: Coverage, recipe: Recipe) -> tuple[Layer, ...]:
    """The layers that are float though the recipe does not keep them so."""
    return tuple(
        layer
        for layer in coverage.float_layers
        if not any(fnmatchcase(name or "", p) for p in recipe.keep_float for name in (layer.name, layer.source_module))
    )


def refuse_unmatched(graph: onnx.ModelProto, patterns: Sequence[str], coverage: Coverage) -> None:
    """ConfigError where a pattern of `keep_float` means nothing in this model: a typo must not look like a choice."""
    modules = {module for node in graph.graph.node if (module := source_module(node))}
    known = {node.name for node in graph.graph.node} | {
        ".".join(module.split(".")[:depth]) for module in modules for depth in range(1, module.count(".") + 2)
    }
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            layers = [layer.source_module or layer.name for layer in coverage.layers]
            shown = ", ".join(layers[:NAMED_IN_MESSAGE]) + (", …" if len(layers) > NAMED_IN_MESSAGE else "")
            raise ConfigError(
                f"quantize.keep_float: `{pattern}` is no module and no node of this model; its layers are {shown}"
                f"{nearest(pattern, known)}"
            )


def best(made: Sequence[Attempt], reasons: Sequence[str]) -> tuple[onnx.ModelProto, str]:
    """The attempt with the largest integer share, the first of equals; none that is float throughout."""
    attempt = max(made, key=lambda one: one.coverage.share, default=None)
    if attempt is None:
        raise ToolchainError("No quantizer could take the model.\n" + "\n".join(reasons))
    if attempt.coverage.share == 0:
        layers = attempt.coverage.float_layers
        named = ", ".join(layer.label for layer in layers[:NAMED_IN_MESSAGE]) or "none found"
        more = f" and {len(layers) - NAMED_IN_MESSAGE} more" if len(layers) > NAMED_IN_MESSAGE else ""
        raise ToolchainError(
            "The quantizer ran and changed nothing: every layer still computes in floating point "
            f"({named}{more}). Remove the int8 target from the model's config, or keep it float.\n" + "\n".join(reasons)
        )
    return attempt.graph, attempt.quantizer


def check_calibration(signature: Signature, calibration: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Refuse calibration data that is empty, lacks an input or holds what is not a number."""
    import numpy as np

    if not calibration:
        raise ConfigError("The calibration data is empty. Give at least one batch; a few hundred samples are usual.")
    for index, batch in enumerate(calibration):
        for tensor in signature.inputs:
            if tensor.name not in batch:
                raise ConfigError(f"Calibration batch {index} has no {tensor.name!r}; it has {sorted(batch)}.")
            array = batch[tensor.name]
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ConfigError(f"Calibration batch {index}, {tensor.name!r}, holds NaN or infinity.")
