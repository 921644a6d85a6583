"""What a pulled folder looks like: the files beside the artifact, and their exact text."""

from __future__ import annotations

import json

from compile.errors import ConfigError, nearest
from registry import manifest
from registry.manifest import Manifest

RELEASE = "release.json"
SUMS = "SHA256SUMS"


def check_target(promised: Manifest, target: str) -> None:
    """ConfigError where the release holds no files for a target; says why if it knows."""
    if target in promised.document["targets"]:
        return
    absent = promised.document["absent"].get(target)
    if absent is not None:
        raise ConfigError(f"{promised.name}: this release goes without `{target}`: {absent['found']} ({absent['why']})")
    raise ConfigError(
        f"{promised.name}: no target `{target}` in this release; it has {', '.join(promised.targets)}"
        f"{nearest(target, promised.targets)}"
    )


def about_release(promised: Manifest, version: int, target: str) -> str:
    """The text of `release.json`."""
    about = {"name": promised.name, "version": version, "digest": promised.digest, "target": target}
    return json.dumps(about, indent=1, sort_keys=True) + "\n"


def sums(promised: Manifest, target: str) -> str:
    """The text of `SHA256SUMS`: the manifest and the target's files, as `sha256sum -c` reads them."""
    lines = [f"{promised.digest}  {manifest.FILE}"]
    lines += [f"{entry.sha256}  {entry.path}" for entry in promised.entries(target)]
    return "\n".join(lines) + "\n"
