"""ONNX Runtime on the CPU. The artifact is the graph itself; the runtime optimizes it when it loads."""

import re
import shutil

PACKAGES = ("onnxruntime",)
OPTIONS = ("threads",)
INTEGER_OPS = {
    "QLinearConv",
    "ConvInteger",
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "QAttention",
    "QLinearConvTranspose",
}
FLOAT_OPS = {
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "NhwcFusedConv",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
    "FusedMatMulActivation",
    "TransposeMatMul",
    "LSTM",
    "GRU",
    "RNN",
    "Attention",
    "MultiHeadAttention",
    "EmbedLayerNormalization",
}
WEIGHTS_AT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
"""Where the weights stand; second place in all other operators."""

RENAMED = re.compile(r"(_token_\d+|_nchwc|/MatMulScaleFusion/?|_quant)+$")


def probe():
    import onnxruntime

    return {"versions": {"onnxruntime": onnxruntime.__version__}, "build": None, "run": None}


def build(job):
    """Copy the graph, load it once, and read off what the runtime makes of it."""
    shutil.copy(job.graph, job.artifact / "model.onnx")
    optimized = job.folder / "optimized.onnx"
    session = open_session(job, job.artifact, optimized)
    return {
        "entry": "model.onnx",
        "runtime": {"name": "onnxruntime", "version": version()},
        "layers": compiled_layers(optimized),
        "effective": effective(session, job),
    }


def load(job, artifact):
    session = open_session(job, artifact)
    names = [output.name for output in session.get_outputs()]
    wanted = {i.name for i in session.get_inputs()}

    def infer(feeds):
        return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in wanted}), strict=True))

    return infer, effective(session, job)


def open_session(job, artifact, optimized=None):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job.options.get("threads", 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(artifact / "model.onnx"), options, providers=["CPUExecutionProvider"])


def effective(session, job):
    return {
        "providers": session.get_providers(),
        "precision": job.precision,
        "threads": job.options.get("threads", 1),
        "versions": probe()["versions"],
    }


def version():
    return probe()["versions"]["onnxruntime"]


def compiled_layers(optimized_model_path):
    """For each layer with weights: name, names (of the graph's nodes), op, precision, integer; the order it runs in.

    Products of two activations are left out: they have no weights. The names are the source graph's, as far as the
    optimizer kept them.
    """
    import onnx

    graph = onnx.load(str(optimized_model_path)).graph
    stored = {tensor.name for tensor in graph.initializer}
    made_from = {name: node for node in graph.node for name in node.output}
    layers = []
    for node in graph.node:
        if node.op_type not in INTEGER_OPS | FLOAT_OPS or not has_weights(node, stored, made_from):
            continue
        integer = node.op_type in INTEGER_OPS
        name = RENAMED.sub("", node.name.removeprefix("fused "))
        op = node.op_type if not node.domain else f"{node.domain}:{node.op_type}"
        precision = "int8" if integer else "float32"
        layers.append({"name": name, "names": [name], "op": op, "precision": precision, "integer": integer})
    return layers


def has_weights(node, stored, made_from):
    """Whether a layer multiplies by what is kept in the file."""
    place = WEIGHTS_AT.get(node.op_type, 1)
    name = node.input[place] if len(node.input) > place else ""
    while name not in stored:
        source = made_from.get(name)
        if (
            source is None
            or not source.input
            or source.op_type
            not in {
                "DequantizeLinear",
                "Transpose",
                "Reshape",
                "Cast",
                "ReorderInput",
            }
        ):
            return False
        name = source.input[0]
    return True
