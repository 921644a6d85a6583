"""A finished search as a person reads it, as JSON, and as an exit code."""

from __future__ import annotations

from typing import Any

from compile.errors import FAILED, INTERRUPTED, PASSED
from parity.report import complaints
from parity.tune import station
from parity.tune.record import document_of
from parity.tune.station import Tuned
from parity.tune.trial import described, gave
from parity.tune.written import quantize_block


def code(tuned: Tuned) -> int:
    """0 where the suite's verdict is PASS, 130 where somebody stopped the search, else 1."""
    return PASSED if tuned.passed else INTERRUPTED if tuned.ended == station.INTERRUPTED else FAILED


def document(tuned: Tuned) -> dict[str, Any]:
    """As plain JSON values."""
    adopted, verdict = tuned.adopted, tuned.verdict
    return {
        "target": tuned.name,
        "rows": tuned.rows,
        "ended": tuned.ended,
        "trials": [document_of(trial) for trial in tuned.trials],
        "best": None if tuned.best is None else document_of(tuned.best),
        "not_judged_while_tuning": list(tuned.silent),
        "config": None if adopted is None else {"model": adopted.model, "target": adopted.target},
        "files": [] if adopted is None else [str(path) for path in adopted.files],
        "shared_with": [] if adopted is None else list(adopted.shared),
        "verdict": None if verdict is None else dict(verdict.verdict) | {"status": verdict.status},
        "passed": tuned.passed,
    }


def printed(model: str, tuned: Tuned) -> str:
    """What was tried, what is best, what the suite says of it, and where it is written."""
    base = tuned.trials[0].recipe if tuned.trials else None
    lines = [f"{tuned.rows}."]
    if tuned.dropped:
        lines.append(f"earlier trials were not taken up: changed since is {', '.join(tuned.dropped)}")
    lines += [
        f"  {t.number:>3}  {described(t.recipe, base if t.number > 1 else None)}: {gave(t)}" for t in tuned.trials
    ]
    lines.append(f"{len(tuned.trials)} recipes; {tuned.ended}.")
    if tuned.silent:
        lines.append(f"not judged while tuning, for the rows do not have what it needs: {', '.join(tuned.silent)}")
    return "\n".join([*lines, *_end(model, tuned)])


def _end(model: str, tuned: Tuned) -> list[str]:
    if tuned.best is None:
        return ["nothing was tried to its end: give it more minutes"]
    if tuned.adopted is None:
        missed = f"nothing passes. Nearest is trial {tuned.best.number}: {tuned.best.reason}"
        kept = f"kept in out/{model}/targets/{tuned.name}/tune/best.yaml; the model's config is as it was:"
        return [missed, kept, *(f"  {line}" for line in quantize_block(tuned.best.recipe).splitlines())]
    return [f"chosen: trial {tuned.best.number}: {gave(tuned.best)}", *_adopted(tuned), *_verdict(tuned)]


def _adopted(tuned: Tuned) -> list[str]:
    assert tuned.adopted is not None
    lines = [f"written: {path}" for path in tuned.adopted.files]
    if tuned.adopted.shared:
        lines.append(f"shared, for one recipe serves every target of a dialect: {', '.join(tuned.adopted.shared)}")
    if tuned.adopted.refused:
        lines.append(
            f"will not be built so: {', '.join(tuned.adopted.refused)}; too little is integer for their `quantized_share`"
        )
    return lines


def _verdict(tuned: Tuned) -> list[str]:
    """What the suite said, once; a FAIL is not answered by trying the next recipe on it: that would be tuning on it."""
    assert tuned.adopted is not None
    check = f"lockstep check {tuned.adopted.model}"
    if tuned.verdict is None:
        return [f"the suite was not asked: {check}"]
    said = [f"on the suite: {tuned.verdict.status} ({check} says the same)", *complaints(tuned.verdict)]
    if tuned.passed:
        return said
    return [
        *said,
        "no other recipe is tried on the suite, which would be tuning on it; more `tuning` rows choose more surely",
    ]
