"""What one trial found, and the counts that a report shows of many.

In: trials. Out: how many defects were planted, how many had to be caught and by what they were, how many healthy ones were
refused, and what fixed tolerances would have done. Benign: variants, and planted defects that the oracle finds harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.selftest.gate import FIXED, LEAST_COSINE


@dataclass(frozen=True, slots=True)
class Trial:
    """One defect or variant on one suite. `oracle`: must catch, grey zone, harmless. `caught_by`: None where it passed, as
    `caught_at`, the law or limit of the gate that said no first."""

    kind: str
    place: str
    size: float
    seed: int
    oracle: str
    holds_by: float | None
    worst: str
    agreement: float | None
    caught_by: str | None
    caught_at: str | None
    tolerances: Mapping[str, bool]


def summary(trials: Sequence[Trial], units: int, pool: int, whole: int) -> dict[str, Any]:
    """The counts; each suite was of so many `units`, drawn from `pool`; the model's own has `whole`."""
    planted = [t for t in trials if t.place != "benign"]
    must = [t for t in planted if t.oracle == "must catch"]
    benign = [t for t in trials if t.place == "benign" or t.oracle == "harmless"]
    known = [t for t in (*must, *benign) if t.tolerances]
    names = (*FIXED, f"cosine {LEAST_COSINE}")
    return {
        "planted": len(planted),
        "must_catch": len(must),
        "caught": sum(t.caught_by is not None for t in must),
        "caught_by": {
            how: sum(t.caught_by == how for t in must) for how in ("integrity", "structure", "statistics", "undecided")
        },
        "grey": len([t for t in planted if t.oracle == "grey zone"]),
        "benign": len(benign),
        "false_alarms": sum(t.caught_by is not None for t in benign),
        "suite": {"units": units, "pool": pool, "whole": whole},
        "fixed_tolerances": {
            name: {
                "caught": sum(t.tolerances[name] for t in known if t.oracle == "must catch" and t.place != "benign"),
                "of": sum(t.oracle == "must catch" and t.place != "benign" for t in known),
                "false_alarms": sum(t.tolerances[name] for t in benign if t.tolerances),
                "benign": sum(bool(t.tolerances) for t in benign),
            }
            for name in names
        },
    }
