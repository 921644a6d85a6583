"""Quantize a torch model with neural-compressor (PT2E, static).

A module, its signature, calibration batches and a recipe come in; a clean QDQ graph goes out. The rule: what
neural-compressor does with a layer depends on the operator traced, not on how the module was written or stored.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from compile.errors import ToolchainError
from compile.export import dynamic_shapes, first_lines, quiet, to_onnx, trace
from compile.graph import clean
from compile.passes.embeddings import store_embeddings_as_int8
from compile.passes.smoothing import smooth
from compile.signature import Signature

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

    from compile.quantize import Recipe


def quantize_torch(
    module: torch.nn.Module | torch.export.ExportedProgram,
    signature: Signature,
    calibration: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
) -> onnx.ModelProto:
    """QDQ ONNX of a torch model, calibrated on batches of arrays named like the inputs."""
    with quiet():
        traced = live_graph(trace(module, signature, calibration[0]))
        if recipe.smoothing is not None:
            smooth(traced, batches(signature, calibration), recipe.smoothing)
        label_layers(traced)
        try:
            converted = calibrated(traced, signature, calibration, recipe)
        except Exception as error:  # whatever the vendor's annotator raises: the caller has another quantizer
            raise ToolchainError(f"neural-compressor failed: {first_lines(error)}") from error
        graph = clean(to_onnx(trace(converted, signature, calibration[0]), signature))
        return store_embeddings_as_int8(graph) if recipe.embeddings else graph


def live_graph(program: torch.export.ExportedProgram) -> torch.fx.GraphModule:
    """The program's operators without dead ones: an unused submodule crashes neural-compressor's annotator."""
    import torch

    traced = program.module()
    assert isinstance(traced, torch.fx.GraphModule)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def label_layers(traced: torch.fx.GraphModule) -> None:
    """Label each operator with the layer class it is.

    neural-compressor's annotator finds layers by the module class they came from: it misses functional calls,
    re-imported programs and graphs changed by a pass.
    """
    kinds = layer_kinds()
    for node in traced.graph.nodes:
        node.meta.pop("torch_fn", None)
        if node.op == "call_function":
            kind = operator.add if adds_to_convolution(node) else kinds.get(node.target, node.target)
            node.meta["source_fn_stack"] = [(node.name, kind)]


def adds_to_convolution(node: torch.fx.Node) -> bool:
    """Whether a node adds to the result of a convolution, which every runtime fuses in integers.

    A sum behind a Linear is left alone: no runtime here fuses it, and a transformer's residual stream at eight bits
    costs more accuracy than all its layers together.
    """
    import torch

    aten = torch.ops.aten
    return node.target in {aten.add.Tensor, aten.add_.Tensor} and any(
        source.target in {aten.conv2d.default, aten.batch_norm.default} for source in node.all_input_nodes
    )


def layer_kinds() -> dict[Any, Any]:
    """The layer class that neural-compressor's annotator knows each operator by."""
    import torch

    aten, nn = torch.ops.aten, torch.nn
    return {
        aten.conv2d.default: nn.Conv2d,
        aten.linear.default: nn.Linear,
        aten.relu.default: nn.ReLU,
        aten.relu_.default: nn.ReLU,
        aten.relu6.default: nn.ReLU6,
        aten.hardtanh.default: nn.Hardtanh,
        aten.hardtanh_.default: nn.Hardtanh,
        aten.hardswish.default: nn.Hardswish,
        aten.hardswish_.default: nn.Hardswish,
        aten.silu.default: nn.SiLU,
        aten.silu_.default: nn.SiLU,
        aten.gelu.default: nn.GELU,
        aten.tanh.default: nn.Tanh,
        aten.leaky_relu.default: nn.LeakyReLU,
    }


def calibrated(
    traced: torch.fx.GraphModule,
    signature: Signature,
    calibration: Sequence[Mapping[str, np.ndarray]],
    recipe: Recipe,
) -> torch.fx.GraphModule:
    """Prepare, run the calibration batches, convert."""
    import torch
    from neural_compressor.torch.quantization import convert, prepare

    traced._exported = True  # neural-compressor asks for the mark of its own export
    traced.dynamic_shapes = dynamic_shapes(signature)
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
        w_granularity="per_channel",
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
    return [tuple(torch.from_numpy(np.ascontiguousarray(batch[name])) for name in names) for batch in calibration]
