"""Passes over graphs: canonical bytes, and quantized layers that compute the same in a better form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from compile.errors import ConfigError
from compile.graph import NAME_SCOPES, clean, refuse_nan, source_module, to_float16
from compile.passes.embeddings import quantized_rows, store_embeddings_as_int8

ROOT = Path(__file__).parents[2]

MAKE_GRAPHS = """
import sys
sys.path.insert(0, {root!r})
import numpy as np, torch
from torch import nn
from compile.export import export_torch
from compile.quantize import quantize
from compile.recipe import Recipe
from compile.signature import Axis, Signature, Tensor

torch.manual_seed(0)
module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
signature = Signature(
    (Tensor("x", "float32", ("batch", 1, 8, 8)),), (Tensor("y", "float32", ("batch", 4)),), {{"batch": Axis(1, 2, 8)}}
)
data = [{{"x": np.random.default_rng(i).standard_normal((4, 1, 8, 8)).astype(np.float32)}} for i in range(2)]
floats = export_torch(module, signature, data[0])
for source in (module, None):
    graph, quantizer = quantize(source, floats, signature, data, Recipe("uint8-asymmetric", smoothing=0.75))
    open(quantizer + ".onnx", "wb").write(graph.SerializeToString())
open("float.onnx", "wb").write(floats.SerializeToString())
"""


def graph_of(nodes, inputs, outputs, weights, opset=20) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    return InferenceSession(model.SerializeToString()).run(None, feeds)[0]


def quantized_convolution(*, zero_point: np.generic, channels: int = 1) -> onnx.ModelProto:
    """x -> Q -> DQ -> Conv(dequantized int8 weights, float bias) -> y."""
    random = np.random.default_rng(0)
    node = helper.make_node
    return graph_of(
        [
            node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
            node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"], name="input"),
            node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], name="weight", axis=0),
            node("Conv", ["xd", "wd", "b"], ["y"], name="conv", pads=[1, 1, 1, 1]),
        ],
        [("x", TensorProto.FLOAT, ["n", channels, 6, 6])],
        [("y", TensorProto.FLOAT, ["n", 5, 6, 6])],
        {
            "sx": np.float32(0.02),
            "zx": zero_point,
            "w": random.integers(-127, 128, (5, channels, 3, 3)).astype(np.int8),
            "sw": random.random(5).astype(np.float32),
            "zw": np.zeros(5, np.int8),
            "b": random.random(5).astype(np.float32),
        },
    )


def quantized_gemm(*, zero_point: np.generic) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    node = helper.make_node
    return graph_of(
        [
            node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
            node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
            node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
            node("Gemm", ["xd", "wd", "b"], ["y"], name="gemm", transB=1),
        ],
        [("x", TensorProto.FLOAT, ["n", 8])],
        [("y", TensorProto.FLOAT, ["n", 5])],
        {
            "sx": np.float32(0.02),
            "zx": zero_point,
            "w": random.integers(-127, 128, (5, 8)).astype(np.int8),
            "sw": random.random(5).astype(np.float32),
            "zw": np.zeros(5, np.int8),
            "b": random.random(5).astype(np.float32),
        },
    )


@pytest.fixture(scope="module")
def two_makings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same graphs made by two processes, in two folders, with two hash seeds."""
    folders = [tmp_path_factory.mktemp(name) for name in ("here", "there-with-another-name")]
    for seed, folder in enumerate(folders):
        environment = os.environ | {"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
        code = MAKE_GRAPHS.format(root=str(ROOT))
        made = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
    return folders


def test_two_processes_in_two_folders_make_equal_bytes(two_makings: list[Path]) -> None:
    here, there = two_makings
    names = sorted(file.name for file in here.iterdir())
    assert names == ["float.onnx", "neural-compressor.onnx", "onnxruntime.quantization.onnx"]
    assert [name for name in names if (here / name).read_bytes() != (there / name).read_bytes()] == []


def test_graphs_hold_no_path_and_no_stack_trace(two_makings: list[Path]) -> None:
    for file in two_makings[0].iterdir():
        content = file.read_bytes()
        for forbidden in (b"stack_trace", b".py", str(ROOT).encode(), b"site-packages", b"torch.nn"):
            assert forbidden not in content, (file.name, forbidden)


def test_cleaning_twice_is_cleaning_once_and_keeps_module_paths(two_makings: list[Path]) -> None:
    for file in two_makings[0].iterdir():
        graph = onnx.load(file)
        assert clean(graph).SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)
    layers = {n.op_type: source_module(n) for n in onnx.load(two_makings[0] / "neural-compressor.onnx").graph.node}
    assert (layers["Conv"], layers["Gemm"]) == ("0", "4")


