"""The float graph as a runtime with narrower floats would compute it: an experiment, not a runtime.

In: a float32 graph. Out: the same graph in which what every layer multiplies is first rounded to bfloat16 or float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from compile.coverage import layer_places
from parity.explain.points import QUANTIZING

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
