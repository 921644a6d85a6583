"""The dossier of a run, with what changed since the last release: the registry says which release that is.

In: the line, its outcomes and, where they make one, their release. Out: `out/<model>/dossier/`. The last release is the
newest version before the one that holds this release; a version without a dossier, or a registry that does not answer,
is said in the dossier and stops nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compile.errors import PASSED, LockstepError
from compile.line import Line
from parity.check import Outcome
from parity.dossier import FACTS, SCHEMA, station
from parity.dossier.station import Before
from parity.exit_code import of_outcomes
from parity.policy import load_policy
from registry.location import Location
from registry.reading import Registry, Version
from registry.release import Release, assemble, why_not
from registry.stores import open_registry

EVIDENCE = "evidence"


def dossier(line: Line, outcomes: Sequence[Outcome], location: Location) -> Path:
    """The folder of this run's dossier, made where anything in it changed."""
    release = fit_release(line, outcomes)
    digest = None if release is None else release.digest
    return station.dossier(line, outcomes, last_release(line.model, location, digest), digest).folder


def fit_release(line: Line, outcomes: Sequence[Outcome]) -> Release | None:
    """The release that these outcomes make, or None where they make none; assembled once a run."""
    return line.once("release of this run", lambda: _fit_release(line, outcomes))


def _fit_release(line: Line, outcomes: Sequence[Outcome]) -> Release | None:
    policy = load_policy(line.project, line.config.policy)
    fit = of_outcomes(outcomes, policy) == PASSED and not all(why_not(outcome, policy) for outcome in outcomes)
    return assemble(line, outcomes) if fit else None


def last_release(model: str, location: Location, digest: str | None) -> Before:
    """The newest release before the one with this digest, as far as the registry tells."""
    try:
        registry = open_registry(location)
        versions = [version for version in registry.versions(model) if version.digest is not None]
    except LockstepError:
        return Before(unread=f"the registry at {location.url or 'its folder'} does not answer, so nothing is compared.")
    mine = next((version.number for version in versions if version.digest == digest), None)
    earlier = [version for version in versions if mine is None or version.number < mine]
    return _read(registry, earlier[-1]) if earlier else Before()


def _read(registry: Registry, version: Version) -> Before:
    name = f"version {version.number}"
    beside = replace(version, source=f"{version.source.rpartition('/')[0]}/{EVIDENCE}")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / FACTS
        try:
            registry.fetch(beside, FACTS, copy)
            text = copy.read_text()
            schema = json.loads(text)["schema"]
        except (LockstepError, OSError, ValueError, KeyError, TypeError):
            return Before(name, None, "no dossier lies beside it, so nothing is compared.")
    if schema != SCHEMA:
        return Before(name, None, f"its dossier is of schema {schema}, which this lockstep does not compare.")
    return Before(name, text)