def test_the_order_of_nodes_and_weights_does_not_reach_the_bytes() -> None:
    weights = {"a": np.ones(3, np.float32), "b": np.full(3, 2, np.float32)}
    nodes = [helper.make_node("Mul", ["x", "a"], ["p"], name="p"), helper.make_node("Mul", ["x", "b"], ["q"], name="q")]
    last = helper.make_node("Add", ["p", "q"], ["y"], name="y")
    ports = [("x", TensorProto.FLOAT, [3])], [("y", TensorProto.FLOAT, [3])]
    one = graph_of([*nodes, last], *ports, weights)
    other = graph_of([*reversed(nodes), last], *ports, dict(reversed(weights.items())))
    assert clean(one).SerializeToString() == clean(other).SerializeToString()


@pytest.mark.parametrize(("opset", "told"), [(12, []), (20, [1])])
def test_a_shape_made_constant_says_allowzero_only_where_the_opset_knows_it(opset: int, told: list[int]) -> None:
    """A layer over all steps at once: the shape to go back to is computed, but known from the output."""
    node = helper.make_node
    model = graph_of(
        [
            node("Reshape", ["x", "flat"], ["f"]),
            node("MatMul", ["f", "w"], ["m"]),
            node("Shape", ["x"], ["s"]),
            node("Reshape", ["m", "s"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 3, 4])],
        [("y", TensorProto.FLOAT, ["n", 3, 4])],
        {"flat": np.array([-1, 4], np.int64), "w": np.eye(4, dtype=np.float32)},
        opset=opset,
    )
    cleaned = clean(model)
    onnx.checker.check_model(cleaned)
    assert [a.i for n in cleaned.graph.node for a in n.attribute if a.name == "allowzero"] == told
    assert clean(cleaned).SerializeToString() == cleaned.SerializeToString()
    x = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(cleaned, x=x), run(model, x=x))


def test_the_users_own_metadata_stays() -> None:
    model = graph_of(
        [helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, [3])], [("y", TensorProto.FLOAT, [3])], {}
    )
    helper.set_model_props(model, {"character": "abc", "pkg.torch.export.ExportedProgram": "/home/me/model.py"})
    assert {entry.key: entry.value for entry in clean(model).metadata_props} == {"character": "abc"}


def test_a_float_weight_behind_quantize_clip_and_transpose_becomes_stored_int8() -> None:
    node = helper.make_node
    weight = np.random.default_rng(0).standard_normal((40, 300)).astype(np.float32)
    model = graph_of(
        [
            node("QuantizeLinear", ["w", "s", "z"], ["wq"], axis=0),
            node("Clip", ["wq", "low", "high"], ["wc"]),
            node("DequantizeLinear", ["wc", "s", "z"], ["wd"], axis=0),
            node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
            node("MatMul", ["x", "wt"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 300])],
        [("y", TensorProto.FLOAT, ["n", 40])],
        {
            "w": weight,
            "s": np.abs(weight).max(1) / 127,
            "z": np.zeros(40, np.int8),
            "low": np.int8(-128),
            "high": np.int8(127),
        },
    )
    cleaned = clean(model)
    assert [n.op_type for n in cleaned.graph.node] == ["DequantizeLinear", "MatMul"]
    assert {tuple(t.dims): t.data_type for t in cleaned.graph.initializer}[300, 40] == TensorProto.INT8
    assert len(cleaned.SerializeToString()) < 0.3 * len(model.SerializeToString())
    x = np.random.default_rng(1).standard_normal((2, 300)).astype(np.float32)
    np.testing.assert_allclose(run(cleaned, x=x), run(model, x=x), rtol=1e-4, atol=1e-4)


def test_a_convolution_over_one_channel_is_padded_to_four_with_the_same_answer() -> None:
    model = quantized_convolution(zero_point=np.uint8(100))
    padded = clean(model)
    weights = [tuple(t.dims) for t in padded.graph.initializer if len(t.dims) == 4]
    assert weights == [(5, 4, 3, 3)]
    x = np.random.default_rng(1).standard_normal((2, 1, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(run(padded, x=x), run(model, x=x))


@pytest.mark.parametrize(("zero_point", "channels"), [(np.int8(0), 1), (np.uint8(100), 4)])
def test_int8_activations_and_four_channels_are_not_padded(zero_point: np.generic, channels: int) -> None:
    padded = clean(quantized_convolution(zero_point=zero_point, channels=channels))
    assert "Pad" not in {node.op_type for node in padded.graph.node}


def test_a_gemm_with_float_output_gets_an_integer_bias_within_half_a_step() -> None:
    model = quantized_gemm(zero_point=np.uint8(100))
    cleaned = clean(model)
    stored = {tuple(t.dims): t.data_type for t in cleaned.graph.initializer if t.data_type == TensorProto.INT32}
    assert stored == {(5,): TensorProto.INT32}
    x = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
    step = 0.02 * numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "sw"))
    assert (np.abs(run(cleaned, x=x) - run(model, x=x)) <= 0.5 * step + 1e-4).all()


