"""Defects planted in artifacts by hand: `explain` names the class and the module. What was planted is what is expected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from parity.explain.graph.ir import ir_constants
from tests.conftest import run_in
from tests.parity import planted
from tests.parity.planted import artifact, explained

INT8, FLOAT, OPENVINO = "edge-x86-onnxruntime", "cloud-cpu-onnxruntime", "edge-x86-openvino-fp32"


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.shared(tmp_path_factory)


@pytest.fixture
def root(ready: Path, tmp_path: Path) -> Path:
    """A copy of the project that a test may break."""
    shutil.copytree(ready, tmp_path / "project")
    return tmp_path / "project"


def change(root: Path, model: str, target: str, how: Callable[[onnx.ModelProto], None]) -> None:
    path = artifact(root, model, target) / "model.onnx"
    graph = onnx.load(path)
    how(graph)
    onnx.save(graph, path)


def node_of(graph: onnx.ModelProto, module: str, op: str) -> onnx.NodeProto:
    from compile.graph import source_module

    return next(n for n in graph.graph.node if n.op_type == op and source_module(n) == module)


def rescale(graph: onnx.ModelProto, name: str, factor: float) -> None:
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype(np.float32), name))


def test_a_healthy_integer_artifact_is_quantization_and_its_remedy_was_tried(root: Path) -> None:
    found = explained(root, "picture", INT8)
    assert found["cause"] == "quantization"
    assert found["step"] == "quantized graph simulated"
    assert found["explained"]
    assert {one["module"] for one in found["tensors"]} >= {"first", "second", "head"}
    tried = found["suggestion"]
    assert tried["keep_float"]
    assert set(tried["keep_float"]) <= {"first", "second", "head"}
    assert tried["agreement_before"] == pytest.approx(0.99)
    assert tried["agreement_after"] > tried["agreement_before"]
    assert tried["latency_ratio"] > 0


@pytest.mark.parametrize(("model", "target"), [("text", FLOAT), ("text", OPENVINO), ("cell", FLOAT)])
def test_a_healthy_float_artifact_has_no_cause(root: Path, model: str, target: str) -> None:
    found = explained(root, model, target)
    assert found["cause"] == "none"
    assert found["explained"]
    assert not any(rung["broke"] for rung in found["rungs"] if rung["leads"])


def test_one_layers_weight_scale_doubled_is_wrong_weights_of_that_layer(root: Path) -> None:
    def double(graph: onnx.ModelProto) -> None:
        layer = node_of(graph, "second", "Conv")
        decoded = next(n for n in graph.graph.node if n.output[0] == layer.input[1])
        rescale(graph, decoded.input[1], 2)

    change(root, "picture", INT8, double)
    found = explained(root, "picture", INT8)
    assert found["cause"] == "stale or wrong weights"
    assert found["step"] == "artifact as found"
    assert "`second` are 2 times" in found["sentence"]
    assert found["first"]["module"] == "second"
    assert found["worst"]["module"] == "second"
    assert found["flips"]


def test_one_layers_weight_scale_doubled_in_openvinos_ir_is_found_there_too(root: Path) -> None:
    from compile.graph import source_module

    graph = onnx.load(root / "out/picture/graphs/uint8-asymmetric/graph.onnx")
    layer = next(n for n in graph.graph.node if n.op_type == "Conv" and source_module(n) == "second")
    scale = next(n for n in graph.graph.node if n.output[0] == layer.input[1]).input[1]
    folder = artifact(root, "picture", "edge-x86-openvino")
    import xml.etree.ElementTree as ElementTree

    layers = ElementTree.parse(folder / "model.xml").getroot().iter("layer")
    data = next(one.find("data") for one in layers if one.get("name") == scale)
    assert data is not None
    start, size = int(data.get("offset", "")), int(data.get("size", ""))
    content = bytearray((folder / "model.bin").read_bytes())
    content[start : start + size] = (2 * np.frombuffer(bytes(content[start : start + size]), "<f4")).tobytes()
    (folder / "model.bin").write_bytes(content)
    found = explained(root, "picture", "edge-x86-openvino")
    assert found["cause"] == "stale or wrong weights"
    assert "`second` are 2 times" in found["sentence"]
    assert "with the source's in their place 100 % of the error is gone" in found["sentence"]
    assert found["first"]["module"] == "second"


@pytest.mark.parametrize("also", [True, False])
def test_what_an_ir_computes_otherwise_beneath_wrong_weights_is_a_second_cause(root: Path, also: bool) -> None:
    """Its constants stand in the graph that the line compiles, which has the sound operators: those do not explain it all."""
    import openvino as ov

    graph = onnx.load(root / "out/text/graphs/float32/graph.onnx")
    rescale(graph, node_of(graph, "blocks.0.up", "MatMul").input[1], 2)
    if also:
        next(a for a in node_of(graph, "blocks.1.softmax", "Softmax").attribute if a.name == "axis").i = 1
    onnx.save(graph, root / "theirs.onnx")
    ov.save_model(ov.convert_model(root / "theirs.onnx"), root / "theirs/model.xml", compress_to_fp16=False)
    found = explained(root, "text", OPENVINO, "--artifact", "theirs")
    assert found["cause"] == "stale or wrong weights"
    assert "`blocks.0.up` are 2 times" in found["sentence"]
    assert (found["second"] is not None) is also
    assert not also or "Softmax of `blocks.1.softmax` along axis" in found["second"]["sentence"]


def test_an_ir_saved_as_openvino_saves_by_itself_holds_its_weights_in_half_the_bits(root: Path) -> None:
    """`compress_to_fp16` is the default of `save_model`: constants lie there as float16, under a name of their own."""
    import openvino as ov

    ov.save_model(ov.convert_model(root / "out/text/graphs/float32/graph.onnx"), root / "theirs/model.xml")
    found = explained(root, "text", OPENVINO, "--artifact", "theirs")
    assert found["cause"] == "runtime precision"
    assert "are the source's stored in float16; with the source's own in their place" in found["sentence"]
    assert found["second"] is None


def test_one_byte_of_a_layers_weights_is_found_beside_a_rebuild(root: Path) -> None:
    def flip(graph: onnx.ModelProto) -> None:
        layer = node_of(graph, "second", "Conv")
        decoded = next(n for n in graph.graph.node if n.output[0] == layer.input[1])
        tensor = next(t for t in graph.graph.initializer if t.name == decoded.input[0])
        integers = numpy_helper.to_array(tensor).copy()
        integers.flat[700] ^= 0x40
        tensor.CopyFrom(numpy_helper.from_array(integers, tensor.name))

    change(root, "picture", INT8, flip)
    found = explained(root, "picture", INT8)
    assert found["cause"] == "stale or wrong weights"
    assert "1 of the 1,152 numbers of `second` were changed after the artifact was built" in found["sentence"]
    assert "with the rebuild's in their place 100 % of the error is gone" in found["sentence"]
    assert found["note"].startswith("model.onnx changed after the artifact was built")
    assert found["first"]["module"] == "second"


def test_an_artifact_of_another_recipe_was_not_changed_after_it_was_built(root: Path) -> None:
    config = root / "configs/models/picture.yaml"
    config.write_text(config.read_text() + "quantize: {granularity: per_tensor}\n")
    found = explained(root, "picture", INT8)
    assert found["cause"] == "quantization"
    assert "are the source's, rounded by another recipe" in found["sentence"]
    assert found["note"] is None or "changed after" not in found["note"]


def flip_bit(graph: onnx.ModelProto, name: str, place: int) -> None:
    """One bit of one stored float: its exponent's."""
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    numbers = numpy_helper.to_array(tensor).copy()
    numbers.view(np.uint32).flat[place] ^= 1 << 27
    tensor.CopyFrom(numpy_helper.from_array(numbers, name))


