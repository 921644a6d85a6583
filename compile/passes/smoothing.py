"""Move outlier range from a Linear's input into its weights, channel by channel, before quantizing.

A traced torch graph and calibration batches come in; the same function with smoother activations goes out, in place.
Xiao et al. 2023, "SmoothQuant": with s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), (X / s) (s W) = X W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Groups = dict[torch.fx.Node, list[torch.fx.Node]]

WORTH_A_MULTIPLICATION = 4.0
"""How far the widest channel must stand above the median one before smoothing may cost a Mul of its own."""


def smooth(traced: torch.fx.GraphModule, calibration: Sequence[tuple[torch.Tensor, ...]], alpha: float) -> None:
    """Smooth the input of every group of Linears that read one value, where it is free or worth its Mul."""
    groups = linears_by_input(traced)
    ranges = input_ranges(traced, list(groups), calibration)
    for source, linears in groups.items():
        norm = foldable_norm(source, linears)
        largest = ranges[source]
        if not norm and float(largest.max()) < WORTH_A_MULTIPLICATION * float(largest.median()):
            continue
        scale = smoothing_scale(traced, linears, largest, alpha)
        for linear in linears:
            scale_parameter(traced, linear, 1, scale)
        if norm:
            scale_parameter(traced, source, 2, 1 / scale)
            scale_parameter(traced, source, 3, 1 / scale)
        else:
            multiply_input(traced, source, linears, 1 / scale)
    traced.graph.lint()
    traced.recompile()


def linears_by_input(traced: torch.fx.GraphModule) -> Groups:
    """The Linears with weights of their own that read a norm, grouped by the value they read, in graph order.

    A norm's gains make the outliers of transformers. Behind anything else (the sparse channels of a Relu) the ranges
    differ as much and smoothing was measured to cost accuracy and time.
    """
    import torch

    aten = torch.ops.aten
    norms = {aten.layer_norm.default, aten.rms_norm.default}
    groups: Groups = {}
    for node in traced.graph.nodes:
        if node.target is aten.linear.default and node.args[0].target in norms and owns_parameter(node, 1):
            groups.setdefault(node.args[0], []).append(node)
    return groups


def owns_parameter(node: torch.fx.Node, place: int) -> bool:
    """Whether an argument is a parameter that nothing else reads."""
    import torch

    source = node.args[place] if len(node.args) > place else None
    return isinstance(source, torch.fx.Node) and source.op == "get_attr" and len(source.users) == 1


def foldable_norm(source: torch.fx.Node, linears: Sequence[torch.fx.Node]) -> bool:
    """Whether the value is a LayerNorm's with gain and bias, read by these Linears alone: then smoothing is free."""
    import torch

    return (
        source.target is torch.ops.aten.layer_norm.default
        and set(source.users) == set(linears)
        and owns_parameter(source, 2)
        and owns_parameter(source, 3)
    )


def input_ranges(
    traced: torch.fx.GraphModule, sources: Sequence[torch.fx.Node], calibration: Sequence[tuple[torch.Tensor, ...]]
) -> dict[torch.fx.Node, torch.Tensor]:
    """The largest magnitude of each channel (last axis) of each value over all calibration batches."""
    import torch

    wanted = frozenset(sources)
    ranges: dict[torch.fx.Node, torch.Tensor] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if n in wanted:
                seen = value.abs().flatten(0, -2).amax(0)
                ranges[n] = torch.maximum(ranges[n], seen) if n in ranges else seen
            return value

    with torch.no_grad():
        for arguments in calibration:
            Watch(traced).run(*arguments)
    return ranges


def smoothing_scale(
    traced: torch.fx.GraphModule, linears: Sequence[torch.fx.Node], largest: torch.Tensor, alpha: float
) -> torch.Tensor:
    """What to divide each input channel by; 1 where a channel or all its weights are nought."""
    import torch

    weights = torch.stack([stored(traced, linear, 1).abs().amax(0) for linear in linears]).amax(0)
    scale = largest.pow(alpha) / weights.pow(1 - alpha)
    return torch.where((largest > 0) & (weights > 0), scale, torch.ones_like(scale))


def stored(traced: torch.fx.GraphModule, node: torch.fx.Node, place: int) -> torch.Tensor:
    """The parameter behind an argument of a node."""
    import torch

    source = node.args[place]
    assert isinstance(source, torch.fx.Node)
    parent, _, name = str(source.target).rpartition(".")
    tensor: torch.Tensor = getattr(traced.get_submodule(parent), name)
    return tensor.detach()


def scale_parameter(traced: torch.fx.GraphModule, node: torch.fx.Node, place: int, scale: torch.Tensor) -> None:
    """Replace a parameter by its product with a scale; the caller's module keeps the tensor it had."""
    import torch

    source = node.args[place]
    assert isinstance(source, torch.fx.Node)
    parent, _, name = str(source.target).rpartition(".")
    replacement = torch.nn.Parameter(stored(traced, node, place) * scale, requires_grad=False)
    setattr(traced.get_submodule(parent), name, replacement)


def multiply_input(
    traced: torch.fx.GraphModule, source: torch.fx.Node, linears: Sequence[torch.fx.Node], factor: torch.Tensor
) -> None:
    """Let the Linears read the value times a factor for each channel."""
    import torch

    name = f"smoothing_{source.name}"
    traced.register_buffer(name, factor)
    with traced.graph.inserting_before(linears[0]):
        factors = traced.graph.get_attr(name)
        product = traced.graph.call_function(torch.ops.aten.mul.Tensor, (source, factors))
    example = source.meta["val"]
    factors.meta = {"val": example.fake_mode.from_tensor(factor)}
    product.meta = {"val": example, "nn_module_stack": linears[0].meta.get("nn_module_stack", {})}
    for linear in linears:
        linear.replace_input_with(source, product)
