"""What a model has come to: per target built and judged, and its releases with their channels."""

from __future__ import annotations

import json
from typing import Any

from compile.config import load_model
from compile.project import Project
from compile.step import read_record
from registry.location import Location
from registry.stores import open_registry


def status_of(project: Project, name: str, location: Location) -> dict[str, Any]:
    """Plain values: `targets` (built, status of the last verdict), `versions` (digest, channels)."""
    config = load_model(project, name)
    registry = open_registry(location)
    channels = registry.channels(name)
    versions = [
        {"version": v.number, "digest": v.digest, "channels": sorted(c for c, n in channels.items() if n == v.number)}
        for v in registry.versions(name)
    ]
    return {
        "targets": {use.name: _target(project, name, use.name) for use in config.uses},
        "versions": versions,
        "registry": str(location),
    }


def _target(project: Project, model: str, target: str) -> dict[str, Any]:
    folder = project.out(model) / "targets" / target
    verdict = folder / "verdict" / "verdict.json"
    judged = json.loads(verdict.read_text())["status"] if verdict.is_file() else None
    return {"built": read_record(folder / "build") is not None, "verdict": judged}


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """The same for a person."""
    shown = [f"{name}  (registry: {found['registry']})"]
    for target, state in found["targets"].items():
        built = "built" if state["built"] else "not built"
        shown.append(f"  {target:<28} {built:<10} {state['verdict'] or 'not judged'}")
    for version in found["versions"]:
        where = ", ".join(version["channels"]) or "no channel"
        shown.append(f"  version {version['version']:<20} {where:<10} sha256:{str(version['digest'])[:12]}")
    if not found["versions"]:
        shown.append("  nothing published")
    return shown
