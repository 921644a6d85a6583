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
UNREAD = (LockstepError, OSError, ValueError, KeyError, TypeError)
"""What reading a dossier may raise that is not there, or of no known form."""


def dossier(line: Line, outcomes: Sequence[Outcome], location: Location) -> Path:
    """The folder of this run's dossier, made where anything in it changed."""
    release = fit_release(line, outcomes)
    digest = None if release is None else release.digest
    before, published = last_release(line.model, location, digest)
    return station.dossier(line, outcomes, before, digest, published=published).folder


def fit_release(line: Line, outcomes: Sequence[Outcome]) -> Release | None:
    """The release that these outcomes make, or None where they make none; assembled once a run."""
    return line.once("release of this run", lambda: _fit_release(line, outcomes))


def _fit_release(line: Line, outcomes: Sequence[Outcome]) -> Release | None:
    policy = load_policy(line.project, line.config.policy)
    fit = of_outcomes(outcomes, policy) == PASSED and not all(why_not(outcome, policy) for outcome in outcomes)
    return assemble(line, outcomes) if fit else None


def last_release(model: str, location: Location, digest: str | None) -> tuple[Before, bool]:
    """The newest release before the one with this digest, as far as the registry tells, and whether that one is there."""
    try:
        registry = open_registry(location)
        versions = [version for version in registry.versions(model) if version.digest is not None]
    except LockstepError:
        return Before(
            unread=f"the registry at {location.url or 'its folder'} does not answer, so nothing is compared."
        ), False
    mine = next((version.number for version in versions if version.digest == digest), None)
    earlier = [version for version in versions if mine is None or version.number < mine]
    return (_read(registry, earlier[-1]) if earlier else Before()), mine is not None


def _read(registry: Registry, version: Version) -> Before:
    name = f"version {version.number}"
    try:
        text = beside(registry, version)
        schema = json.loads(text)["schema"]
    except UNREAD:
        return Before(name, None, "no dossier lies beside it, so nothing is compared.")
    if schema != SCHEMA:
        return Before(name, None, f"its dossier is of schema {schema}, which this lockstep does not compare.")
    return Before(name, text)


def beside(registry: Registry, version: Version) -> str:
    """The facts of the dossier that a version was published with, or one of the errors that `UNREAD` lists."""
    place = replace(version, source=f"{version.source.rpartition('/')[0]}/{EVIDENCE}")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / FACTS
        registry.fetch(place, FACTS, copy)
        return copy.read_text()


def tells_more(registry: Registry, version: Version, folder: Path) -> bool:
    """Whether the dossier in `folder` has a self-test that the one beside this version lacks."""
    try:
        there = tested(beside(registry, version))
    except UNREAD:
        there = set()
    return bool(tested((folder / FACTS).read_text()) - there)


def tested(facts: str) -> set[str]:
    """The targets on whose artifacts the gate was tested."""
    return {target["name"] for target in json.loads(facts)["targets"] if target["selftest"]["missing"] is None}
