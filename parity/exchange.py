"""Experiments on the candidate's own graph: put the right weights, ranges or floats in, and see whether the error goes.

In: a `Case` with a candidate's graph. Out: what was exchanged and how much of the error went with it, or None where it
stayed. The rule: a difference in the files is a suspicion; only the error that goes with it makes it the cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from compile.errors import ToolchainError
from parity.case import Case
from parity.hypotheses import FIT, SCORE, Bench, distance
from parity.simulate import answered, opened, output_names
from parity.tensors import Saturation, saturations
from parity.weights import Gap, gaps, weights_of, with_arrays, with_ranges

if TYPE_CHECKING:
    import onnx

MOST_LEFT = 0.5
"""What was exchanged is the cause where more than half of the error's energy goes with it."""
SHOWN = 4


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an exchange showed."""

    kind: Literal["stale or wrong weights", "quantization"]
    sentence: str
    remedy: str | None
    modules: Sequence[str]


def weights(case: Case) -> Exchange | None:
    """The source's weights in the candidate: the fresh graph's where both have the same layers, else the float graph's."""
    assert case.found is not None
    theirs = weights_of(case.found)
    for sound in (case.fresh, case.exact):
        ours = weights_of(sound)
        other = gaps(ours, theirs)
        if not other:
            return None
        mended = with_arrays(case.found, {their: ours[our].array for our, their, _ in other})
        gone = _gone(case, sound, mended)
        if gone > MOST_LEFT:
            listed = [gap for _, _, gap in other]
            sentence = f"{said(listed, len(theirs))}; with the source's in their place {gone:.0%} of the error is gone"
            modules = list(dict.fromkeys(gap.module for gap in listed))
            return Exchange("stale or wrong weights", sentence, "build it again from the source's weights", modules)
    return None


def said(other: Sequence[Gap], of: int) -> str:
    """Which weights are not the source's, in a few words."""
    scaled = [f"those of `{g.module}` are {g.factor:.3g} times the source's" for g in other if g.noise < 0.01]
    if len(scaled) == len(other) <= SHOWN:
        return f"the artifact's weights are not the source's: {', '.join(dict.fromkeys(scaled))}"
    modules = list(dict.fromkeys(gap.module for gap in other))
    more = f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else ""
    named = ", ".join(f"`{module}`" for module in modules[:SHOWN])
    return f"{len(other)} of the artifact's {of} weight tensors are not the source's ({named}{more})"


def ranges(case: Case) -> Exchange | None:
    """The fresh graph's activation ranges in the candidate."""
    assert case.found is not None
    mended, other = with_ranges(case.found, case.fresh)
    gone = _gone(case, case.fresh, mended) if other else 0.0
    if gone <= MOST_LEFT:
        return None
    sentence = (
        f"{len(other)} activation ranges are not those that the calibration data gives{saturated(case, case.found)}"
    )
    after = f"; with those in their place {gone:.0%} of the error is gone"
    modules = [one.module for one in cut_off(case, case.found)]
    return Exchange("quantization", sentence + after, "calibrate again and rebuild", modules)


def quantizers(case: Case) -> Exchange | None:
    """A candidate that was quantized elsewhere, with its activations left in float and its weights as the source has them."""
    assert case.found is not None
    if not any(node.op_type == "QuantizeLinear" for node in case.found.graph.node):
        return None
    ours, theirs = weights_of(case.exact), weights_of(case.found)
    unrounded = {key: ours[key].array for key, weight in theirs.items() if key in ours and weight.step}
    alike = {key: array for key, array in unrounded.items() if array.shape == theirs[key].array.shape}
    gone = _gone(case, case.exact, with_arrays(unquantized(case.found), alike))
    if gone <= MOST_LEFT:
        return None
    sentence = (
        f"the artifact was quantized by other means than here{saturated(case, case.found)}; with its layers back in "
    )
    return Exchange("quantization", f"{sentence}float {gone:.0%} of the error is gone", "quantize it here", [])


SATURATED = 1e-3
"""Energy cut off that is worth a word: above -30 dB, where eight bits' own rounding lies."""


def cut_off(case: Case, graph: onnx.ModelProto) -> list[Saturation]:
    """The quantized activations of a graph that saturate on the suite, the worst first."""
    cut = [one for one in saturations(case.exact, graph, case.feeds()) if one.lost > SATURATED]
    return sorted(cut, key=lambda one: -one.lost)


def saturated(case: Case, graph: onnx.ModelProto) -> str:
    """`; what `conv1` gives to `conv2` saturates: …`, or nothing."""
    cut = cut_off(case, graph)
    if not cut:
        return ""
    share = f"{cut[0].share:.1%} of its values lie out of range"
    return f"; what `{cut[0].module}` gives to `{cut[0].reader}` saturates: {share}"


def unquantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in which activations pass their quantizers untouched; weights stay as they decode."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    passed: dict[str, str] = {}
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and source.op_type == "QuantizeLinear" and source.input[0] not in stored:
            passed[node.output[0]] = source.input[0]
    for node in copy.graph.node:
        for place, name in enumerate(node.input):
            while name in passed:
                name = passed[name]
            node.input[place] = name
        if node.op_type == "DequantizeLinear" and node.output[0] in passed:  # read by nobody now, or an output itself
            node.op_type = "Identity"
            node.input[:] = [passed[node.output[0]]]
            del node.attribute[:]
    return copy


def _gone(case: Case, sound: onnx.ModelProto, mended: onnx.ModelProto) -> float:
    """The share of the candidate's error against the sound graph that the mended candidate no longer has."""
    assert case.found is not None
    before = _error(case, sound, case.found)
    if not before:
        return 0.0
    try:
        return 1 - _error(case, sound, mended) / before
    except ToolchainError:  # what was put in does not fit the graph
        return 0.0


def _error(case: Case, sound: onnx.ModelProto, candidate: onnx.ModelProto) -> float:
    """Energy of the candidate's error on the sample over the sound graph's own energy."""
    signature = case.config.signature
    ours, theirs = (answered(opened(g, output_names(signature)), case.batches, signature) for g in (sound, candidate))
    bench = Bench(signature, lambda feeds: feeds, case.batches, ours, ours)
    return distance(bench, theirs, FIT) + distance(bench, theirs, SCORE)
