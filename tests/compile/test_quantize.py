"""Both quantizers behind one function: who takes what, what is integer in the end, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from compile.coverage import of_qdq_graph
from compile.errors import ConfigError, ToolchainError
from compile.export import export_torch, trace
from compile.passes.smoothing import smooth
from compile.quantize import NEURAL_COMPRESSOR, ONNX_RUNTIME, quantize
from compile.quantize_torch import batches, live_graph
from compile.quiet import quiet
from compile.recipe import Recipe
from compile.signature import Axis, Signature, Tensor

UINT8 = Recipe("uint8-asymmetric", smoothing=0.75)
INT8 = Recipe("int8-symmetric", smoothing=0.75)
BATCH = {"batch": Axis(1, 2, 16)}
Data = list[dict[str, np.ndarray]]


class Residual(nn.Module):
    """Batch norm, a residual sum, a depthwise convolution, a mean: what pretrained vision nets are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 4)

    def forward(self, image):
        x = self.stem(image)
        x = (x + self.depthwise(self.inner(x))).relu()
        return self.head(x.mean((2, 3)))


class Outliers(nn.Module):
    """Pre-norm and post-norm Linears behind LayerNorms with outlier gains, and a pooler that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(400, 32)
        self.first, self.second = nn.LayerNorm(32), nn.LayerNorm(32)
        self.widen, self.narrow, self.out = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 6)
        self.pooler = nn.Linear(32, 32)
        with torch.no_grad():
            self.first.weight[3], self.second.weight[9] = 40.0, 30.0

    def forward(self, ids, mask):
        x = self.words(ids)
        x = x + self.narrow(functional.gelu(self.widen(self.first(x))))
        x = self.second(x) * mask[..., None]
        self.pooler(x)
        return self.out(self.second(x)), x


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(12, 16), nn.Linear(16, 2)

    def forward(self, x, h, c):
        h, c = self.cell(x, (h, c))
        return self.out(h), h, c


def signature(inputs: dict[str, tuple], outputs: dict[str, tuple], axes=BATCH) -> Signature:
    return Signature(
        *(
            tuple(Tensor(n, *(t if isinstance(t[-1], tuple) else ("float32", t))) for n, t in d.items())
            for d in (inputs, outputs)
        ),
        axes,
    )


IMAGES = signature({"image": ("batch", 3, 16, 16)}, {"logits": ("batch", 4)})
IDS = signature(
    {"ids": ("int32", ("batch", "length")), "mask": ("batch", "length")},
    {"tags": ("batch", "length", 6), "states": ("batch", "length", 32)},
    BATCH | {"length": Axis(2, 8, 32)},
)
STREAM = signature(
    {"x": ("batch", 12), "h": ("batch", 16), "c": ("batch", 16)},
    {"y": ("batch", 2), "hn": ("batch", 16), "cn": ("batch", 16)},
)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def images() -> Data:
    return [{"image": normal(seed, 8, 3, 16, 16)} for seed in range(3)]


def sentences() -> Data:
    random = np.random.default_rng(0)
    return [
        {"ids": random.integers(0, 400, (8, n)).astype(np.int32), "mask": np.ones((8, n), np.float32)}
        for n in (5, 9, 17)
    ]


def stream() -> Data:
    return [{"x": normal(s, 8, 12), "h": normal(s + 9, 8, 16), "c": normal(s + 99, 8, 16)} for s in range(3)]


@cache
def residual() -> tuple[nn.Module, onnx.ModelProto]:
    torch.manual_seed(0)
    module = Residual().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return module, export_torch(module, IMAGES, images()[0])


@cache
def quantized_residual(recipe: Recipe) -> tuple[onnx.ModelProto, str]:
    module, graph = residual()
    return quantize(module, graph, IMAGES, images(), recipe)


def run(graph: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(graph.SerializeToString()).run(None, feeds)[0]


def snr_db(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).mean() / ((found - expected) ** 2).mean()))


def optimized(graph: onnx.ModelProto, folder: Path) -> list[str]:
    """The operators that ONNX Runtime really runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph.SerializeToString(), options)
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def initializers(graph: onnx.ModelProto, names: Sequence[str]) -> list[np.ndarray]:
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    return [numpy_helper.to_array(stored[name]) for name in names if name in stored]


