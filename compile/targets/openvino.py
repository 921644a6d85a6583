"""OpenVINO on the CPU. The artifact is OpenVINO's own IR: `model.xml` and `model.bin`, weights kept as they are."""

import numpy as np

PACKAGES = ("openvino",)
WEIGHTED = {
    "Convolution",
    "GroupConvolution",
    "Deconvolution",
    "FullyConnected",
    "LSTMSequence",
    "GRUSequence",
    "RNNSequence",
    "LSTMCell",
    "GRUCell",
    "RNNCell",
    "RNNSeq",
}
INTEGERS = {"u8", "i8", "u4", "i4"}
SUFFIXES = ("/WithoutBiases", "/DequantizationMultiply", "/DequantizationSubtract", "/transpose_b")


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
    """For each layer with weights: name, names (of the source graph's nodes), op, precision, integer.

    The precision is that of what the operator multiplies, as it runs; the hint read back from the compiled model
    says nothing of it.
    """
    layers = []
    for operator in compiled.get_runtime_model().get_ordered_ops():
        facts = {key: str(value.value) for key, value in operator.get_rt_info().items() if hasattr(value, "value")}
        op, precision = facts.get("layerType", ""), facts.get("runtimePrecision", "unknown")
        if op not in WEIGHTED and not (op == "MatMul" and multiplies_constant(operator)):
            continue
        original = [plain(name) for name in facts.get("originalLayersNames", "").split(",") if name]
        names = list(dict.fromkeys([plain(operator.get_friendly_name()), *original]))
        integer = precision in INTEGERS and not facts.get("primitiveType", "").endswith(("f32", "bf16", "f16"))
        layers.append({"name": names[0], "names": names, "op": op, "precision": precision, "integer": integer})
    return layers


def plain(name):
    """The source graph's name of a node, without what the compiler appended."""
    while name.endswith(SUFFIXES):
        for suffix in SUFFIXES:
            name = name.removesuffix(suffix)
    return name


def multiplies_constant(operator):
    """Whether the second factor is kept in the model: then it is a layer, not a product of two activations."""
    source = operator.input_value(1).get_node()
    return str(source.get_rt_info()["layerType"].value) == "Const" if "layerType" in source.get_rt_info() else False
