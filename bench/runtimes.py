"""A model's bytes, loaded on one thread, as a function from inputs to outputs. Effective precision pinned to float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np

Batch = Mapping[str, np.ndarray]
Run = Callable[[Batch], np.ndarray]

OPENVINO = {
    "INFERENCE_PRECISION_HINT": "f32",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
}


def on_onnxruntime(path: Path) -> Run:
    """ONNX Runtime on one CPU thread; the first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    output = session.get_outputs()[0].name

    def run(batch: Batch) -> np.ndarray:
        result: np.ndarray = session.run([output], dict(batch))[0]
        return result

    return run


def openvino_artifact(graph: Path, folder: Path) -> Path:
    """What lockstep's own OpenVINO target makes of a graph: the bytes that it would publish."""
    from compile.targets import openvino as target

    folder.mkdir(exist_ok=True)
    target.build(SimpleNamespace(graph=graph, artifact=folder, options={"threads": 1}, precision="int8"))
    return folder / "model.xml"


def on_openvino(path: Path) -> Run:
    """OpenVINO on one CPU thread, from ONNX or from its own format; the first output."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", OPENVINO)
    request = compiled.create_infer_request()

    def run(batch: Batch) -> np.ndarray:
        request.infer(dict(batch), share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return run
