"""Quantize a torch model with neural-compressor (PT2E, static).

A module, its signature, calibration batches and a recipe come in; a clean QDQ graph goes out. The rule: what
neural-compressor does with a layer depends on the operator traced, not on how the module was written or stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from compile.errors import ToolchainError
from compile.export import dynamic_shapes, first_lines, to_onnx, trace
from compile.graph import clean
from compile.passes.annotation import label_layers, quantize_results_of_convolutions
from compile.passes.embeddings import store_embeddings_as_int8
from compile.passes.smoothing import smooth
from compile.quiet import quiet
from compile.signature import Signature

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

    from compile.recipe import Recipe


def quantize_torch(
    module: torch.nn.Module | torch.export.ExportedProgram,
    signature: Signature,
    calibration: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
) -> onnx.ModelProto:
    """QDQ ONNX of a torch model, calibrated on batches of arrays named like the inputs."""
    with quiet():
        try:
            traced = live_graph(trace(module, signature, calibration[0]))
            if recipe.smoothing is not None:
                smooth(traced, batches(signature, calibration), recipe.smoothing)
            converted = calibrated(traced, signature, calibration, recipe)
        except ToolchainError:
            raise
        except Exception as error:  # whatever the vendor's annotator raises: the caller has another quantizer
            raise ToolchainError(f"neural-compressor failed: {first_lines(error)}") from error
        graph = clean(to_onnx(trace(converted, signature, calibration[0]), signature))
        return store_embeddings_as_int8(graph) if recipe.embeddings else graph


def live_graph(program: torch.export.ExportedProgram) -> torch.fx.GraphModule:
    """The program's operators with batch norms folded and without dead ones, which crash neural-compressor."""
    import torch
    from torchao.quantization.pt2e.utils import _fuse_conv_bn_

    traced = program.module()
    assert isinstance(traced, torch.fx.GraphModule)
    traced.graph.eliminate_dead_code()
    _fuse_conv_bn_(traced)
    traced.recompile()
    return traced


def calibrated(
    traced: torch.fx.GraphModule,
    signature: Signature,
    calibration: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
) -> torch.fx.GraphModule:
    """Prepare, run the calibration batches, convert."""
    import torch
    from neural_compressor.torch.algorithms.pt2e_quant.utility import create_quant_spec_from_config
    from neural_compressor.torch.quantization import convert, prepare

    label_layers(traced, fuse_sums=recipe.dialect == "int8-symmetric")
    if recipe.dialect == "uint8-asymmetric":
        specification = create_quant_spec_from_config("uint8", False, "per_tensor", recipe.algorithm)
        quantize_results_of_convolutions(traced, specification)
    vars(traced).update(_exported=True, dynamic_shapes=dynamic_shapes(signature))  # the marks of its own export
    prepared = prepare(traced, quant_config=vendor_config(traced, recipe))
    if recipe.algorithm == "minmax":
        observe_true_extremes(prepared)
    with torch.no_grad():
        for arguments in batches(signature, calibration):
            prepared(*arguments)
    converted: torch.fx.GraphModule = convert(prepared)
    return converted


def vendor_config(traced: torch.fx.GraphModule, recipe: Recipe) -> Any:
    """neural-compressor's own config of a recipe."""
    from neural_compressor.torch.quantization import StaticQuantConfig

    symmetric = recipe.dialect == "int8-symmetric"
    config = StaticQuantConfig(
        act_dtype="int8" if symmetric else "uint8",
        act_sym=symmetric,
        act_algo=recipe.algorithm,
        w_granularity=recipe.granularity,
    )
    for name in module_names(traced):
        if any(fnmatchcase(name, pattern) for pattern in recipe.keep_float):
            config.set_local(name, StaticQuantConfig(w_dtype="fp32", act_dtype="fp32"))
    return config


def module_names(traced: torch.fx.GraphModule) -> list[str]:
    """The paths of the modules that a traced graph came from, as its nodes remember them."""
    names = {
        path.removeprefix("L['self'].")
        for node in traced.graph.nodes
        for path, _ in (node.meta.get("nn_module_stack") or {}).values()
    }
    return sorted(name for name in names if name)


def observe_true_extremes(prepared: torch.nn.Module) -> None:
    """Watch the smallest and largest value of all batches, not a moving average that forgets all but the first.

    neural-compressor's "minmax" averages with a constant of 0.01 over batches: the range depends on their order.
    """
    from torchao.quantization.pt2e import MinMaxObserver, MovingAverageMinMaxObserver

    exact: dict[int, torch.nn.Module] = {}  # an observer shared by two places (around a pooling) stays shared
    for path, observer in list(prepared.named_modules(remove_duplicate=False)):
        if isinstance(observer, MovingAverageMinMaxObserver):
            replacement = exact.setdefault(
                id(observer),
                MinMaxObserver(
                    dtype=observer.dtype,
                    qscheme=observer.qscheme,
                    quant_min=observer.quant_min,
                    quant_max=observer.quant_max,
                    eps=float(observer.eps),
                ),
            )
            parent, _, name = path.rpartition(".")
            setattr(prepared.get_submodule(parent), name, replacement)


def batches(signature: Signature, calibration: Sequence[Mapping[str, np.ndarray]]) -> list[tuple[torch.Tensor, ...]]:
    """Calibration batches as positional arguments."""
    import numpy as np
    import torch

    names = [tensor.name for tensor in signature.inputs]
    return [tuple(torch.from_numpy(np.asarray(batch[name], order="C")) for name in names) for batch in calibration]
