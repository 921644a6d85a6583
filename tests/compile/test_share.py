"""An int8 target that is not integer is an error: in the graph, and again in what the runtime compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compile.config import TargetFile
from compile.errors import ToolchainError
from compile.share import checked_share, compiled_share

TARGET = TargetFile.model_validate(
    {"role": "edge", "hardware": "x", "toolchain": "t", "precision": "int8", "dialect": "uint8-asymmetric"}
)


def graph_folder(tmp_path: Path, share: float, *kept: str, **macs: int) -> Path:
    layers = [
        {"name": name, "source_module": f"body.{name}", "macs": count, "integer": share > 0.5}
        for name, count in macs.items()
    ]
    document = {"share": share, "recipe": {"keep_float": kept}, "layers": layers}
    (tmp_path / "coverage.json").write_text(json.dumps(document))
    return tmp_path


def layer(name: str, integer: bool) -> dict[str, Any]:
    return {"name": name, "names": [name], "op": "Conv", "precision": "int8" if integer else "f32", "integer": integer}


def test_a_quantizer_that_did_nothing_is_an_error_that_names_the_layers(tmp_path: Path) -> None:
    folder = graph_folder(tmp_path, 0.0, first=10, second=5)
    with pytest.raises(
        ToolchainError, match=r" 0 % of the work is integer in the quantized graph.*In float: first, second"
    ):
        checked_share([], folder, TARGET, "m: t")


def test_a_runtime_that_runs_the_graph_in_float_is_an_error_that_names_the_layers(tmp_path: Path) -> None:
    folder = graph_folder(tmp_path, 1.0, first=10, second=90)
    layers = [layer("first", True), layer("second", False)]
    with pytest.raises(
        ToolchainError, match=r"10.00 % of the work is integer in what the runtime compiled.*second \(Conv, f32\)"
    ):
        checked_share(layers, folder, TARGET, "m: t")


@pytest.mark.parametrize("kept", [("first", "second"), ("body.*",)])
def test_layers_that_keep_float_names_are_not_advised_to_be_named_there(tmp_path: Path, kept: tuple[str, ...]) -> None:
    folder = graph_folder(tmp_path, 0.0, *kept, first=10, second=5)
    with pytest.raises(ToolchainError, match="In float: first, second") as refused:
        checked_share([], folder, TARGET, "m: t")
    assert "`quantize.keep_float` in the model's config asks for that: if it is meant, lower" in str(refused.value)
    assert "name" not in str(refused.value).partition("In float")[2]


def test_of_layers_in_float_only_the_others_are_to_be_named(tmp_path: Path) -> None:
    folder = graph_folder(tmp_path, 0.0, "first", first=10, second=5)
    with pytest.raises(ToolchainError, match=r"If that is meant, name second under `quantize.keep_float`"):
        checked_share([], folder, TARGET, "m: t")


def test_layers_count_by_their_multiply_accumulates(tmp_path: Path) -> None:
    folder = graph_folder(tmp_path, 1.0, first=5, second=95)
    assert checked_share([layer("first", False), layer("second", True)], folder, TARGET, "m: t") == pytest.approx(0.95)


def test_names_that_do_not_lead_back_count_by_number() -> None:
    assert compiled_share([layer("renamed", False), layer("second", True)], {"second": 95}) == pytest.approx(0.5)


def test_float_targets_have_no_share(tmp_path: Path) -> None:
    floats = TARGET.model_copy(update={"precision": "float32", "dialect": "float32"})
    assert checked_share([layer("x", False)], tmp_path, floats, "m: t") is None
