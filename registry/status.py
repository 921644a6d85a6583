"""What a model has come to: per target built and judged, and its releases with their channels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from compile.config import names_of
from compile.errors import PASSED, TOOLCHAIN, ConfigError, IntegrityError, LockstepError, nearest
from compile.line import Line
from compile.project import Project
from compile.step import read_record
from parity.check import check
from registry import stored
from registry.embedded import Embedded
from registry.location import Location
from registry.reading import Registry, Version
from registry.stores import open_registry

AS_PUBLISHED, NOT_READ = "as published", "not read"
SOUND = (AS_PUBLISHED, NOT_READ)
"""What is said of files that nothing speaks against."""


def status_of(project: Project, name: str, location: Location) -> dict[str, Any]:
    """Plain values: `targets` (built, the last verdict, whether that is still of these inputs), `versions`, `problem`.

    `problem` is what keeps the model's config or data from being read, or None.
    """
    if name not in (known := names_of(project, "models")):
        raise ConfigError(f"{name}: no such model; models here: {', '.join(known) or 'none'}{nearest(name, known)}")
    registry = open_registry(location)
    channels = registry.channels(name)
    targets, problem = _targets(project, name, location)
    versions = [
        {
            "version": version.number,
            "digest": version.digest,
            "channels": sorted(channel for channel, number in channels.items() if number == version.number),
            "files": _files(registry, version),
        }
        for version in registry.versions(name)
    ]
    return {"targets": targets, "versions": versions, "registry": str(location), "problem": problem}


def _targets(project: Project, name: str, location: Location) -> tuple[dict[str, Any], str | None]:
    try:
        line = Line.open(project, name, lambda event: None, location.tracking_uri)
    except ConfigError as error:
        return {}, str(error)
    line.dry = True
    try:
        current, problem = {outcome.name for outcome in check(line) if outcome.verdict}, None
    except LockstepError as error:
        current, problem = set(), str(error)
    return {use.name: _target(line, use.name) | {"current": use.name in current} for use in line.config.uses}, problem


def _target(line: Line, target: str) -> dict[str, Any]:
    folder = line.out / "targets" / target
    verdict = folder / "verdict" / "verdict.json"
    judged = json.loads(verdict.read_text())["status"] if verdict.is_file() else None
    return {"built": read_record(folder / "build") is not None, "verdict": judged}


def _files(registry: Registry, version: Version) -> str:
    """Whether a release's files are as published; a server's are not fetched for that."""
    if not isinstance(registry, Embedded):
        return NOT_READ
    try:
        stored.check(registry, version)
    except IntegrityError as error:
        return str(error)
    return AS_PUBLISHED


def code(found: Mapping[str, dict[str, Any]]) -> int:
    """The exit code: a release whose files are not as published is a registry that failed."""
    sound = all(version["files"] in SOUND for one in found.values() for version in one["versions"])
    return PASSED if sound else TOOLCHAIN


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """The same for a person."""
    shown = [f"{name}  (registry: {found['registry']})"]
    for target, state in found["targets"].items():
        built = "built" if state["built"] else "not built"
        since = "" if state["current"] or not state["built"] else "  (its inputs changed since: `lockstep why`)"
        shown.append(f"  {target:<28} {built:<10} {state['verdict'] or 'not judged'}{since}")
    if found["problem"]:
        shown.append(f"  {found['problem']}")
    for version in found["versions"]:
        where = ", ".join(version["channels"]) or "no channel"
        wrong = "" if version["files"] in SOUND else f"  {version['files']}"
        shown.append(f"  version {version['version']:<20} {where:<10} sha256:{str(version['digest'])[:12]}{wrong}")
    if not found["versions"]:
        shown.append("  nothing published")
    return shown