def test_one_bit_of_one_float_is_found_and_counted(root: Path) -> None:
    def touch(graph: onnx.ModelProto) -> None:
        flip_bit(graph, node_of(graph, "blocks.1.up", "MatMul").input[1], 11)

    change(root, "text", FLOAT, touch)
    found = explained(root, "text", FLOAT)
    assert found["cause"] == "stale or wrong weights"
    assert "1 of the 1,152 numbers of `blocks.1.up`" in found["sentence"]
    assert found["explained"]


def test_one_byte_of_openvinos_ir_is_found_and_counted(root: Path) -> None:
    folder = artifact(root, "picture", "edge-x86-openvino")
    content = bytearray((folder / "model.bin").read_bytes())
    whole = ir_constants(folder)
    name = max((n for n, array in whole.items() if array.dtype == np.int8), key=lambda n: whole[n].size)
    content[content.index(whole[name].tobytes()) + 5] ^= 0x40
    (folder / "model.bin").write_bytes(content)
    found = explained(root, "picture", "edge-x86-openvino")
    assert found["cause"] == "stale or wrong weights"
    assert f"1 of the {whole[name].size:,} numbers of `head`" in found["sentence"]


def test_last_months_weights_in_the_artifact_are_stale_weights(root: Path) -> None:
    """The weights file moved on; the artifact that lies there was built from the one before."""
    from safetensors.numpy import load_file, save_file

    path = root / "mine" / "text.safetensors"
    rng = np.random.default_rng(5)
    moved = {
        k: (v + 0.15 * v.std() * rng.standard_normal(v.shape)).astype(np.float32) for k, v in load_file(path).items()
    }
    save_file(moved, path)
    for target in (FLOAT, OPENVINO):
        found = explained(root, "text", target)
        assert found["cause"] == "stale or wrong weights"
        assert found["step"] == "artifact as found"
        assert found["suggestion"]["agreement_after"] > found["suggestion"]["agreement_before"]


