"""Whose operator a toolchain complains about: node and operator names in its message, led back to source modules."""

from __future__ import annotations

import re
from pathlib import Path

from compile.errors import ToolchainError

SHOWN = 5


def in_source_terms(error: ToolchainError, graph: Path) -> ToolchainError:
    """The same error, with the source modules of the graph's nodes that its message names."""
    import onnx

    from compile.graph import source_module

    message = str(error)
    words = set(re.findall(r"[\w./:]+", message))
    nodes = onnx.load(graph).graph.node
    named = [node for node in nodes if node.name in words]
    named = named or [node for node in nodes if f"{node.domain}.{node.op_type}" in words or node.op_type in words]
    if not named:
        return error
    places = [f"{node.op_type} `{source_module(node) or node.name}`" for node in named[:SHOWN]]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return ToolchainError(f"{message}\nIn the source model: {', '.join(places)}{more}")
