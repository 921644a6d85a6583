"""From the rung that broke to the cause: every class is the outcome of an experiment, and what none explains is unexplained.

In: a `Case`, the standings, the rung that broke. Out: a `Cause`. The order of the experiments: the source's weights put
in, the fresh graph's ranges put in, mistakes before and behind the model, narrower floats, other operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from compile.errors import ToolchainError
from parity import postprocessing, preprocessing
from parity.case import Case
from parity.hypotheses import ENOUGH, Bench, Hypothesis, Trial, distance, tried
from parity.ladder import Rung, Standing
from parity.rounding import rounded
from parity.simulate import answered, exposing, opened, output_names, walked
from parity.structure import Change, changes
from parity.weights import Gap, gaps, weights_of, with_arrays, with_ranges

if TYPE_CHECKING:
    import onnx

Kind = Literal[
    "none",
    "export",
    "runtime precision",
    "quantization",
    "fusion",
    "pre/post-processing",
    "stale or wrong weights",
    "unexplained",
]
NARROW = frozenset({"bf16", "f16", "bfloat16", "float16", "fp16", "half"})
SHOWN = 4
REPRODUCED = 0.9
"""A hypothesis this good needs no costly fitting after it."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A class, the sentence that says it, what to do, how well the trials did, and the modules it is about."""

    kind: Kind
    sentence: str
    remedy: str | None = None
    trials: Sequence[Trial] = ()
    modules: Sequence[str] = ()
    left: float | None = field(default=None)


BY_RUNG: dict[str, tuple[Kind, str]] = {
    "exported graph": ("export", "the exported graph already answers otherwise than the source"),
    "optimizer on": ("fusion", "ONNX Runtime's graph optimizer changes the answers of the float graph"),
    "runtime's defaults": ("runtime precision", "left to its defaults, the runtime computes with narrower floats"),
    "quantized graph simulated": ("quantization", "the error is the one that quantization brings"),
}
"""Rungs that differ from the one before by one thing alone: that thing is the cause."""


def find(case: Case, standings: Sequence[Standing], broken: Standing, effective: Sequence[str]) -> Cause:
    """The cause behind the last broken rung. `effective`: float precisions that the runtime itself reports."""
    rung = broken.rung
    if broken.laws and rung.name not in ("artifact as found", "observation as found"):
        return Cause("unexplained", f"{rung.name}: {'; '.join(broken.laws[:3])}")
    if rung.name == "quantized graph simulated" and case.target.precision == "float16":
        return Cause("runtime precision", "the error is the one that half precision brings, which this target asks for")
    if rung.name in BY_RUNG:
        return Cause(*BY_RUNG[rung.name])
    assert rung.outputs is not None
    sound = case.exact if rung.after != "compiled artifact" and rung.name == "artifact as found" else case.fresh
    if rung.name == "artifact as found" and case.found is not None and (cause := in_the_graph(case, sound)) is not None:
        return cause
    if broken.laws:
        return Cause("unexplained", f"{rung.name}: {'; '.join(broken.laws[:3])}")
    narrow = sorted(set(effective) & NARROW)
    if narrow and rung.name in ("runtime, precision pinned", "compiled artifact"):
        return Cause("runtime precision", f"the runtime itself reports that it computes in {', '.join(narrow)}")
    return by_hypothesis(case, sound, rung, [s.rung for s in standings])


def in_the_graph(case: Case, sound: onnx.ModelProto) -> Cause | None:
    """What the candidate's own graph shows and an exchange confirms: its weights, its ranges; None where neither is it."""
    assert case.found is not None
    try:
        before = _error(case, sound, case.found)
        weights = _weights(case, sound, before)
        return weights or _ranges(case, sound, before)
    except ToolchainError:
        return None


def _error(case: Case, sound: onnx.ModelProto, candidate: onnx.ModelProto) -> float:
    """Energy of the candidate's error against the sound graph on the sample, over the sound graph's own energy."""
    signature = case.config.signature
    sides = [answered(opened(g, output_names(signature)), case.batches, signature) for g in (candidate, sound)]
    bench = Bench(signature, lambda feeds: feeds, case.batches, sides[0], sides[1])
    return distance(bench, sides[0], 0) + distance(bench, sides[0], 1)


def _weights(case: Case, sound: onnx.ModelProto, before: float) -> Cause | None:
    """Put the sound graph's weights into the candidate: is the error gone?"""
    assert case.found is not None
    ours = weights_of(sound)
    theirs = weights_of(case.found)
    other = gaps(ours, theirs)
    if not other:
        return None
    mended = with_arrays(case.found, {their: ours[our].array for our, their, _ in other})
    after = _error(case, sound, mended)
    if not after < ENOUGH * before:
        return None
    listed = [gap for _, _, gap in other]
    return Cause(
        "stale or wrong weights",
        f"{said(listed, len(theirs))}; with the source's in their place {1 - after / before:.0%} of the error is gone",
        "build it again from the source's weights",
        modules=list(dict.fromkeys(gap.module for gap in listed)),
    )


def said(other: Sequence[Gap], of: int) -> str:
    """Which weights are not the source's, in a few words."""
    by_factor = [f"those of `{g.module}` are {g.factor:.3g} times the source's" for g in other if g.noise < 0.01]
    if 0 < len(other) <= SHOWN and len(by_factor) == len(other):
        return f"the artifact's weights are not the source's: {', '.join(dict.fromkeys(by_factor))}"
    modules = list(dict.fromkeys(gap.module for gap in other))
    more = f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else ""
    named = ", ".join(f"`{module}`" for module in modules[:SHOWN])
    return f"{len(other)} of the artifact's {of} weight tensors are not the source's ({named}{more})"


