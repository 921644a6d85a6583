"""The source model at the door: wrong weights, damaged files, and pickles, which are never run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from compile.config import SourceConfig
from compile.errors import ConfigError
from compile.project import Project
from compile.source import fit, open_source, read_onnx, read_weights, refuse_no_model


def looked_at(root: Path, name: str) -> None:
    """What `plan` does with a source file of that name."""
    (root / "configs" / "models").mkdir(parents=True, exist_ok=True)
    key = f"onnx: {name}" if name.endswith(".onnx") else f"builder: a:b, weights: {name}"
    (root / "configs" / "models" / "m.yaml").write_text(f"description: x\nsource: {{{key}}}\n")
    pairs = dict(part.split(": ") for part in key.split(", "))
    refuse_no_model(Project(root), "m", SourceConfig.model_validate(pairs))


def test_what_begins_as_a_model_is_not_refused_unread(tmp_path: Path) -> None:
    weights = {"a": torch.arange(3.0)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    for name in ("w.safetensors", "w.pt", "old.pt", "m.onnx"):
        looked_at(tmp_path, name)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "m.onnx"])
def test_what_begins_as_no_model_is_refused_with_the_configs_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"m\.yaml:2: source\.(weights|onnx): no such file"):
        looked_at(tmp_path, name)
    for wrong in (b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x93NUMPY\x01\x00v\x00"):
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(
            ConfigError, match=r"m\.yaml:2: source\.(weights|onnx): .* is no .* file, by its first bytes"
        ):
            looked_at(tmp_path, name)


class Bomb:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.witness,))


def test_safetensors_and_checkpoint_give_the_same_weights(tmp_path: Path) -> None:
    weights = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "trainer.pt")
    for name in ("w.safetensors", "w.pt", "trainer.pt"):
        found = read_weights(tmp_path / name)
        assert all(torch.equal(found[key], weights[key]) for key in weights)


@pytest.mark.parametrize("name", ["w.pt", "w.pkl", "w.joblib"])
def test_a_pickle_that_would_run_code_is_refused_and_never_runs(tmp_path: Path, name: str) -> None:
    witness = tmp_path / "it-ran"
    payload = {"a": Bomb(witness)}
    if name == "w.pt":
        torch.save(payload, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(payload))
    with pytest.raises(ConfigError, match=r"safetensors\.torch\.save_file"):
        read_weights(tmp_path / name)
    assert not witness.exists()


def test_a_whole_module_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="holds more than tensors"):
        read_weights(tmp_path / "w.pt")


def test_missing_weights_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file: .*w\.safetensors"):
        read_weights(tmp_path / "w.safetensors")


def test_truncated_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(100)}, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[:-40])
    with pytest.raises(ConfigError, match="damaged"):
        read_weights(tmp_path / "w.safetensors")


def test_weights_of_another_model_say_what_differs() -> None:
    module = torch.nn.Linear(3, 2)
    with pytest.raises(ConfigError, match=r"missing \['bias'\], unknown \['gain'\], other shapes \['weight"):
        fit(module, {"weight": torch.ones(5, 3), "gain": torch.ones(2)})


def test_nan_in_weights_names_the_tensor() -> None:
    with pytest.raises(ConfigError, match="`bias` holds NaN"):
        fit(torch.nn.Linear(3, 2), {"weight": torch.ones(2, 3), "bias": torch.tensor([1.0, float("nan")])})


def test_builder_that_gives_no_module_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_builders.py").write_text(
        "def build():\n    return 3\n\ndef broken():\n    raise ValueError('no')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for function, complaint in (
        ("build", "gave int; expected a torch"),
        ("broken", "raised ValueError: no"),
        ("missing", "has no function `missing`"),
    ):
        config = SourceConfig(builder=f"mine_builders:{function}", weights="w.safetensors")
        with pytest.raises(ConfigError, match=complaint):
            open_source(Project(tmp_path), config, None)


def small_onnx(path: Path, opset: int = 18) -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in "xy")
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def test_onnx_cut_in_half_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    small_onnx(path)
    assert len(read_onnx(path).graph.node) == 1
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ConfigError, match="damaged"):
        read_onnx(path)


def test_onnx_of_a_future_opset_says_which_is_read(tmp_path: Path) -> None:
    small_onnx(tmp_path / "m.onnx", opset=99)
    with pytest.raises(ConfigError, match="uses opset 99; the newest that is read here is"):
        read_onnx(tmp_path / "m.onnx")


def test_empty_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(ConfigError):
        read_onnx(tmp_path / "m.onnx")


def test_an_onnx_whose_nodes_stand_in_another_order_is_put_in_order(tmp_path: Path) -> None:
    """Runtimes order nodes themselves, and some tools write them as they come; a cycle has no order."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in "xy")
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    late = [helper.make_node("Relu", ["h"], ["y"], "second"), helper.make_node("MatMul", ["x", "w"], ["h"], "first")]
    circle = [helper.make_node("Add", ["x", "y"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    for name, nodes in (("late", late), ("circle", circle)):
        graph = helper.make_graph(nodes, "g", [x], [y], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    ordered = read_onnx(tmp_path / "late.onnx")
    assert [node.name for node in ordered.graph.node] == ["first", "second"]
    assert [(i.name, o.name) for i, o in zip(ordered.graph.input, ordered.graph.output, strict=True)] == [("x", "y")]
    assert onnx.numpy_helper.to_array(ordered.graph.initializer[0]).tolist() == [[1, 1], [1, 1]]
    with pytest.raises(ConfigError, match="damaged"):
        read_onnx(tmp_path / "circle.onnx")
