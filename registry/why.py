"""Why a step would run now, and why each ran last: walks the line without running anything."""

from __future__ import annotations

from contextlib import suppress

from compile.errors import ConfigError
from compile.line import Line, WouldRun
from compile.step import RECORD, read_record
from parity.check import Outcome, check
from registry.release import assemble

FIRST_RUN = {"not built yet": "its first run"}
Reasons = dict[str, list[str]]


def why(line: Line) -> tuple[Reasons, Reasons]:
    """Steps that would run with what changed (only the first of each chain is known), and why each ran last."""
    line.dry = True
    outcomes = check(line)
    if not line.reasons:
        with suppress(WouldRun, ConfigError):
            assemble(line, outcomes)
    folders = {path.parent.relative_to(line.out).as_posix(): path.parent for path in sorted(line.out.rglob(RECORD))}
    records = {name: read_record(folder) for name, folder in folders.items()}
    last = {
        name: [FIRST_RUN.get(reason, reason) for reason in r.because] for name, r in records.items() if r is not None
    }
    return dict(line.reasons), last


def refuse_stale(line: Line) -> list[Outcome]:
    """The outcomes as they lie there; ConfigError where anything was not judged, or changed since it was."""
    line.dry = True
    outcomes = check(line)
    line.dry = False
    for step, because in line.reasons.items():
        raise ConfigError(f"not judged, or changed since: {step}: {because[0]}. Run `lockstep check {line.model}`")
    return outcomes
