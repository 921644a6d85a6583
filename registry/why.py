"""Why a step would run now, and why each ran last: walks the line without running anything."""

from __future__ import annotations

from dataclasses import dataclass

from compile.errors import ConfigError, IntegrityError
from compile.line import Line, WouldRun
from compile.step import RECORD, read_record
from parity.check import Outcome, check
from registry.dossier import dossier, fit_release
from registry.location import Location
from registry.publish import published

FIRST_RUN = {"not built yet": "its first run"}
Reasons = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Why:
    """`now`: the first step of each chain that would run, with what changed; `after`: the targets that wait for them.

    `last`: why each step ran last. `published`: what is wrong with the published release of what lies here, if anything.
    """

    now: Reasons
    after: list[str]
    last: Reasons
    published: str | None


def why(line: Line, location: Location) -> Why:
    line.dry = True
    outcomes = check(line)
    wrong = None
    if not line.reasons:
        try:
            release = fit_release(line, outcomes)
            dossier(line, outcomes, location)
            if release is not None:
                wrong = None if published(location, release) else f"not published to {location} yet"
        except IntegrityError as error:
            wrong = str(error)
        except (WouldRun, ConfigError):
            pass  # the line keeps the reason; what may not be published is the verdicts' matter
    folders = {path.parent.relative_to(line.out).as_posix(): path.parent for path in sorted(line.out.rglob(RECORD))}
    records = {name: read_record(folder) for name, folder in folders.items()}
    last = {
        name: [FIRST_RUN.get(reason, reason) for reason in r.because] for name, r in records.items() if r is not None
    }
    waiting = [o.name for o in outcomes if o.status == "NOT JUDGED" and f"targets/{o.name}/" not in str(line.reasons)]
    return Why(dict(line.reasons), waiting, last, wrong)


def lines(model: str, found: Why) -> list[str]:
    """The same for a person."""
    shown = [f"{step}: {reason}" for step, reasons in found.now.items() for reason in reasons]
    if found.after:
        shown.append(f"then, where those results differ: {', '.join(found.after)}")
    if found.published is not None:
        shown.append(f"the published release: {found.published}")
    shown = shown or [f"{model}: nothing changed; the next run does nothing"]
    return [*shown, "", "why each step ran last:", *(f"  {step}: {'; '.join(r)}" for step, r in found.last.items())]


def refuse_stale(line: Line) -> list[Outcome]:
    """The outcomes as they lie there; ConfigError where anything was not judged, or changed since it was."""
    line.dry = True
    outcomes = check(line)
    line.dry = False
    for step, because in line.reasons.items():
        raise ConfigError(f"not judged, or changed since: {step}: {because[0]}. Run `lockstep check {line.model}`")
    return outcomes
