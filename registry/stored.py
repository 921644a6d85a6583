"""A published release against its own promises, where the registry keeps it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from compile import digest
from compile.errors import IntegrityError
from registry import manifest
from registry.embedded import Embedded
from registry.manifest import Entry, Manifest
from registry.reading import Registry, Version


def find(registry: Registry, name: str, release_digest: str) -> Version | None:
    """The version that holds a release, or None."""
    return next((version for version in registry.versions(name) if version.digest == release_digest), None)


def entries(promised: Manifest) -> list[Entry]:
    """Every file that a release promises, but for the manifest itself."""
    return [entry for target in promised.targets for entry in promised.entries(target)]


def check(registry: Registry, version: Version) -> None:
    """Hash every file of a version against its manifest, and that against the digest; where it lies, if that is here."""
    where = f"{version.name} version {version.number}"
    with tempfile.TemporaryDirectory() as scratch:
        place = _local(registry, version, manifest.FILE, Path(scratch))
        data = place.read_bytes() if place.is_file() else b""
        if digest.of_bytes(data) != version.digest:
            raise IntegrityError(f"{where}: `manifest.json` changed after publishing, or is gone{_repair(version)}")
        for entry in entries(manifest.parse(data)):
            try:
                manifest.check_file(_local(registry, version, entry.path, Path(scratch)), entry, where)
            except IntegrityError as error:
                raise IntegrityError(f"{error}{_repair(version)}") from error


def _local(registry: Registry, version: Version, path: str, scratch: Path) -> Path:
    """A file of a release on this disk: where the embedded registry keeps it, or a copy from the server."""
    if isinstance(registry, Embedded):
        return registry.path(version, path)
    registry.fetch(version, path, scratch / "file")
    return scratch / "file"


def _repair(version: Version) -> str:
    return (
        f". To put the judged bytes back, run `lockstep publish {version.name} --repair` where its inputs are those of "
        f"version {version.number}"
    )
