"""Why a step would run now, and why each ran last: walks the line without running anything."""

from __future__ import annotations

from compile.errors import ConfigError
from compile.line import Line
from compile.step import RECORD, read_record
from parity.check import Outcome, check

FIRST = "its first run"
Reasons = dict[str, list[str]]


def why(line: Line) -> tuple[Reasons, Reasons]:
    """Steps that would run with what changed (only the first of each chain is known), and why each ran last."""
    line.dry = True
    check(line)
    last = {path.parent.relative_to(line.out).as_posix(): path.parent for path in sorted(line.out.rglob(RECORD))}
    records = {name: read_record(folder) for name, folder in last.items()}
    return dict(line.reasons), {
        name: [FIRST if b == "not built yet" else b for b in record.because]
        for name, record in records.items()
        if record is not None
    }


def refuse_stale(line: Line) -> list[Outcome]:
    """The outcomes as they lie there; ConfigError where anything was not judged, or changed since it was."""
    line.dry = True
    outcomes = check(line)
    line.dry = False
    for step, because in line.reasons.items():
        raise ConfigError(f"not judged, or changed since: {step}: {because[0]}. Run `lockstep check {line.model}`")
    return outcomes
