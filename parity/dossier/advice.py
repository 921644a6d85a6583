"""What to do next about a target that does not pass, by what it missed: what mends answers does not mend speed.

Facts in, sentences out; pure. Nothing where the target's own message says it, or where nobody knows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from compile.config import QuantizeConfig
from parity.dossier.document import FindingFact, Target

FOR_SIZE = "`goal: {kind: size, why: …}` in the policy where int8 is there for its size"

UNSTEADY = (
    "Look in the artifact for what takes the rows of a batch together or draws at random (a normalization left in training, "
    "dropout, a reshape or squeeze over the batch), and export again in evaluation mode."
)

SATURATES = " saturates: "
CALIBRATE = (
    "Ranges come from the calibration rows: where inputs of the suite lie outside of them, bring calibration rows like those of "
    "the suite, prepared in the same way."
)
IDLE = (
    "Bind a limit in the policy that answers of other rows miss: `float_error` or `sqnr_db`, of unbalanced classes `macro_f1`, `f1` "
    "or `worst_slice`, or a tighter bound."
)


def next_step(target: Target, model: str) -> str | None:
    """Of a target that failed: find the cause, or mend it. Of one that is open: bring what decides."""
    bad = [one for one in target.findings if one.status == target.status]
    if target.status == "INCONCLUSIVE":
        return _to_decide(bad, model)
    if target.status != "FAIL" or not bad:
        return None
    if any(one.metric == "steady" for one in bad):
        return UNSTEADY
    if all(one.metric == "limits" for one in bad):
        return IDLE
    tune = f"`lockstep tune {model} {target.name} --minutes 5`"
    if all(one.against == "float" for one in bad):
        instead = "int8 does not pay here: name a float target instead"
        if not slow_alone([str(one.of) for one in bad]):
            return f"{instead}."
        return f"{instead}, or {FOR_SIZE}. {tune} tells whether another recipe is fast enough."
    recipe = f"{tune} looks for the fastest recipe that passes"
    if target.cause.missing is not None:
        return target.cause.missing + (f" {recipe}." if target.precision == "int8" else "")
    mend = f" {target.cause.tried}" if target.cause.tried else ""
    mend += f" {CALIBRATE}" if SATURATES in target.cause.told and target.precision == "int8" else ""
    return f"The cause: {target.cause.told}{mend}" + (f" {recipe}." if target.precision == "int8" else "")


def slow_alone(missed: Collection[str]) -> bool:
    """Whether it is the latency beside float alone that is missed: the metrics by the policy's names."""
    return set(missed) == {"latency_ratio"}


def when_refused(
    model: str, quantize: QuantizeConfig, missed: Mapping[str, Collection[str]], floats: Sequence[str] = ()
) -> list[str]:
    """What to try where targets were refused, a line each. `missed`: of each int8 target the metrics; nothing where there is none.
    `floats`: where none in float32 passes, these."""
    if floats:
        beside = ["  what float32 misses no recipe mends in int8"] if missed else []
        return ["what to try:", f"  `lockstep explain {model} {floats[0]}`: the step, the cause and the layer", *beside]
    if not missed:
        return []
    lines = ["what to try (docs/verdicts.md, `When int8 is refused`):"]
    wrong = [target for target, metrics in missed.items() if not slow_alone(metrics)]
    if wrong:
        lines.append(f"  `lockstep explain {model} {wrong[0]}`: the step, the layer and a remedy that was tried")
        lines.append(
            f"  `lockstep tune {model} {wrong[0]} --minutes 5`: the fastest recipe that passes, if there is one"
        )
    lines.append(f"or by hand, in configs/models/{model}.yaml:")
    if wrong:
        calibrate = "more calibration rows" if quantize.algorithm == "kl" else "{algorithm: kl}, more calibration rows"
        layers = "for more layers than it names" if quantize.keep_float else "for the first and last layers"
        lines.append(f"  quantize: {calibrate}, or `keep_float` {layers}")
    slow = [target for target, metrics in missed.items() if slow_alone(metrics)]
    if slow:
        lines.append(f"  {', '.join(slow)}: slower than float, and nothing else: {FOR_SIZE},")
        lines.append(f"  or `lockstep tune {model} {slow[0]} --minutes 5` to see whether another recipe is fast enough")
    return [*lines, "  a float target in its place, or `{name: …, required: false, why: …}` to release without it"]


def _to_decide(bad: list[FindingFact], model: str) -> str:
    if all(math.isnan(one.value) for one in bad):
        return "Name a cloud target that runs here next in `baseline`, or bring an observation (`lockstep bundle`)."
    if all(one.against == "float" for one in bad):
        return "Measure again on a quiet machine: remove the target's `timing` folder under `out/`."
    of = "groups (streams, documents), for their rows count as one" if any(one.groups for one in bad) else "rows"
    fresh = f"Bring fresh {of}: extending this suite until it passes inflates the error."
    return f"{fresh} `lockstep plan {model}` says how many each limit needs."