def test_a_residual_net_is_integer_throughout_in_the_graph_and_in_onnx_runtime(tmp_path: Path) -> None:
    floats = residual()[1]
    graph, quantizer = quantized_residual(UINT8)
    assert quantizer == NEURAL_COMPRESSOR
    assert of_qdq_graph(graph, {"batch": 1}).share == 1.0
    operators = optimized(graph, tmp_path)
    assert operators.count("QLinearConv") == 3
    assert {"Conv", "FusedConv", "Gemm", "MatMul"}.isdisjoint(operators)
    unseen = {"image": normal(77, 8, 3, 16, 16)}
    assert snr_db(run(graph, unseen), run(floats, unseen)) > 25


def test_the_other_dialect_has_int8_activations_at_zero_and_float_biases() -> None:
    graph, quantizer = quantized_residual(INT8)
    assert quantizer == NEURAL_COMPRESSOR
    nodes = [node for node in graph.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    points = initializers(graph, [node.input[2] for node in nodes])
    assert {array.dtype for array in points} == {np.dtype(np.int8)}
    assert not any(array.any() for array in points)
    assert TensorProto.INT32 not in {tensor.data_type for tensor in graph.graph.initializer}


@pytest.mark.parametrize("source", ["torch", "onnx"])
def test_the_int8_dialect_builds_with_tensorrt_for_rtx(source: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX has no wheel for this platform")
    graph = quantized_residual(INT8)[0]
    if source == "onnx":
        graph = quantize(None, residual()[1], IMAGES, images(), INT8)[0]
    onnx.save(graph, tmp_path / "graph.onnx")
    build = """
import sys
import tensorrt_rtx_bindings as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(sys.argv[1]):
    sys.exit("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
profile = builder.create_optimization_profile()
profile.set_shape("image", (1, 3, 16, 16), (2, 3, 16, 16), (16, 3, 16, 16))
config = builder.create_builder_config()
config.add_optimization_profile(profile)
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
engine = builder.build_serialized_network(network, config)
sys.exit(0 if engine is not None else "no engine")
"""
    command = [sys.executable, "-c", build, str(tmp_path / "graph.onnx")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


def test_a_source_that_is_only_onnx_goes_to_onnx_runtimes_quantizer(tmp_path: Path) -> None:
    floats = residual()[1]
    before = floats.SerializeToString()
    graph, quantizer = quantize(None, floats, IMAGES, images(), UINT8)
    assert quantizer == ONNX_RUNTIME
    assert floats.SerializeToString() == before, "the float graph was changed"
    assert optimized(graph, tmp_path).count("QLinearConv") == 3
    assert snr_db(run(graph, images()[0]), run(floats, images()[0])) > 25


def test_the_order_of_calibration_batches_does_not_matter() -> None:
    module, floats = residual()
    backwards = quantize(module, floats, IMAGES, images()[::-1], UINT8)[0]
    assert backwards.SerializeToString() == quantized_residual(UINT8)[0].SerializeToString()


def test_a_reimported_program_is_quantized_like_its_module() -> None:
    module, floats = residual()
    with quiet():
        program = trace(module, IMAGES, images()[0])
    graph, quantizer = quantize(program, floats, IMAGES, images(), UINT8)
    assert (quantizer, of_qdq_graph(graph, {"batch": 1}).share) == (NEURAL_COMPRESSOR, 1.0)


def test_layers_kept_float_are_float_and_no_others() -> None:
    module, floats = residual()
    recipe = Recipe("uint8-asymmetric", keep_float=("inner*", "head"))
    for source in (module, None):
        counted = of_qdq_graph(quantize(source, floats, IMAGES, images(), recipe)[0], {"batch": 1})
        assert {layer.source_module for layer in counted.float_layers} == {"inner.0", "head"}
        assert {layer.source_module for layer in counted.layers if layer.integer} == {"stem.0", "depthwise.0"}


@pytest.mark.parametrize(("granularity", "scales"), [("per_channel", 8), ("per_tensor", 1)])
def test_granularity_gives_weights_a_scale_for_each_channel_or_one(granularity: str, scales: int) -> None:
    module, floats = residual()
    recipe = Recipe("uint8-asymmetric", granularity=granularity)
    for source in (module, None):
        graph, _ = quantize(source, floats, IMAGES, images(), recipe)
        assert of_qdq_graph(graph, {"batch": 1}).share == 1.0
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
        made_by = {node.output[0]: node for node in graph.graph.node}
        stem = next(node for node in graph.graph.node if node.op_type == "Conv")
        assert stored[made_by[stem.input[1]].input[1]].size == scales


@pytest.mark.parametrize("pattern", ["iner*", "head.0"])
def test_a_pattern_that_keeps_nothing_float_is_a_typo(pattern: str) -> None:
    module, floats = residual()
    with pytest.raises(
        ConfigError, match=rf"keep_float: `{pattern.replace('*', '.*')}` is no module.*did you mean `(inner|head)"
    ):
        quantize(module, floats, IMAGES, images(), Recipe("uint8-asymmetric", keep_float=(pattern,)))


def test_histograms_take_batches_of_different_lengths() -> None:
    torch.manual_seed(0)
    floats = export_torch(Outliers().eval(), IDS, sentences()[0])
    assert len({array.shape for batch in sentences() for array in batch.values()}) > 1
    graph, _ = quantize(None, floats, IDS, sentences(), Recipe("uint8-asymmetric", algorithm="kl"))
    assert of_qdq_graph(graph, {"batch": 1, "length": 8}).share > 0.9


def test_a_transformer_with_an_unused_pooler_and_int32_ids_stays_dynamic_and_shrinks() -> None:
    torch.manual_seed(0)
    module = Outliers().eval()
    floats = export_torch(module, IDS, sentences()[0])
    plain, smoothed = (
        quantize(module, floats, IDS, sentences(), Recipe("uint8-asymmetric", smoothing=alpha, embeddings=False))
        for alpha in (None, 0.75)
    )
    small = quantize(module, floats, IDS, sentences(), UINT8)
    assert plain[1] == smoothed[1] == small[1] == NEURAL_COMPRESSOR
    unseen = {"ids": np.arange(66, dtype=np.int32).reshape(3, 22), "mask": np.ones((3, 22), np.float32)}
    expected = run(floats, unseen)
    assert snr_db(run(smoothed[0], unseen), expected) > snr_db(run(plain[0], unseen), expected) + 3
    assert snr_db(run(small[0], unseen), expected) > 25
    assert len(small[0].SerializeToString()) < 0.5 * len(floats.SerializeToString())


def test_smoothing_leaves_the_float_function_and_the_callers_module_as_they_were() -> None:
    torch.manual_seed(0)
    module = Outliers().eval()
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data = batches(IDS, sentences())
    with quiet():
        traced = live_graph(trace(module, IDS, sentences()[0]))
        smooth(traced, data, 0.75)
        for found, expected in zip(traced(*data[1]), module(*data[1]), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert any(node.name.startswith("smoothing_") for node in traced.graph.nodes), "nothing was smoothed by a Mul"
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())


def test_an_lstm_cell_that_neural_compressor_leaves_alone_is_really_quantized() -> None:
    torch.manual_seed(0)
    module = Cell().eval()
    floats = export_torch(module, STREAM, stream()[0])
    graph, quantizer = quantize(module, floats, STREAM, stream(), UINT8)
    assert quantizer == ONNX_RUNTIME
    assert of_qdq_graph(graph, {"batch": 1}).share == 1.0
    assert graph.SerializeToString() != floats.SerializeToString()


def test_an_lstm_cell_kept_float_throughout_is_an_error_that_names_the_layers() -> None:
    module = Cell().eval()
    floats = export_torch(module, STREAM, stream()[0])
    with pytest.raises(ToolchainError, match=r"changed nothing.*Gemm cell.*Gemm out"):
        quantize(module, floats, STREAM, stream(), Recipe("uint8-asymmetric", keep_float=("*",)))


def test_one_dimensional_convolutions_are_quantized() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 3)).eval()
    ports = signature({"x": ("batch", 4, 20)}, {"y": ("batch", 4, 16)})
    data = [{"x": normal(seed, 8, 4, 20)} for seed in range(2)]
    graph, quantizer = quantize(module, export_torch(module, ports, data[0]), ports, data, UINT8)
    assert (quantizer, of_qdq_graph(graph, {"batch": 1}).share) == (ONNX_RUNTIME, 1.0)


def text_recognizer() -> onnx.ModelProto:
    """An OCR recognizer as its vendors publish it: convolutions, an LSTM over the width, a classifier; opset 11."""
    node = helper.make_node
    weights = {
        "c1": normal(0, 8, 1, 3, 3), "b1": normal(1, 8), "w": normal(2, 1, 4 * 6, 32), "r": normal(3, 1, 4 * 6, 6),
        "o": normal(4, 6, 10), "ob": normal(5, 10), "columns": np.array([0, 32, -1]),
    }  # fmt: skip
    graph = helper.make_graph(
        [
            node("Conv", ["x", "c1", "b1"], ["f"], name="conv", pads=[1, 1, 1, 1], strides=[4, 1]),
            node("Relu", ["f"], ["g"], name="relu"),
            node("Reshape", ["g", "columns"], ["h"], name="reshape"),
            node("Transpose", ["h"], ["t"], name="transpose", perm=[2, 0, 1]),
            node("LSTM", ["t", "w", "r"], ["states"], name="lstm", hidden_size=6),
            node("Squeeze", ["states"], ["s"], name="squeeze", axes=[1]),
            node("MatMul", ["s", "o"], ["m"], name="classes"),
            node("Add", ["m", "ob"], ["y"], name="bias"),
        ],
        "recognizer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 16, "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["width", "batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def test_an_ocr_recognizer_keeps_its_lstm_float_and_says_so() -> None:
    ports = signature(
        {"x": ("batch", 1, 16, "width")}, {"y": ("width", "batch", 10)}, BATCH | {"width": Axis(8, 40, 200)}
    )
    data = [{"x": normal(width, 2, 1, 16, width)} for width in (20, 33)]
    graph, quantizer = quantize(None, text_recognizer(), ports, data, UINT8)
    counted = of_qdq_graph(graph, {"batch": 1, "width": 40})
    assert quantizer == ONNX_RUNTIME
    assert {layer.name for layer in counted.layers if layer.integer} == {"conv", "classes"}
    assert [layer.name for layer in counted.float_layers] == ["lstm"]
    assert run(graph, {"x": normal(1, 3, 1, 16, 57)}).shape == (57, 3, 10)


def test_a_model_without_layers_is_an_error() -> None:
    ports = signature({"x": ("batch", 8)}, {"y": ("batch", 8)})
    module, data = nn.LayerNorm(8).eval(), [{"x": normal(0, 4, 8)}]
    with pytest.raises(ToolchainError, match="changed nothing"):
        quantize(module, export_torch(module, ports, data[0]), ports, data, UINT8)


def test_bad_calibration_data_is_refused() -> None:
    module, floats = residual()
    bad = images()
    bad[1]["image"][3, 0, 2, 2] = np.nan
    for data, message in (
        ([], "empty"),
        ([{"picture": normal(0, 1)}], "no 'image'"),
        (bad, "batch 1, 'image', holds NaN"),
    ):
        with pytest.raises(ConfigError, match=message):
            quantize(module, floats, IMAGES, data, UINT8)


def test_nan_in_the_float_graph_is_refused_by_name() -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(residual()[1])
    tensor = next(t for t in broken.graph.initializer if t.name == "head.weight")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ConfigError, match=r"'head\.weight'"):
        quantize(None, broken, IMAGES, images(), UINT8)
