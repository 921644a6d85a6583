"""What OpenVINO made of a graph: each multiplying operator of the compiled model, integer or float."""

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
