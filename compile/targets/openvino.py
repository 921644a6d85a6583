"""OpenVINO on the CPU. The artifact is OpenVINO's own IR: `model.xml` and `model.bin`, weights kept as they are."""

import numpy as np

PACKAGES = ("openvino",)
OPTIONS = ("threads", "pinned")
PINNED = {"pinned": True}
DEFAULTS = {"pinned": False}
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
SCALING = {"Convert", "Subtract", "Multiply"}
SUFFIXES = ("/WithoutBiases", "/DequantizationMultiply", "/DequantizationSubtract", "/transpose_b")


def probe():
    import openvino

    return {"versions": {"openvino": openvino.__version__.split("-")[0]}, "build": None, "run": None}


def build(job):
    import openvino as ov

    model = ov.Core().read_model(job.graph)
    take_off_padding(model)
    ov.save_model(model, job.artifact / "model.xml", compress_to_fp16=False)
    compiled = open_model(job, job.artifact)
    return {
        "entry": "model.xml",
        "runtime": {"name": "openvino", "version": probe()["versions"]["openvino"]},
        "layers": compiled_layers(compiled),
        "effective": effective(compiled, job),
    }


def take_off_padding(model):
    """Take off the channels of nought that a graph has before narrow convolutions for the sake of other runtimes.

    This one pads while it reorders; reordering channels that somebody else added costs more. The answers stay the same.
    """
    import openvino as ov

    for pad in [op for op in model.get_ops() if op.get_type_name() == "Pad"]:
        narrow, reader = pad.input_value(0), only_reader(pad)
        while reader is not None and reader.get_type_name() in SCALING:
            reader = only_reader(reader)
        if reader is None or reader.get_type_name() != "Convolution" or narrow.partial_shape[1].is_dynamic:
            continue
        channels, stored = narrow.partial_shape[1].get_length(), weights_from_nought(reader)
        if stored is None or stored.data[:, channels:].any() or not pads_channels_alone(pad):
            continue
        fewer = ov.opset13.constant(np.ascontiguousarray(stored.data[:, :channels]), name=stored.get_friendly_name())
        stored.output(0).replace(fewer.output(0))
        pad.output(0).replace(narrow)
    model.validate_nodes_and_infer_types()


def only_reader(node):
    """The one node that reads this one, or None."""
    readers = node.output(0).get_target_inputs()
    return next(iter(readers)).get_node() if len(readers) == 1 else None


def weights_from_nought(convolution):
    """The stored weights that a convolution alone reads, where a stored 0 stands for 0; else None."""
    node = convolution.input_value(1).get_node()
    while node.get_type_name() in SCALING:
        offset = constant_below(node.input_value(1)) if node.get_type_name() == "Subtract" else np.zeros(1)
        if offset is None or offset.any():
            return None
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" and only_reader(node) else None


def pads_channels_alone(pad):
    """Whether a node adds a constant behind the channels, and nothing anywhere else."""
    begin, end = (constant_below(pad.input_value(i)) for i in (1, 2))
    if begin is None or end is None or pad.get_attributes()["pad_mode"] != "constant":
        return False
    return not begin.any() and not np.delete(end, 1).any()


def constant_below(port):
    """The numbers of a constant below what converts and reshapes it; None where it is none."""
    node = port.get_node()
    while node.get_type_name() in {"Convert", "Reshape"}:
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None


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
    """Compile for the CPU with float precision pinned: left alone, this runtime picks bfloat16 where it can.

    `pinned: false` leaves it alone.
    """
    import openvino as ov

    config = {
        **({"INFERENCE_PRECISION_HINT": "f32"} if job.options.get("pinned", True) else {}),
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