def _ranges(case: Case, sound: onnx.ModelProto, before: float) -> Cause | None:
    """Put the fresh graph's activation ranges into the candidate: is the error gone?"""
    assert case.found is not None
    mended, other = with_ranges(case.found, case.fresh)
    if not other:
        return None
    after = _error(case, sound, mended)
    if not after < ENOUGH * before:
        return None
    from parity.tensors import saturations

    cut = {s.module: s for s in saturations(case.exact, case.found, case.feeds()) if s.share > 0}
    worst = max(cut.values(), key=lambda s: s.lost, default=None)
    cutting = "" if worst is None else f"; `{worst.module}` saturates: {worst.share:.1%} of its values lie beyond its range"
    return Cause(
        "quantization",
        f"{len(other)} activation ranges are not those that the calibration data gives{cutting}; with those in their "
        f"place {1 - after / before:.0%} of the error is gone",
        "calibrate again and rebuild",
        modules=[worst.module] if worst else [],
    )


def by_hypothesis(case: Case, sound: onnx.ModelProto, rung: Rung, rungs: Sequence[Rung]) -> Cause:
    """Try every mistake on the sound graph against what was answered; else say what the graph itself shows."""
    assert rung.outputs is not None
    bench = case.bench(sound, rung.outputs)
    inputs = list(preprocessing.suspicions(bench))
    behind = list(postprocessing.suspicions(bench, _entering(case, sound, bench)))
    trials = tried(bench, [*inputs, *behind, *_narrower(case, bench)])
    trials += tried(bench, _as_rungs(case, rung, rungs))
    if max((t.score for t in trials), default=0.0) < REPRODUCED:
        trials += tried(bench, list(preprocessing.fitted_scale(bench)))
    trials.sort(key=lambda trial: -trial.score)
    best = trials[0] if trials else None
    changed = changes(sound, case.found) if case.found is not None and rung.name == "artifact as found" else []
    if best is not None and best.holds and not (changed and best.score < REPRODUCED):
        kind: Kind = "runtime precision" if best.remedy.startswith("pin") else "pre/post-processing"
        sentence = f"{best.name}: so computed, the source's graph explains {best.score:.1%} of the error"
        return Cause(kind, sentence, best.remedy, trials, left=best.left)
    return by_structure(case, sound, rung, changed, trials)


def _entering(case: Case, sound: onnx.ModelProto, bench: Bench) -> dict[str, list]:  # type: ignore[type-arg]
    """Per output, what enters the activation that it ends in, on the sample."""
    signature = case.config.signature
    names = {t.name: n for t in bench.outputs if (n := postprocessing.entering(sound, t.name)) is not None}
    if not names:
        return {}
    infer = opened(exposing(sound, names.values()), [*output_names(signature), *names.values()])
    found = [outputs for _, outputs in walked(infer, case.batches, signature)]
    return {name: [outputs[inner] for outputs in found] for name, inner in names.items()}


def _narrower(case: Case, bench: Bench) -> list[Hypothesis]:
    """The float graph with what layers multiply rounded to half the bits."""
    signature = case.config.signature

    def hypothesis(kind: Literal["bfloat16", "float16"]) -> Hypothesis:
        def predict() -> list[dict]:  # type: ignore[type-arg]
            infer = opened(rounded(case.exact, kind), output_names(signature))
            return answered(infer, case.batches, signature)

        return Hypothesis(f"the candidate computes in {kind}", "pin the runtime's float precision", predict)

    return [hypothesis("bfloat16"), hypothesis("float16")] if case.target.precision == "float32" else []


def _as_rungs(case: Case, broken: Rung, rungs: Sequence[Rung]) -> list[Hypothesis]:
    """That the candidate answers as another rung does: so far only the runtime's own defaults, a known trap."""
    from parity.simulate import with_stream

    def predict(outputs: Path) -> list[dict]:  # type: ignore[type-arg]
        return [with_stream(outputs / path.name) for path in case.files]

    return [
        Hypothesis(
            "the candidate answers as the runtime does when its float precision is left to its defaults",
            "pin the runtime's float precision",
            lambda outputs=rung.outputs: predict(outputs),  # type: ignore[misc]
        )
        for rung in rungs
        if rung.name == "runtime's defaults" and not rung.leads and rung.outputs is not None and rung is not broken
    ]


def by_structure(
    case: Case, sound: onnx.ModelProto, rung: Rung, changed: Sequence[Change], trials: Sequence[Trial]
) -> Cause:
    """Operators that the candidate's graph has otherwise; unexplained where there are none."""
    if changed:
        first = changed[0]
        listed = "; ".join(change.sentence for change in changed[:2])
        return Cause(first.kind, listed, "build it again from the source", trials, [c.module for c in changed])
    if rung.name == "compiled artifact" and case.target.toolchain == "onnxruntime":
        told = "the graph answers well without ONNX Runtime's optimizer, so the operators that it fuses round otherwise"
        return Cause("fusion", told, None, trials)
    best = f"; the best of {len(trials)} hypotheses explains {max(trials[0].score, 0):.0%}" if trials else ""
    return Cause("unexplained", f"no experiment explains what {rung.name} answers{best}", None, trials)