def test_last_months_weights_quantized_are_stale_weights(root: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = root / "mine" / "picture.safetensors"
    rng = np.random.default_rng(5)
    moved = {
        k: (v + 0.3 * v.std() * rng.standard_normal(v.shape)).astype(np.float32) for k, v in load_file(path).items()
    }
    save_file(moved, path)
    assert explained(root, "picture", INT8)["cause"] == "stale or wrong weights"


def test_ranges_clipped_in_the_artifact_are_quantization_and_name_what_saturates(root: Path) -> None:
    def clip(graph: onnx.ModelProto) -> None:
        layer = node_of(graph, "second", "Conv")
        decoded = next(n for n in graph.graph.node if n.output[0] == layer.input[0])
        rescale(graph, decoded.input[1], 0.1)

    change(root, "picture", INT8, clip)
    found = explained(root, "picture", INT8)
    assert found["cause"] == "quantization"
    assert found["step"] == "artifact as found"
    assert "`first` gives to `second` saturates" in found["sentence"]


def test_activations_saturated_by_a_clipped_calibration_are_quantization(root: Path) -> None:
    path = root / "mine" / "picture-calibration.npz"
    with np.load(path) as arrays:
        image = arrays["image"]
    np.savez(path, image=((image - 90) / 8 + 90).astype(np.float32))
    shutil.rmtree(root / "out/picture/targets" / INT8)
    found = explained(root, "picture", INT8)
    assert found["cause"] == "quantization"
    assert found["step"] == "quantized graph simulated"
    assert "saturates" in found["sentence"]


def test_an_artifact_that_was_cut_short_where_it_lies_is_said_not_to_run(root: Path) -> None:
    path = artifact(root, "picture", INT8) / "model.onnx"
    path.write_bytes(path.read_bytes()[:500])
    found = explained(root, "picture", INT8, code=1)
    assert found["cause"] == "unexplained"
    assert "could not be run here" in found["sentence"]
    assert "model.onnx changed after the artifact was built" in found["note"]


def test_a_transposed_image_in_the_artifact_is_preprocessing(root: Path) -> None:
    def transpose(graph: onnx.ModelProto) -> None:
        for node in graph.graph.node:
            node.input[:] = ["turned" if name == "image" else name for name in node.input]
        graph.graph.node.insert(0, helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 1, 3, 2]))

    change(root, "picture", INT8, transpose)
    found = explained(root, "picture", INT8)
    assert found["cause"] == "pre/post-processing"
    assert found["step"] == "artifact as found"
    assert "`image` transposed (axes 2 and 3 swapped)" in found["sentence"]


def test_a_fused_operator_that_rounds_otherwise_is_fusion_in_its_module(root: Path) -> None:
    """ONNX Runtime's FastGelu in place of the exact one, in one of two blocks."""

    def fast(graph: onnx.ModelProto) -> None:
        gelu = node_of(graph, "blocks.1.gelu", "Gelu")
        gelu.op_type, gelu.domain = "FastGelu", "com.microsoft"
        del gelu.attribute[:]
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    change(root, "text", FLOAT, fast)
    found = explained(root, "text", FLOAT)
    assert found["cause"] == "fusion"
    assert found["step"] == "artifact as found"
    assert "`blocks.1.gelu`" in found["sentence"]
    assert found["first"]["module"] == "blocks.1.gelu"


def test_a_result_rounded_behind_an_operator_is_fusion_in_its_module(root: Path) -> None:
    def coarse(graph: onnx.ModelProto) -> None:
        node = node_of(graph, "blocks.0.gelu", "Gelu")
        place = list(graph.graph.node).index(node)
        name, node.output[0] = node.output[0], "exact"
        graph.graph.initializer.append(numpy_helper.from_array(np.float32(64), "steps"))
        for offset, (op, inputs, output) in enumerate(
            [("Mul", ["exact", "steps"], "more"), ("Round", ["more"], "whole"), ("Div", ["whole", "steps"], name)], 1
        ):
            graph.graph.node.insert(place + offset, helper.make_node(op, inputs, [output]))

    change(root, "text", FLOAT, coarse)
    found = explained(root, "text", FLOAT)
    assert found["cause"] == "fusion"
    assert "`blocks.0.gelu`" in found["sentence"]


