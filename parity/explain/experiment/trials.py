"""The mistakes around a model and the narrower floats, all tried against what a candidate answered.

In: a `Case` and a bench. Out: `Trial`s, the best first. The rule: constants are fitted only where nothing known reproduces
the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from parity.explain.experiment.case import Case
from parity.explain.experiment.ladder import Rung
from parity.explain.graph.rounding import Narrow, rounded
from parity.explain.graph.simulate import Batch, answered, exposing, opened, output_names, walked
from parity.explain.mistake import contrast, gamma, postprocessing, preprocessing, streams
from parity.explain.mistake.hypotheses import (
    EMULATED,
    FITTED,
    INDEPENDENT,
    Array,
    Bench,
    Hypothesis,
    Trial,
    distance,
    tried,
)
from parity.explain.mistake.screening import screened

PIN = "pin the runtime's float precision"
EXACT = 0.999
"""A mistake that explains less may be a neighbour of the real one: then constants are fitted."""


def trials_of(case: Case, bench: Bench, rungs: Sequence[Rung]) -> list[Trial]:
    """Every mistake done to the sound graph, against what was answered; the best first."""
    behind = postprocessing.suspicions(bench, _entering(case, bench))
    trials = screened(bench, preprocessing.suspicions, "mistakes with the inputs")
    others = [*streams.suspicions(bench), *behind, *_narrower(case, bench), *_as_rungs(case, rungs)]
    trials += tried(bench, others, "mistakes with the answers")
    if max((trial.score for trial in trials), default=0.0) < EXACT:
        own = bench.graph is None or bench.graph == case.exact
        smooth = bench.infer if own else opened(case.exact, output_names(case.config.signature))
        enough = enough_of(case, bench)
        fitted = [*preprocessing.fitted_scale(bench, smooth, enough), *gamma.fitted_gamma(bench, smooth, enough)]
        fitted += contrast.fitted_pictures(bench, smooth)
        trials += tried(bench, fitted)
    return sorted(trials, key=lambda trial: -trial.score)


def enough_of(case: Case, bench: Bench) -> float:
    """The share of the error that a mistake must explain which has near neighbours, or was fitted: what is left may be
    rounding, the sound graph's and another.

    Of a graph of integers the last digit of a factor decides how everything behind it is rounded.
    """
    if bench.graph is None:  # the source itself: the float graph is on trial
        return FITTED
    exact = case.answers_of(case.exact)
    own, error = distance(replace(bench, found=exact), bench.sound), distance(bench, bench.sound)
    return max(EMULATED, min(FITTED, 1 - INDEPENDENT * own / error)) if error else FITTED


def _entering(case: Case, bench: Bench) -> dict[str, list[Array]]:
    """Per output, what enters the activation that it ends in, on the sample."""
    sound = bench.graph
    if sound is None:
        return {}
    names = {t.name: n for t in bench.outputs if (n := postprocessing.entering(sound, t.name)) is not None}
    if not names:
        return {}
    infer = opened(exposing(sound, names.values()), [*output_names(case.config.signature), *names.values()])
    found = [outputs for _, outputs in walked(infer, case.batches, case.config.signature)]
    return {name: [outputs[inner] for outputs in found] for name, inner in names.items()}


def _narrower(case: Case, bench: Bench) -> list[Hypothesis]:
    """The float graph with what its layers multiply rounded to half the bits; for what is meant to run in float32."""
    if bench.graph is None:
        return []
    signature = case.config.signature

    def predict(kind: Narrow) -> list[Batch]:
        return answered(opened(rounded(case.exact, kind), output_names(signature)), case.batches, signature)

    kinds: tuple[Narrow, ...] = ("bfloat16", "float16") if case.target.precision == "float32" else ()
    return [
        Hypothesis(f"the candidate computes in {kind}", PIN, partial(predict, kind), EMULATED, kind="runtime precision")
        for kind in kinds
    ]


def _as_rungs(case: Case, rungs: Sequence[Rung]) -> list[Hypothesis]:
    """That the candidate answers as this runtime does when it is left to its defaults, where the target pins it."""

    def predict(outputs: Path) -> list[Batch]:
        return case.answers_in(outputs)

    return [
        Hypothesis(
            "the candidate answers as the runtime does at its defaults",
            PIN,
            partial(predict, one.outputs),
            EMULATED,
            kind="runtime precision",
        )
        for one in rungs
        if one.name == "runtime's defaults" and not one.leads and one.outputs is not None
        if case.target.precision == "float32"
    ]