def test_tensorrt_dialect_never_gets_an_integer_bias() -> None:
    cleaned = clean(quantized_gemm(zero_point=np.int8(0)))
    assert TensorProto.INT32 not in {tensor.data_type for tensor in cleaned.graph.initializer}


def test_embedding_rows_are_within_half_a_step_of_their_own_scale() -> None:
    table = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    table[3] *= 100
    table[7] = 0
    stored, scale = quantized_rows(table)
    assert stored.dtype == np.int8
    assert (np.abs(stored * scale - table) <= 0.5 * np.abs(table).max(1, keepdims=True) / 127 + 1e-7).all()


def test_a_large_table_is_stored_as_int8_and_a_small_one_is_not() -> None:
    random = np.random.default_rng(0)
    words, kinds = (
        random.standard_normal((500, 64)).astype(np.float32),
        random.standard_normal((2, 64)).astype(np.float32),
    )
    node = helper.make_node
    model = graph_of(
        [
            node("Gather", ["words", "ids"], ["a"], name="words"),
            node("Gather", ["kinds", "which"], ["b"], name="kinds"),
            node("Add", ["a", "b"], ["y"]),
        ],
        [("ids", TensorProto.INT32, ["n"]), ("which", TensorProto.INT64, ["n"])],
        [("y", TensorProto.FLOAT, ["n", 64])],
        {"words": words, "kinds": kinds},
    )
    made = store_embeddings_as_int8(model)
    types = {tuple(t.dims): t.data_type for t in made.graph.initializer}
    assert types == {(500, 64): TensorProto.INT8, (500, 1): TensorProto.FLOAT, (2, 64): TensorProto.FLOAT}
    ids, which = np.array([0, 499, 7], np.int32), np.array([0, 1, 1])
    np.testing.assert_allclose(run(made, ids=ids, which=which), words[ids] + kinds[which], atol=0.02)


def test_float16_halves_the_weights_and_keeps_the_ports() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model = clean(
        graph_of(
            [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")],
            [("x", TensorProto.FLOAT, ["n", 64])],
            [("y", TensorProto.FLOAT, ["n", 64])],
            {"w": weight},
        )
    )
    half = to_float16(model)
    assert {t.data_type for t in half.graph.initializer} == {TensorProto.FLOAT16}
    ports = (*half.graph.input, *half.graph.output)
    assert {v.type.tensor_type.elem_type for v in ports} == {TensorProto.FLOAT}
    assert {t.data_type for t in model.graph.initializer} == {TensorProto.FLOAT}, "the float graph was changed"
    x = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
    np.testing.assert_allclose(run(half, x=x), x @ weight, rtol=0.02, atol=0.02)


def test_nan_is_refused_by_name_and_infinity_is_not() -> None:
    ports = [("x", TensorProto.FLOAT, [3])], [("y", TensorProto.FLOAT, [3])]
    node = [helper.make_node("Add", ["x", "mask"], ["y"])]
    refuse_nan(graph_of(node, *ports, {"mask": np.array([0, -np.inf, 0], np.float32)}))
    with pytest.raises(ConfigError, match=r"'mask' hold 2 NaN of 3"):
        refuse_nan(graph_of(node, *ports, {"mask": np.array([0, np.nan, np.nan], np.float32)}))


@pytest.mark.parametrize(
    ("name", "scopes", "module"),
    [
        (
            "node_linear",
            "['', 'encoder', 'encoder.layers.3', 'encoder.layers.3.mlp', 'linear']",
            "encoder.layers.3.mlp",
        ),
        ("node_relu", "['', 'relu']", None),
        ("/encoder/layers.3/mlp/MatMul", None, "encoder.layers.3.mlp"),
        ("Conv_12", None, None),
    ],
)
def test_source_module(name: str, scopes: str | None, module: str | None) -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["c"], name=name)
    if scopes:
        node.metadata_props.add(key=NAME_SCOPES, value=scopes)
    assert source_module(node) == module
