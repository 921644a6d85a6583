"""Experiments on the candidate's own graph: put the right weights, ranges or floats in, and see whether the error goes.

In: a `Case` with a candidate's graph. Out: what was exchanged and how much of the error went with it, or None where it
stayed. The rule: a difference in the files is a suspicion; only the error that goes with it makes it the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from compile import percent
from compile.errors import ToolchainError
from parity.explain.experiment.case import Case
from parity.explain.graph.folding import folded_alike
from parity.explain.graph.gaps import ENOUGH_TO_TELL, NARROW, Gap, facing, gaps, is_narrow, is_rounded, loses, paired
from parity.explain.graph.rounding import widened
from parity.explain.graph.simulate import Batch
from parity.explain.graph.tensors import Saturation, saturations
from parity.explain.graph.weights import weights_of, with_arrays, with_ranges
from parity.explain.mistake.hypotheses import FIT, SCORE, distance

if TYPE_CHECKING:
    import onnx

MOST_LEFT = 0.5
"""What was exchanged is the cause where more than half of the error's energy goes with it."""
SHOWN = 4


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an exchange showed."""

    kind: Literal[
        "stale or wrong weights", "quantization", "runtime precision", "export", "fusion", "pre/post-processing"
    ]
    sentence: str
    remedy: str | None
    modules: Sequence[str]
    mended: onnx.ModelProto | None = None
    """The candidate without this defect; None where that is only imitated."""
    before: bool = False
    """Whether it stands before the model alone: something that is done to inputs."""


Truth = Sequence[Batch] | None
"""What a candidate without the defect in question would answer on the sample; None: what the sound graph answers."""


def weights(case: Case, truth: Truth = None) -> Exchange | None:
    """The source's weights in the candidate: the fresh graph's where both have the same layers, else the float graph's."""
    for suspicion, sound in suspected_weights(case):
        assert suspicion.mended is not None
        gone = share_gone(case, sound, suspicion.mended, truth)
        if gone > MOST_LEFT:
            told = f"{suspicion.sentence}; with the source's in their place {percent.whole(gone)} of the error is gone"
            return replace(suspicion, sentence=told)
    return None


def narrow(case: Case) -> Exchange | None:
    """Weights that are the source's, stored in half the bits: rounded or cut off; and what is computed in so few."""
    assert case.found is not None
    halved = widened(case.found)
    _, wide = folded_alike([case.exact, halved])
    ours, theirs = weights_of(case.exact), weights_of(wide)
    for kind, room in NARROW.items():
        stored = {key: twin for key, twin in paired(ours, theirs).items() if is_narrow(theirs[key], kind)}
        own = {key: facing(ours[twin], theirs[key], twin, key) for key, twin in stored.items()}
        lost = {key: weight.array for key, weight in own.items() if loses(weight, theirs[key], room)}
        if not any(array.size >= ENOUGH_TO_TELL for array in lost.values()):
            continue
        mended = with_arrays(wide, lost)
        gone = share_gone(case, case.exact, mended, None)
        if gone > MOST_LEFT:
            sentence = (
                f"{len(lost)} of the artifact's {len(theirs)} weight tensors are the source's stored in {kind}; with the "
                f"source's own in their place {percent.whole(gone)} of the error is gone"
            )
            modules = list(dict.fromkeys(theirs[key].module for key in lost))
            return Exchange("runtime precision", sentence, "store the weights in float32", modules, mended)
    if halved is case.found:
        return None
    faced = {key: facing(ours[twin], theirs[key], twin, key) for key, twin in paired(ours, theirs).items()}
    alike = {key: own.array for key, own in faced.items() if is_rounded(own, theirs[key])}
    for mended, how in ((wide, ""), (with_arrays(wide, alike), " from the source's weights")):
        gone = share_gone(case, case.exact, mended, None)
        if gone > MOST_LEFT:
            told = f"the artifact computes in half precision; computed in float32{how}, {percent.whole(gone)} of the error is gone"
            return Exchange("runtime precision", told, "compute in float32", [], mended)
    return None


def suspected_weights(case: Case) -> Iterator[tuple[Exchange, onnx.ModelProto]]:
    """Weights that are not those of a sound graph, put in from it; and that graph."""
    assert case.found is not None
    theirs = weights_of(case.found)
    found = [(gaps(weights_of(sound), theirs), weights_of(sound), sound) for sound in (case.fresh, case.exact)]
    for other, ours, sound in sorted(found, key=lambda one: len(one[0])):
        if not other:  # they are the source's, smoothed and rounded by this recipe or by another
            return
        named = [one for one in other if one[0] == one[1]]  # the others were paired by likeness, or by place
        for some in (other, *([named] if 0 < len(named) < len(other) else [])):
            put = {their: facing(ours[our], theirs[their], our, their).array for our, their, _ in some}
            yield _suspected([gap for _, _, gap in some], len(theirs), with_arrays(case.found, put)), sound


