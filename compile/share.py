"""How much of a compiled int8 target really is integer: the gate that a quantizer which does nothing cannot pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from compile import percent
from compile.config import TargetFile
from compile.errors import ToolchainError


def checked_share(layers: list[dict[str, Any]], graph_folder: Path, target: TargetFile, what: str) -> float | None:
    """The share of the work that is integer in the graph and in what the runtime compiled: the smaller of the two."""
    if target.precision != "int8":
        return None
    counted = json.loads((graph_folder / "coverage.json").read_text())
    kept = _kept_in_float(counted)
    if counted["share"] < target.quantized_share:
        floats = {layer["name"]: layer["name"] in kept for layer in counted["layers"] if not layer["integer"]}
        raise ToolchainError(_too_float(what, "the quantized graph", counted["share"], target, floats))
    compiled = compiled_share(layers, {layer["name"]: layer["macs"] for layer in counted["layers"]})
    if compiled < target.quantized_share:
        floats = {
            f"{layer['name']} ({layer['op']}, {layer['precision']})": bool(layer["names"])
            and kept.issuperset(layer["names"])
            for layer in layers
            if not layer["integer"]
        }
        raise ToolchainError(_too_float(what, "what the runtime compiled", compiled, target, floats))
    return float(min(compiled, counted["share"]))


def compiled_share(layers: list[dict[str, Any]], macs: Mapping[str, int]) -> float:
    """Integer share of the compiled layers, by multiply-accumulates; by count where names do not lead back.

    A toolchain that cannot be asked (no layers) counts as what its graph is: strongly typed engines are compiled so.
    """
    if not layers:
        return 1.0
    weights = [sum(macs.get(name, 0) for name in layer["names"]) for layer in layers]
    if not all(weights):
        weights = [1] * len(layers)
    return sum(w for w, layer in zip(weights, layers, strict=True) if layer["integer"]) / sum(weights)


def _kept_in_float(counted: Mapping[str, Any]) -> set[str]:
    """The layers of the graph that `quantize.keep_float` names."""
    patterns = counted["recipe"]["keep_float"]
    named = {layer["name"]: (layer["name"], layer["source_module"] or "") for layer in counted["layers"]}
    return {name for name, both in named.items() if any(fnmatchcase(one, p) for one in both for p in patterns)}


def _too_float(what: str, where: str, share: float, target: TargetFile, layers: Mapping[str, bool]) -> str:
    """The refusal. `layers`: those in float, and whether `keep_float` asks for it: those need not be named again."""
    shown = ", ".join(list(layers)[:8]) + (", …" if len(layers) > 8 else "")
    lower = "lower `quantized_share` in a copy of the target's config; else give this model a float target"
    if layers and all(layers.values()):
        means = f"`quantize.keep_float` in the model's config asks for that: if it is meant, {lower}"
    else:
        others = [name for name, kept in layers.items() if not kept]
        names = ", ".join(others[:8]) if len(others) < len(layers) else "them"
        means = f"If that is meant, name {names} under `quantize.keep_float` in the model's config and {lower}"
    return (
        f"{what}: {percent.share(share)} of the work is integer in {where}; expected at least "
        f"{percent.share(target.quantized_share)}. "
        f"In float: {shown}. {means}"
    )
