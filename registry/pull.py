"""A consumer's side: only its own target's files, every byte checked before any of them is usable.

In: a registry, a version or a channel, a target, a folder. Out: the folder with `manifest.json`, `release.json`
(digest, version), `SHA256SUMS` and the files. It appears all at once, or not at all.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from compile import digest
from compile.errors import ConfigError, IntegrityError
from registry import manifest
from registry.pulled import RELEASE, SUMS, about_release, check_target, sums
from registry.reading import Registry, Version, resolve
from registry.verify import verify


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pulled folder and what is in it."""

    folder: Path
    name: str
    version: int
    digest: str
    target: str
    fetched: bool


def pull(registry: Registry, wanted: str, target: str, folder: Path) -> Pulled:
    """Pull `NAME@VERSION|CHANNEL|sha256:DIGEST` for one target into `folder`."""
    name, _, which = wanted.partition("@")
    if not name or not which:
        raise ConfigError(f"`{wanted}`: expected NAME@VERSION or NAME@CHANNEL, such as fashion-cnn@production")
    version = resolve(registry, name, which)
    if version.digest is None:
        raise IntegrityError(f"{name} version {version.number} was not published by lockstep: it carries no digest")
    if _is_here(folder, version, target):
        return Pulled(folder, name, version.number, version.digest, target, fetched=False)
    folder = Path(os.path.abspath(folder))
    _refuse_strange(folder)
    _sweep(folder)
    part = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _fetch(registry, version, target, part)
        _put(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Pulled(folder, name, version.number, version.digest, target, fetched=True)


def _fetch(registry: Registry, version: Version, target: str, part: Path) -> None:
    registry.fetch(version, manifest.FILE, part / manifest.FILE)
    data = (part / manifest.FILE).read_bytes()
    found = digest.of_bytes(data)
    if found != version.digest:
        raise IntegrityError(
            f"{version.name} version {version.number}: its manifest has SHA-256 {found[:16]}…; the version says "
            f"{str(version.digest)[:16]}…. It was changed after publishing: do not use it"
        )
    promised = manifest.parse(data)
    check_target(promised, target)
    for entry in promised.entries(target):
        (part / entry.path).parent.mkdir(parents=True, exist_ok=True)
        registry.fetch(version, entry.path, part / entry.path)
        manifest.check_file(part / entry.path, entry, f"{version.name} version {version.number}")
    (part / SUMS).write_text(sums(promised, target))
    (part / RELEASE).write_text(about_release(promised, version.number, target))


def _is_here(folder: Path, version: Version, target: str) -> bool:
    """Whether `folder` already holds exactly this release for this target."""
    try:
        checked = verify(folder)
    except (ConfigError, IntegrityError):
        return False
    return (checked.digest, checked.target) == (version.digest, target)


def _refuse_strange(folder: Path) -> None:
    """Replace what lockstep pulled before; never somebody's own files."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder}: is not a folder; name another one with --to")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    ours = {RELEASE, SUMS, manifest.FILE}
    if found and (len(found & ours) < 2 or found - ours - {"targets"}):
        raise ConfigError(f"{folder}: holds files that lockstep did not pull; name an empty or a new folder with --to")


def _sweep(folder: Path) -> None:
    """Clear what pulls that were killed left beside the folder; a release that one had set aside comes back."""
    for left in [*folder.parent.glob(f".{folder.name}.old-*"), *folder.parent.glob(f".{folder.name}.part-*")]:
        if Path(f"/proc/{left.name.rpartition('-')[2]}").exists():
            continue
        if ".old-" in left.name and not folder.exists():
            left.rename(folder)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _put(part: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
