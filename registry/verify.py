"""A pulled folder against its own promises: files against the manifest, the manifest against the digest.

Everything that lies there must be promised, and everything promised must lie there. Law: changing, adding or
removing any byte of a pulled folder makes `verify` refuse it, but for the version number in `release.json`: that is
the registry's name for the release, and no digest covers it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from compile import digest
from compile.errors import ConfigError, IntegrityError
from registry import manifest
from registry.pulled import RELEASE, SUMS, about_release, check_target, sums


@dataclass(frozen=True, slots=True)
class Verified:
    """What a folder turned out to hold."""

    name: str
    version: int
    digest: str
    target: str
    files: int

    def place(self, folder: Path) -> Path:
        """Where the target's own files lie."""
        return folder / "targets" / self.target


def verify(folder: Path) -> Verified:
    """Check every byte of a pulled folder; IntegrityError names the first that is not as promised."""
    about = _about(folder)
    data = _read(folder, manifest.FILE)
    if digest.of_bytes(data) != about["digest"]:
        raise IntegrityError(f"{folder}: `manifest.json` is not the one that was pulled; pull the release again")
    promised = manifest.parse(data)
    target = str(about["target"])
    check_target(promised, target)
    if promised.name != about["name"]:
        raise IntegrityError(f"{folder}: `release.json` speaks of {about['name']}, the manifest of {promised.name}")
    if _read(folder, RELEASE) != about_release(promised, int(str(about["version"])), target).encode():
        raise IntegrityError(f"{folder}: `release.json` is not as it was written; pull the release again")
    entries = promised.entries(target)
    for entry in entries:
        manifest.check_file(folder / entry.path, entry, str(folder))
    if _read(folder, SUMS).decode(errors="replace") != sums(promised, target):
        raise IntegrityError(f"{folder}: `SHA256SUMS` does not list what the manifest lists; pull the release again")
    _refuse_additions(folder, {e.path for e in entries} | {manifest.FILE, RELEASE, SUMS})
    return Verified(promised.name, int(str(about["version"])), promised.digest, target, len(entries))


def _about(folder: Path) -> dict[str, object]:
    if not (folder / RELEASE).is_file():
        raise ConfigError(f"{folder}: no `release.json`; expected a folder that `lockstep pull` made")
    try:
        about: dict[str, object] = json.loads((folder / RELEASE).read_text())
        _ = about["name"], int(str(about["version"])), about["digest"], about["target"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{folder}: `release.json` is damaged: {error!r}; pull the release again") from error
    return about


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise IntegrityError(f"{folder}: `{name}` cannot be read: {error}; pull the release again") from error


def _refuse_additions(folder: Path, promised: set[str]) -> None:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise IntegrityError(f"{folder}: `{name}` is a link; a release has none")
        if not path.is_dir() and name not in promised:
            raise IntegrityError(f"{folder}: `{name}` is not part of the release; take it out or pull again")
