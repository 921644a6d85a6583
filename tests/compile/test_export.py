"""Torch to ONNX: names, axes, dtypes, and the errors of models that contradict their signature."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import nn

from compile.errors import ConfigError, ToolchainError
from compile.export import export_torch
from compile.signature import Axis, Signature, Tensor

BATCH = {"batch": Axis(1, 4, 64)}


class Bag(nn.Module):
    """An embedding whose result is called as the exporter calls an inner value."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)

    def forward(self, ids, mask):
        states = self.words(ids) * mask[..., None]
        return states.sum(1), mask.sum(1)


class Stream(nn.Module):
    """State in and out, and a half-precision input."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 5)

    def forward(self, x, h):
        h = self.cell(x.float(), h)
        return h.sigmoid(), h


BAG = Signature(
    (Tensor("ids", "int32", ("batch", "length")), Tensor("mask", "bool", ("batch", "length"))),
    (Tensor("embedding", "float32", ("batch", 8)), Tensor("kept", "int64", ("batch",))),
    BATCH | {"length": Axis(1, 10, 20)},
)


def linear_signature(*, inputs=(4,), outputs=(2,), axes=BATCH) -> Signature:
    return Signature(
        tuple(Tensor(f"x{i}", "float32", ("batch", n)) for i, n in enumerate(inputs)),
        tuple(Tensor(f"y{i}", "float32", ("batch", n)) for i, n in enumerate(outputs)),
        axes,
    )


def run(graph: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return InferenceSession(graph.SerializeToString()).run(None, feeds)


def test_every_axis_of_the_signature_is_dynamic_though_the_example_has_size_one() -> None:
    module = Bag()
    example = {"ids": np.ones((1, 1), np.int32), "mask": np.ones((1, 1), bool)}
    graph = export_torch(module, BAG, example)
    for batch, length in ((1, 1), (3, 17)):
        ids = np.random.default_rng(0).integers(0, 50, (batch, length)).astype(np.int32)
        mask = np.random.default_rng(1).random((batch, length)) < 0.7
        found = run(graph, {"ids": ids, "mask": mask})
        expected = module(torch.from_numpy(ids), torch.from_numpy(mask))
        np.testing.assert_allclose(found[0], expected[0].detach().numpy(), atol=1e-6)
        np.testing.assert_array_equal(found[1], expected[1].numpy())


def test_axes_carry_the_names_of_the_signature_and_an_output_may_be_called_embedding() -> None:
    graph = export_torch(Bag(), BAG, {"ids": np.ones((2, 3), np.int32), "mask": np.ones((2, 3), bool)}).graph
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert dims == {
        "ids": ["batch", "length"],
        "mask": ["batch", "length"],
        "embedding": ["batch", 8],
        "kept": ["batch"],
    }


def test_state_and_float16_inputs_export() -> None:
    signature = Signature(
        (Tensor("x", "float16", ("batch", 6)), Tensor("h", "float32", ("batch", 5))),
        (Tensor("score", "float32", ("batch", 5)), Tensor("hn", "float32", ("batch", 5))),
        BATCH,
        state={"h": "hn"},
    )
    module = Stream()
    x, h = np.full((3, 6), 0.5, np.float16), np.zeros((3, 5), np.float32)
    graph = export_torch(module, signature, {"x": x[:1], "h": h[:1]})
    expected = module(torch.from_numpy(x), torch.from_numpy(h))[1].detach().numpy()
    np.testing.assert_allclose(run(graph, {"x": x, "h": h})[1], expected, atol=1e-6)


def test_the_callers_module_is_left_in_inference_mode_and_exported_so() -> None:
    module = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.9)).train()
    graph = export_torch(module, linear_signature(), {"x0": np.ones((2, 4), np.float32)})
    assert "Dropout" not in {node.op_type for node in graph.graph.node}


def test_an_exported_program_exports_like_its_module() -> None:
    module = nn.Linear(4, 2)
    dims = ({0: torch.export.Dim("n", min=1, max=64)},)
    program = torch.export.export(module, (torch.ones(2, 4),), dynamic_shapes=dims)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    found = run(export_torch(program, linear_signature(), {"x0": x}), {"x0": x})
    np.testing.assert_allclose(found[0], module(torch.from_numpy(x)).detach().numpy(), atol=1e-6)


def test_a_static_program_for_a_dynamic_axis_is_refused_by_name() -> None:
    program = torch.export.export(nn.Linear(4, 2), (torch.ones(2, 4),))
    with pytest.raises(ConfigError, match="'batch' of 'x0' is 2"):
        export_torch(program, linear_signature(), {"x0": np.ones((2, 4), np.float32)})


def test_an_output_too_many_in_the_signature_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1 outputs, the config 2.*y1"):
        export_torch(nn.Linear(4, 2), linear_signature(outputs=(2, 2)), {"x0": np.ones((2, 4), np.float32)})


def test_an_example_without_an_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="'x0'"):
        export_torch(nn.Linear(4, 2), linear_signature(), {"y": np.ones((2, 4), np.float32)})


def test_a_shape_of_another_rank_is_refused() -> None:
    signature = Signature((Tensor("x", "float32", ("batch", 4)),), (Tensor("y", "float32", ("batch", 2, 1)),), BATCH)
    with pytest.raises(ConfigError, match="'y' has 2 axes in the model, 3 in the config"):
        export_torch(nn.Linear(4, 2), signature, {"x": np.ones((2, 4), np.float32)})


def test_nan_in_weights_is_refused_by_name() -> None:
    module = nn.Linear(4, 2)
    with torch.no_grad():
        module.weight[1, 2] = float("nan")
    with pytest.raises(ConfigError, match=r"'weight' hold 1 NaN of 8"):
        export_torch(module, linear_signature(), {"x0": np.ones((2, 4), np.float32)})


def test_control_flow_on_data_is_a_toolchain_error_that_says_what_to_do() -> None:
    class Branch(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(ToolchainError, match=r"torch\.cond"):
        export_torch(Branch(), linear_signature(outputs=(4,)), {"x0": np.ones((2, 4), np.float32)})
