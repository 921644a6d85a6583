"""What to do next about a target that does not pass: one sentence with the command.

Facts in, a sentence out; pure. Nothing where the target's own message says it, or where nobody knows.
"""

from __future__ import annotations

import math

from parity.dossier.document import FindingFact, Target


def next_step(target: Target, model: str) -> str | None:
    """Of a target that failed: find the cause, or mend it. Of one that is open: bring what decides."""
    bad = [one for one in target.findings if one.status == target.status]
    if target.status == "INCONCLUSIVE":
        return _to_decide(bad, model)
    if target.status != "FAIL" or not bad:
        return None
    recipe = f"`lockstep tune {model} {target.name} --minutes 5` looks for the fastest recipe that passes"
    if all(one.against == "float" for one in bad):
        return f"{recipe}; where none does, name a float target instead."
    if target.cause.missing is not None:
        return target.cause.missing
    mend = f" To try: {target.cause.suggestion}." if target.cause.suggestion else ""
    return f"The cause: {target.cause.told}{mend}" + (f" {recipe}." if target.precision == "int8" else "")


def _to_decide(bad: list[FindingFact], model: str) -> str:
    if all(math.isnan(one.value) for one in bad):
        return "Name a cloud target that runs here next in `baseline`, or bring an observation (`lockstep bundle`)."
    if all(one.against == "float" for one in bad):
        return "Measure again on a quiet machine: remove the target's `timing` folder under `out/`."
    fresh = "Bring fresh rows: extending this suite until it passes inflates the error."
    return f"{fresh} `lockstep plan {model}` says how many each limit needs."