def test_attentions_softmax_on_the_wrong_axis_is_an_export_defect_of_that_module(root: Path) -> None:
    def other_axis(graph: onnx.ModelProto) -> None:
        softmax = node_of(graph, "blocks.1.softmax", "Softmax")
        next(a for a in softmax.attribute if a.name == "axis").i = 1

    change(root, "text", FLOAT, other_axis)
    found = explained(root, "text", FLOAT)
    assert found["cause"] == "export"
    assert "`blocks.1.softmax`" in found["sentence"]
    assert "axis 1" in found["sentence"]
    assert found["first"]["module"] == "blocks.1.softmax"


def test_the_final_softmax_on_the_wrong_axis_is_postprocessing(root: Path) -> None:
    def over_the_batch(graph: onnx.ModelProto) -> None:
        next(a for a in node_of(graph, "softmax", "Softmax").attribute if a.name == "axis").i = 0

    change(root, "text", FLOAT, over_the_batch)
    found = explained(root, "text", FLOAT)
    assert found["cause"] == "pre/post-processing"
    assert "softmax along the batch" in found["sentence"]


def test_an_artifact_that_forgets_its_state_is_preprocessing(root: Path) -> None:
    def forget(graph: onnx.ModelProto) -> None:
        graph.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nought"))
        for node in graph.graph.node:
            node.input[:] = ["nothing" if name == "h" else name for name in node.input]
        graph.graph.node.insert(0, helper.make_node("Mul", ["h", "nought"], ["nothing"]))

    change(root, "cell", FLOAT, forget)
    found = explained(root, "cell", FLOAT)
    assert found["cause"] == "pre/post-processing"
    assert "state (`h`) is not carried" in found["sentence"]


def test_noise_in_the_artifact_is_named_and_is_not_fit(root: Path) -> None:
    def noise(graph: onnx.ModelProto) -> None:
        graph.graph.node[-1].output[0] = "quiet"
        add = helper.make_node("Add", ["quiet", "noise"], ["scores"])
        random = helper.make_node("RandomNormalLike", ["quiet"], ["noise"], scale=0.2, seed=4.0)
        graph.graph.node.extend([random, add])

    change(root, "text", FLOAT, noise)
    found = explained(root, "text", FLOAT, code=1)
    assert "RandomNormalLike draws at random: the same input is answered otherwise each time" in found["sentence"]
    assert not found["explained"]


def test_an_artifact_from_elsewhere_is_explained_without_touching_the_one_here(root: Path) -> None:
    """Other names for inputs and outputs, and half precision: as another exporter might publish it."""
    from compile.export import rename_values
    from compile.graph import to_float16

    before = {p: p.read_bytes() for p in artifact(root, "text", FLOAT).iterdir()}
    half = to_float16(onnx.load(root / "out/text/graphs/float32/graph.onnx"))
    rename_values(half.graph, {"x": "input.1", "scores": "output"})
    onnx.save(half, root / "half.onnx")
    found = explained(root, "text", FLOAT, "--artifact", "half.onnx")
    assert found["cause"] == "runtime precision"
    assert {p: p.read_bytes() for p in artifact(root, "text", FLOAT).iterdir()} == before
    assert "--artifact half.onnx" in found["reproduce"]


def test_an_artifact_quantized_by_another_tool_is_quantization(root: Path) -> None:
    from compile.dataset import batches_of
    from compile.quiet import quiet

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = batches_of(root / "out/picture/calibration")

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    with quiet():
        graph = root / "out/picture/graphs/float32/graph.onnx"
        quantize_static(graph, root / "theirs.onnx", Reader(), weight_type=QuantType.QInt8)
    found = explained(root, "picture", FLOAT, "--artifact", "theirs.onnx")
    assert found["cause"] == "quantization"
    assert found["step"] == "artifact as found"


def test_what_is_explained_is_not_built_over_and_not_explained_twice(root: Path) -> None:
    path = artifact(root, "text", FLOAT) / "model.onnx"
    graph = onnx.load(path)
    rescale(graph, next(t.name for t in graph.graph.initializer if t.name == "head.weight"), 2)
    onnx.save(graph, path)
    changed = path.read_bytes()
    first = run_in(root, "explain", "text", FLOAT)
    again = run_in(root, "explain", "text", FLOAT)
    assert "explain" in first.stderr
    assert "explain" not in again.stderr
    assert first.stdout == again.stdout
    assert path.read_bytes() == changed
