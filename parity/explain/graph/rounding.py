"""A graph in narrower floats, as a runtime would compute it, or in wider ones: experiments, no runtime.

In: a graph. Out: the same graph in which what every layer multiplies is first rounded to bfloat16 or float16; or the one in
which float32 stands wherever these stood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from compile.coverage import layer_places
from parity.explain.graph.points import QUANTIZING

if TYPE_CHECKING:
    import onnx

Narrow = Literal["bfloat16", "float16"]


def rounded(model: onnx.ModelProto, kind: Narrow) -> onnx.ModelProto:
    """Both factors of every layer rounded to `kind`; sums stay in float32, as matrix units keep them."""
    import onnx

    to = onnx.TensorProto.BFLOAT16 if kind == "bfloat16" else onnx.TensorProto.FLOAT16
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = list(copy.graph.node)
    decoded = {name for node in nodes if node.op_type in QUANTIZING for name in node.output}
    del copy.graph.node[:]
    done: dict[str, str] = {}
    for node in nodes:
        for place in layer_places(node) or ():
            name = node.input[place]
            if name not in done and name not in decoded:
                narrow, done[name] = f"{name}__narrow", f"{name}__rounded"
                copy.graph.node.add(op_type="Cast", input=[name], output=[narrow]).attribute.append(
                    onnx.helper.make_attribute("to", to)
                )
                copy.graph.node.add(op_type="Cast", input=[narrow], output=[done[name]]).attribute.append(
                    onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT)
                )
            node.input[place] = done.get(name, name)
        copy.graph.node.append(node)
    return copy


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in float32 throughout; itself where nothing in it is narrower."""
    import onnx
    from onnx import numpy_helper

    narrow = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    settings = [a for node in copy.graph.node for a in node.attribute]
    stored = [*copy.graph.initializer, *(a.t for a in settings if a.HasField("t"))]
    found = [tensor for tensor in stored if tensor.data_type in narrow]
    for tensor in found:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    casts = [a for a in settings if a.name == "to" and a.i in narrow]
    for cast in casts:
        cast.i = onnx.TensorProto.FLOAT
    del copy.graph.value_info[:]
    return copy if found or casts else model