def _suspected(other: Sequence[Gap], of: int, mended: onnx.ModelProto) -> Exchange:
    modules = list(dict.fromkeys(gap.module for gap in other))
    if all(gap.is_setting for gap in other):
        named = ", ".join(f"`{module}`" for module in modules[:SHOWN])
        told = (
            f"{len(other)} of the constants of the artifact's operators are not those of the source's graph ({named})"
        )
        return Exchange("export", told, "export it again", modules, mended)
    remedy = "build it again from the source's weights"
    return Exchange("stale or wrong weights", said(other, of), remedy, modules, mended)


def said(other: Sequence[Gap], of: int) -> str:
    """Which weights are not the source's, in a few words."""
    scaled = [f"{_whose(g)} {g.factor:.3g} times the source's" for g in other if g.tells]
    if len(scaled) == len(other) <= SHOWN:
        return f"the artifact's weights are not the source's: {', '.join(dict.fromkeys(scaled))}"
    names = list(dict.fromkeys(gap.tensor if gap.is_parameter else gap.module for gap in other))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    named = ", ".join(f"`{name}`" for name in names[:SHOWN])
    return f"{len(other)} of the artifact's {of} weight tensors are not the source's ({named}{more})"


def _whose(gap: Gap) -> str:
    """`` `head.bias` is`` where the tensor's name says so much, else the module's."""
    own = gap.is_parameter or gap.tensor.startswith(f"{gap.module}.")
    return f"`{gap.tensor}` is" if own else f"those of `{gap.module}` are"


def ranges(case: Case, truth: Truth = None) -> Exchange | None:
    """The fresh graph's activation ranges in the candidate."""
    assert case.found is not None
    mended, other = with_ranges(case.found, case.fresh)
    gone = share_gone(case, case.fresh, mended, truth) if other else 0.0
    if gone <= MOST_LEFT:
        return None
    sentence = (
        f"{len(other)} activation ranges are not those that the calibration data gives{saturated(case, case.found)}"
    )
    after = f"; with those in their place {percent.whole(gone)} of the error is gone"
    modules = [one.module for one in cut_off(case, case.found)]
    return Exchange("quantization", sentence + after, "calibrate again and rebuild", modules, mended)


SATURATED = 1e-3
"""Energy cut off that is worth a word: above -30 dB, where eight bits' own rounding lies."""


def cut_off(case: Case, graph: onnx.ModelProto) -> list[Saturation]:
    """The quantized activations of a graph that saturate on the suite, the worst first."""
    cut = [one for one in saturations(case.exact, graph, case.feeds(), case.smoothing()) if one.lost > SATURATED]
    return sorted(cut, key=lambda one: -one.lost)


def saturated(case: Case, graph: onnx.ModelProto) -> str:
    """`; what `conv1` gives to `conv2` saturates: …`, or nothing."""
    cut = cut_off(case, graph)
    if not cut:
        return ""
    giver, reader = cut[0].module, cut[0].reader
    what = f"a tensor inside `{giver}`" if giver == reader else f"what `{giver}` gives to `{reader}`"
    values, energy = percent.share(cut[0].share), percent.share(cut[0].lost, 1)
    return f"; {what} saturates: {values} of its values, {energy} of its energy, lie out of range"


def share_gone(case: Case, sound: onnx.ModelProto, mended: onnx.ModelProto, truth: Truth) -> float:
    """The share of the candidate's error against the sound graph that the mended candidate no longer has."""
    assert case.found is not None
    ours = case.answers_of(sound) if truth is None else truth
    before = _error(case, ours, case.answers_of(case.found))
    if not before:
        return 0.0
    try:
        return 1 - _error(case, ours, case.answers_of(mended)) / before
    except ToolchainError:  # what was put in does not fit the graph
        return 0.0


def _error(case: Case, ours: Sequence[Batch], theirs: Sequence[Batch]) -> float:
    """Energy of the candidate's error on the sample over the sound graph's own energy."""
    bench = case.between(ours, ours)
    return distance(bench, theirs, FIT) + distance(bench, theirs, SCORE)
